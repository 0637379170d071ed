"""Checks of plugin classes that depend on the hook."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import PluginError
from ..support.wording import listed, shown

__all__ = [
    "CONVERTER_KEYWORDS",
    "check_anytime",
    "check_claims",
    "check_exports",
    "check_suffixes",
    "check_tunable",
    "require_defaults",
    "require_free",
]

CONVERTER_KEYWORDS = (
    "dataloader",
    "device",
    "mode",
    "momentum",
    "fuse_flag",
    "channel_wise",
    "neuron",
    "corrections",
    "mappers",
    "layers",
    "prefer",
    "plugins",
    "leaf_modules",
    "convert_only",
    "progress",
    "verify",
    "weights",
    "shared_scales",
    "distributed",
)
"""The converter's own keywords, except T, which it passes on."""


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


def require_free(cls: type, reserved: tuple[str, ...], function: str) -> None:
    """Check that every option of a class can reach it.

    Args:
        cls: The class.
        reserved: The keywords that `function` keeps for itself.
        function: The function to which users give the options, for the message.

    Raises:
        PluginError: An option has the name of such a keyword.
    """
    named = [
        name
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD) and name in reserved
    ]
    if named:
        what = "the options" if len(named) > 1 else "the option"
        raise PluginError(
            f"{cls.__qualname__}() has {what} {', '.join(named)}, which {function} keeps for itself, so a user's value "
            f"would never arrive. Rename {'them' if len(named) > 1 else 'it'}; reserved are {', '.join(reserved)}."
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


def check_tunable(cls: type) -> None:
    """Raises:
    PluginError: `tunable` is not a mapping of options, or ``"mode"`` for a mode, to values.
    """
    tunable: Any = cls.__dict__.get("tunable", {})  # a subclass may have other options than its base
    known = {*inspect.signature(cls).parameters, *({"mode"} if hasattr(cls, "parse") else ())}
    if not isinstance(tunable, Mapping) or not all(
        isinstance(values, Sequence) and not isinstance(values, str) and len(values) for values in tunable.values()
    ):
        raise PluginError(
            f'{cls.__qualname__}.tunable must hold a tuple of values for each option, such as {{"levels": (2, 4, 8)}}, '
            f"not {shown(tunable)}."
        )
    unknown = [name for name in tunable if name not in known]
    if unknown:
        raise PluginError(
            f"{cls.__qualname__}.tunable names {listed(map(shown, unknown))}, which is not an option of the class; "
            f"its options are {listed(sorted(known)) or 'none'}."
        )


def check_anytime(cls: type) -> None:
    """Raises:
    PluginError: `anytime` is not a mapping of options of a class that has an option T.
    """
    anytime: Any = cls.__dict__.get("anytime", {})  # a subclass may have other options than its base
    known = set(inspect.signature(cls).parameters)
    if not isinstance(anytime, Mapping) or not set(anytime) <= known - {"T"} or (anytime and "T" not in known):
        raise PluginError(
            f"{cls.__qualname__}.anytime must hold values of options besides T of a class with the option T, such as "
            f'{{"earliest": 4}}, not {shown(anytime)}; the options of this class are {listed(sorted(known)) or "none"}.'
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
