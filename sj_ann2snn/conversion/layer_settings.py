"""Arguments for single layers, by patterns over their qualified names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from ..errors import OptionError
from ..hooks.class_checks import CONVERTER_KEYWORDS
from ..support.wording import did_you_mean, listed, shown

__all__ = ["OF_A_LAYER", "LayerSettings"]

OF_A_LAYER = ("mode", "neuron", "channel_wise")
"""The converter's own arguments that a single layer may have; options come in addition."""

EXAMPLE = 'layers={"layer3.*": {"mode": "99.99%", "neuron": "burst", "levels": 4}}'


class LayerSettings:
    """What the argument `layers` says.

    >>> settings = LayerSettings({"layer3.*": {"mode": "99%"}, "*.relu2": {"mode": "max", "channel_wise": True}})
    >>> settings.merged(settings.matching("layer3.0.relu2"))
    {'mode': 'max', 'channel_wise': True}
    >>> settings.matching("layer1.0.relu1")
    ()

    Args:
        given: Arguments by pattern. ``*`` matches anything, including dots, ``?`` one character, ``[ab]`` one of these.

    Raises:
        OptionError: It is no such mapping, or holds an argument that applies to the whole network.
    """

    def __init__(self, given: object) -> None:
        if not isinstance(given, Mapping):
            raise OptionError(
                f"layers={shown(given)} is not allowed: give a dict of patterns over qualified layer names, each with "
                f"the arguments for these layers, such as {EXAMPLE}."
            )
        self.by_pattern: dict[str, dict[str, Any]] = {}
        for pattern, arguments in given.items():
            if not isinstance(pattern, str) or not isinstance(arguments, Mapping) or not arguments:
                raise OptionError(
                    f"layers holds {shown(pattern)}: {shown(arguments)}, which is not allowed: give a pattern over "
                    f"qualified layer names and a dict of arguments, such as {EXAMPLE}."
                )
            whole = [name for name in arguments if name == "T" or name in {*CONVERTER_KEYWORDS} - {*OF_A_LAYER}]
            if whole:
                raise OptionError(
                    f"layers[{shown(pattern)}] holds {listed(whole)}, which applies to the whole network: give it to "
                    f"the converter itself. A layer takes {listed(OF_A_LAYER)} and options of the mode, the neuron and "
                    "the mappers."
                )
            self.by_pattern[pattern] = dict(arguments)

    def __bool__(self) -> bool:
        return bool(self.by_pattern)

    def matching(self, name: str) -> tuple[str, ...]:
        """The patterns that match the layer called `name`, in the given order."""
        return tuple(pattern for pattern in self.by_pattern if fnmatchcase(name, pattern))

    def merged(self, patterns: Sequence[str]) -> dict[str, Any]:
        """The arguments of several patterns; what comes later wins."""
        return {name: value for pattern in patterns for name, value in self.by_pattern[pattern].items()}

    def require_effect(self, pattern: str, names: Iterable[str], what: str) -> None:
        """Raises:
        OptionError: `pattern` matches none of `names`, the layers for which its arguments have an effect.
        """
        every = list(dict.fromkeys(names))
        if any(fnmatchcase(name, pattern) for name in every):
            return
        hint = did_you_mean(pattern, every)
        raise OptionError(
            f"layers[{shown(pattern)}] = {shown(self.by_pattern[pattern])} has no effect: the pattern matches no "
            f"{what}.{' ' if hint else ''}{hint} There {'is' if len(every) == 1 else 'are'} {listed(every) or 'none'}."
        )
