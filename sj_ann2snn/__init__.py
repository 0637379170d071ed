"""sj-ann2snn: trained ANNs become spiking networks of SpikingJelly neurons.

>>> from sj_ann2snn import Converter, simulate, evaluate
"""

from typing import TYPE_CHECKING

from ._version import __version__ as __version__
from .compat import make_if_neuron
from .contracts.correction import Correction
from .contracts.exit_rule import ExitRule
from .contracts.exporter import Exporter
from .contracts.layer_mapper import LayerMapper
from .contracts.network_description import NetworkDescription, NodeDescription, OperationDescription
from .contracts.neuron_maker import NeuronMaker, NeuronSite
from .contracts.normalization import CalibrationSite, Normalization, Observer, channels_last_2d, fill_dead_channels
from .contracts.quantiles import QuantileSketch
from .contracts.readout import Readout
from .contracts.replacements import (
    Analog,
    Average,
    Linear,
    NeuronAfterPool,
    Product,
    Rearrange,
    Refuse,
    Remove,
    Replacement,
    Spike,
    Stateful,
    Sum,
    Weighted,
)
from .contracts.site import Site, Value, Varies
from .contracts.trial import Activations, Trial, TrialSite
from .contracts.values import NodeReference
from .conversion.converter import Converter
from .conversion.report import ConversionCheck, ConversionReport, ReportEntry
from .errors import (
    Ann2SnnError,
    BackendError,
    BackendWarning,
    CalibrationError,
    ConflictError,
    ConversionError,
    CorrectionError,
    DeadLayerError,
    EvaluationInterrupted,
    ExportError,
    FormatError,
    InputError,
    LegacyArgumentWarning,
    MemoryWarning,
    ModeError,
    NonFiniteError,
    NoSpikesWarning,
    OptionError,
    OutOfMemoryError,
    PluginError,
    PluginWarning,
    ScaleError,
    TracingError,
    UnsupportedError,
    VerificationError,
    VersionError,
)
from .evaluation.evaluate import evaluate
from .evaluation.result import EvaluationResult, LayerActivity
from .hooks.specs import API_VERSION, hookimpl
from .interchange.files import export, load_network
from .layers import ChannelAffine, CumulativeMaxPool, InitialPotential, InPlaceNeuron, MomentumMaxPool, Scaler, Stepwise
from .simulation.simulate import simulate
from .spikingjelly_recipe import ConverterRecipe, recipe

__all__ = [
    "API_VERSION",
    "Activations",
    "Analog",
    "Ann2SnnError",
    "Average",
    "BackendError",
    "BackendWarning",
    "CalibrationError",
    "CalibrationSite",
    "ChannelAffine",
    "ConflictError",
    "ConversionCheck",
    "ConversionError",
    "ConversionReport",
    "Converter",
    "ConverterRecipe",
    "Correction",
    "CorrectionError",
    "CumulativeMaxPool",
    "DeadLayerError",
    "EvaluationInterrupted",
    "EvaluationResult",
    "ExitRule",
    "ExportError",
    "Exporter",
    "FormatError",
    "InPlaceNeuron",
    "InitialPotential",
    "InputError",
    "LayerActivity",
    "LayerMapper",
    "LegacyArgumentWarning",
    "Linear",
    "MemoryWarning",
    "ModeError",
    "MomentumMaxPool",
    "NetworkDescription",
    "NeuronAfterPool",
    "NeuronMaker",
    "NeuronSite",
    "NoSpikesWarning",
    "NodeDescription",
    "NodeReference",
    "NonFiniteError",
    "Normalization",
    "Observer",
    "OperationDescription",
    "OptionError",
    "OutOfMemoryError",
    "PluginError",
    "PluginWarning",
    "Product",
    "QuantileSketch",
    "Readout",
    "Rearrange",
    "Refuse",
    "Remove",
    "Replacement",
    "ReportEntry",
    "ScaleError",
    "Scaler",
    "Site",
    "Spike",
    "Stateful",
    "Stepwise",
    "Sum",
    "TracingError",
    "Trial",
    "TrialSite",
    "UnsupportedError",
    "Value",
    "Varies",
    "VerificationError",
    "VersionError",
    "Weighted",
    "channels_last_2d",
    "evaluate",
    "export",
    "fill_dead_channels",
    "hookimpl",
    "load_network",
    "make_if_neuron",
    "recipe",
    "simulate",
]

if not TYPE_CHECKING:  # a type checker would take every name to exist

    def __getattr__(name):
        from .conversion.legacy_arguments import instead_of_attribute

        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{instead_of_attribute(name)}", name=name)
