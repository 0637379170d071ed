"""One description per hook: what plugins return, how users name it, and what its classes must have.

A new hook takes a new `HookKind` here, its base class in `contracts`, and code that uses its classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..contracts.correction import Correction
from ..contracts.exit_rule import ExitRule
from ..contracts.exporter import Exporter
from ..contracts.layer_mapper import LayerMapper
from ..contracts.neuron_maker import NeuronMaker
from ..contracts.normalization import Normalization
from ..contracts.readout import Readout
from ..errors import PluginError
from ..support.wording import shown
from .class_checks import (
    CONVERTER_KEYWORDS,
    check_anytime,
    check_claims,
    check_exports,
    check_suffixes,
    check_tunable,
    require_defaults,
    require_free,
)

__all__ = [
    "CORRECTIONS",
    "EXIT_RULES",
    "EXPORTERS",
    "KINDS",
    "LAYER_MAPPERS",
    "MODES",
    "NEURONS",
    "READOUTS",
    "HookKind",
]

BY_PREFER = "Choose with Converter(prefer={first!r}) (the name of a distribution or of a class)"
BY_INSTANCE = "Give an instance instead of the name"

_TO_CONVERTER: dict[str, Any] = {"reserved": CONVERTER_KEYWORDS, "options_to": "Converter"}


@dataclass(frozen=True)
class HookKind:
    """The description of one hook.

    Attributes:
        hook: Name of the hook.
        base: The base class of the classes that it returns.
        noun: The word for such a class in messages.
        plural: The plural of that word.
        argument: The keyword with which a user names one.
        summary: The first line of the hook's documentation.
        settled_by: How a user settles a conflict, for messages; ``{first}`` is a distribution.
        checks: Further checks of a class, besides its name, the defaults of its options and the methods of its base;
            each raises a `PluginError`.
        otherwise: What a user may give besides a name or an instance, for messages.
        reserved: Names that an option must not have, because the function that takes the options keeps them.
        options_to: That function, for messages.
        named_freely: Users may write more than names: a class parses what they write (``"99.9%"``).
    """

    hook: str
    base: type
    noun: str
    plural: str
    argument: str
    summary: str
    settled_by: str = BY_INSTANCE
    checks: tuple[Callable[[type], None], ...] = (require_defaults,)
    otherwise: str = ""
    named_freely: bool = False
    reserved: tuple[str, ...] = ()
    options_to: str = ""

    def check(self, cls: Any) -> type:
        """Check that `cls` keeps the contract of the hook, and return it.

        Raises:
            PluginError: It breaks the contract.
        """
        if not isinstance(cls, type) or not issubclass(cls, self.base):
            raise PluginError(
                f"{self.hook}() returned {shown(cls)}, which is not a subclass of sj_ann2snn.{self.base.__name__}."
            )
        name = getattr(cls, "name", None)
        if not isinstance(name, str) or not name.strip():
            raise PluginError(f"{cls.__qualname__}.name must be a non-empty string, not {shown(name)}.")
        abstract = sorted(getattr(cls, "__abstractmethods__", ()))
        if abstract:
            raise PluginError(f"{cls.__qualname__} does not implement {', '.join(abstract)}.")
        replaces: Any = getattr(cls, "replaces", ())
        if isinstance(replaces, str) or not all(isinstance(one, str) for one in replaces):
            raise PluginError(f"{cls.__qualname__}.replaces must be a tuple of names, not {shown(replaces)}.")
        for check in self.checks:
            check(cls)
        check_tunable(cls)
        require_free(cls, self.reserved, self.options_to)
        return cls


MODES = HookKind(
    "ann2snn_normalizations",
    Normalization,
    "mode",
    "modes",
    "mode",
    "Normalization strategies, usable by name as ``Converter(mode=...)``.",
    BY_PREFER,
    checks=(check_anytime,),
    named_freely=True,
    **_TO_CONVERTER,
)
LAYER_MAPPERS = HookKind(
    "ann2snn_layer_mappers",
    LayerMapper,
    "mapper",
    "mappers",
    "mappers",
    "Layer mappers: what the operations that they claim become.",
    BY_PREFER,
    checks=(require_defaults, check_exports, check_claims),
    **_TO_CONVERTER,
)
NEURONS = HookKind(
    "ann2snn_neurons",
    NeuronMaker,
    "neuron",
    "neurons",
    "neuron",
    "Neuron makers, usable by name as ``Converter(neuron=...)``.",
    BY_PREFER,
    checks=(require_defaults, check_exports),
    **_TO_CONVERTER,
)
CORRECTIONS = HookKind(
    "ann2snn_corrections",
    Correction,
    "correction",
    "corrections",
    "corrections",
    "Corrections, usable by name as ``Converter(corrections=...)``.",
    **_TO_CONVERTER,
)
EXIT_RULES = HookKind(
    "ann2snn_exit_rules",
    ExitRule,
    "exit rule",
    "exit rules",
    "early_exit",
    "Exit rules, usable by name as ``evaluate(early_exit=...)``.",
    otherwise="the margin at which a sample is settled (a number)",
)
READOUTS = HookKind(
    "ann2snn_readouts",
    Readout,
    "readout",
    "readouts",
    "readout",
    "Readouts, usable by name as ``simulate(readout=...)`` and ``evaluate(readout=...)``.",
)
EXPORTERS = HookKind(
    "ann2snn_exporters",
    Exporter,
    "format",
    "formats",
    "format",
    "Formats, usable by name as ``export(format=...)`` and ``load_network(format=...)``.",
    checks=(require_defaults, check_suffixes),
    reserved=("snn", "path", "format", "plugins"),
    options_to="export",
)

KINDS = {kind.hook: kind for kind in (MODES, LAYER_MAPPERS, NEURONS, CORRECTIONS, EXIT_RULES, READOUTS, EXPORTERS)}
"""Every hook, by its name."""
