"""Options that a plugin class declares: the keyword-only parameters of its constructor."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ..errors import OptionError
from ..support.blame import blame
from ..support.wording import did_you_mean, listed

__all__ = ["construct", "declared_options", "instantiate"]


def declared_options(cls: type) -> dict[str, inspect.Parameter]:
    """The options that a plugin class takes, by name.

    >>> class Gate:
    ...     def __init__(self, *, momentum: float = 0.9) -> None: ...
    >>> list(declared_options(Gate))
    ['momentum']
    """
    parameters = inspect.signature(cls).parameters
    return {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def instantiate(cls: type, options: Mapping[str, Any]) -> Any:
    """Construct `cls` with the options that it declares; ignore the rest."""
    known = declared_options(cls)
    return _made(cls, {name: value for name, value in options.items() if name in known})


def construct(cls: type, options: Mapping[str, Any], called: str) -> Any:
    """Construct `cls` with all of `options`.

    Raises:
        OptionError: The class declares no such option; the message begins with `called`.
    """
    known = declared_options(cls)
    unknown = sorted(set(options) - set(known))
    if unknown:
        hint = did_you_mean(unknown[0], known, count=1)
        raise OptionError(
            f"{called[:1].upper()}{called[1:]} got the unknown option{'s' if len(unknown) > 1 else ''} "
            f"{listed(unknown)}. {hint}{' ' if hint else ''}"
            + (f"Its options: {listed(known)}." if known else "It has no options.")
        )
    return _made(cls, options)


def _made(cls: type, options: Mapping[str, Any]) -> Any:
    with blame(f"The constructor of {cls.__module__}.{cls.__qualname__}"):
        return cls(**options)
