"""Options that a plugin class declares: the keyword-only parameters of its constructor."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..errors import OptionError
from ..support.blame import Culprit, blame
from ..support.wording import did_you_mean, listed

__all__ = ["construct", "declared_options", "instantiate"]


def declared_options(cls: type) -> dict[str, inspect.Parameter]:
    """The options that a plugin class takes, by name.

    >>> class Gate:
    ...     def __init__(self, *, momentum: float = 0.9) -> None: ...
    >>> list(declared_options(Gate))
    ['momentum']
    """
    return dict(_declared(cls))


@lru_cache(maxsize=1024)
def _declared(cls: type) -> Mapping[str, inspect.Parameter]:
    """The same, remembered: a search constructs hundreds of converters, each of which asks for every class."""
    parameters = inspect.signature(cls).parameters
    return {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def instantiate(cls: type, options: Mapping[str, Any], who: Culprit | None = None) -> Any:
    """Construct `cls`, which messages call `who`, with the options that it declares; ignore the rest.

    Raises:
        PluginError: Its constructor fails.
    """
    known = declared_options(cls)
    with blame(who or Culprit(f"The class {cls.__name__}"), "asked for an instance", cls, "__init__"):
        return cls(**{name: value for name, value in options.items() if name in known})


def construct(cls: type, options: Mapping[str, Any], who: Culprit) -> Any:
    """Construct `cls`, which messages call `who`, with all of `options`.

    Raises:
        OptionError: The class declares no such option.
        PluginError: Its constructor fails.
    """
    known = declared_options(cls)
    unknown = sorted(set(options) - set(known))
    if unknown:
        hint = did_you_mean(unknown[0], known, count=1)
        raise OptionError(
            f"{who.what} got the unknown option{'s' if len(unknown) > 1 else ''} "
            f"{listed(unknown)}. {hint}{' ' if hint else ''}"
            + (f"Its options: {listed(known)}." if known else "It has no options.")
        )
    with blame(who, "asked for an instance", cls, "__init__"):
        return cls(**options)
