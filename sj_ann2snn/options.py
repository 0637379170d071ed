"""Options that a plugin class declares: the keyword-only parameters of its constructor."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

__all__ = ["declared_options", "instantiate"]


def declared_options(cls: type) -> dict[str, inspect.Parameter]:
    """The options a plugin class understands, by name.

    >>> class Gate:
    ...     def __init__(self, *, momentum: float = 0.9) -> None: ...
    >>> list(declared_options(Gate))
    ['momentum']
    """
    parameters = inspect.signature(cls).parameters
    return {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def instantiate(cls: type, options: Mapping[str, Any]) -> Any:
    """`cls`, constructed with those of `options` that it declares."""
    known = declared_options(cls)
    return cls(**{name: value for name, value in options.items() if name in known})
