"""sj-ann2snn: trained ANNs become spiking networks of SpikingJelly neurons.

>>> from sj_ann2snn import Converter, simulate, evaluate
"""

from typing import TYPE_CHECKING

from .compat import make_if_neuron
from .converter import Converter
from .corrections import Correction
from .description import NetworkDescription, NodeDescription, NodeReference, OperationDescription
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
from .evaluation import EvaluationResult, LayerActivity, evaluate
from .exits import ExitRule
from .exporters import Exporter
from .exporting import export, load_network
from .hookspecs import API_VERSION, hookimpl
from .inference import simulate
from .layers import ChannelAffine, CumulativeMaxPool, InitialPotential, InPlaceNeuron, MomentumMaxPool, Scaler, Stepwise
from .mapping import LayerMapper
from .neurons import NeuronMaker, NeuronSite
from .normalization import CalibrationSite, Normalization, Observer, channels_last_2d, fill_dead_channels
from .quantiles import QuantileSketch
from .readouts import Readout
from .recipes import ConverterRecipe, recipe
from .replacements import (
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
from .report import ConversionCheck, ConversionReport, ReportEntry
from .site import Site, Value, Varies
from .trial import Activations, Trial, TrialSite

__version__ = "0.1.0"

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
        from .legacy import instead_of_attribute

        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{instead_of_attribute(name)}", name=name)
