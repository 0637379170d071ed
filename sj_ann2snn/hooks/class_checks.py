"""Checks of plugin classes that depend on the hook."""

from __future__ import annotations

import inspect
from typing import Any

from ..errors import PluginError
from ..support.wording import shown

__all__ = ["check_claims", "check_exports", "check_suffixes", "require_defaults"]


def require_defaults(cls: type) -> None:
    """Raises:
    PluginError: A parameter of the constructor has no default.
    """
    required = [
        name
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if required:
        raise PluginError(
            f"{cls.__qualname__}() requires {', '.join(required)}; options must be keyword-only and have defaults."
        )


def check_exports(cls: type) -> None:
    """Raises:
    PluginError: `exports` is not a tuple of layers with a method export_options.
    """
    exports: Any = getattr(cls, "exports", ())
    if not isinstance(exports, tuple) or not all(hasattr(one, "export_options") for one in exports):
        raise PluginError(
            f"{cls.__qualname__}.exports must be a tuple of layers with a method export_options, not {shown(exports)}."
        )


def check_suffixes(cls: type) -> None:
    """Raises:
    PluginError: `suffixes` is not a tuple of suffixes.
    """
    suffixes: Any = getattr(cls, "suffixes", ())
    if not isinstance(suffixes, tuple) or not all(isinstance(one, str) and one.startswith(".") for one in suffixes):
        raise PluginError(
            f"{cls.__qualname__}.suffixes must be a tuple of suffixes such as '.zip', not {shown(suffixes)}."
        )


def check_claims(cls: type) -> None:
    """Raises:
    PluginError: `claims` is empty, or is not a tuple of module types, functions and names of tensor methods.
    """
    claimed: Any = getattr(cls, "claims", None)
    if not isinstance(claimed, tuple) or not claimed:
        raise PluginError(f"{cls.__qualname__}.claims must be a non-empty tuple, not {shown(claimed)}.")
    for claim in claimed:
        if not (isinstance(claim, str) or callable(claim)):
            raise PluginError(
                f"{cls.__qualname__}.claims holds {shown(claim)}; allowed are module types, functions and "
                "names of tensor methods."
            )
