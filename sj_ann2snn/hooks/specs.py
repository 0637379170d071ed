"""The hooks that a plugin may implement.

>>> from sj_ann2snn import hookimpl
>>> @hookimpl
... def ann2snn_normalizations():
...     return [MyMode]

A plugin is a module (or any object) with such functions, named by an entry point of the group
``sj_ann2snn``. Every hook returns a list of classes.
"""

from __future__ import annotations

import pluggy

from ..contracts.correction import Correction
from ..contracts.exit_rule import ExitRule
from ..contracts.exporter import Exporter
from ..contracts.layer_mapper import LayerMapper
from ..contracts.neuron_maker import NeuronMaker
from ..contracts.normalization import Normalization
from ..contracts.readout import Readout

__all__ = ["API_VERSION", "PROJECT", "HookSpecs", "hookimpl"]

PROJECT = "sj_ann2snn"
"""Name of the pluggy project and of the entry-point group."""

API_VERSION = 1
"""A plugin may say which version it was written for: ``ANN2SNN_API = 1``. A newer one is refused."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class HookSpecs:
    """Specifications of all hooks."""

    @hookspec
    def ann2snn_normalizations(self) -> list[type[Normalization]]:
        """Normalization strategies, usable by name as ``Converter(mode=...)``."""
        raise NotImplementedError  # a specification is never called

    @hookspec
    def ann2snn_layer_mappers(self) -> list[type[LayerMapper]]:
        """Layer mappers: what becomes of the operations they claim."""
        raise NotImplementedError

    @hookspec
    def ann2snn_neurons(self) -> list[type[NeuronMaker]]:
        """Neuron makers, usable by name as ``Converter(neuron=...)``."""
        raise NotImplementedError

    @hookspec
    def ann2snn_corrections(self) -> list[type[Correction]]:
        """Corrections, usable by name as ``Converter(corrections=...)``."""
        raise NotImplementedError

    @hookspec
    def ann2snn_exit_rules(self) -> list[type[ExitRule]]:
        """Exit rules, usable by name as ``evaluate(early_exit=...)``."""
        raise NotImplementedError

    @hookspec
    def ann2snn_readouts(self) -> list[type[Readout]]:
        """Readouts, usable by name as ``simulate(readout=...)`` and ``evaluate(readout=...)``."""
        raise NotImplementedError

    @hookspec
    def ann2snn_exporters(self) -> list[type[Exporter]]:
        """Formats, usable by name as ``export(format=...)`` and ``load_network(format=...)``."""
        raise NotImplementedError
