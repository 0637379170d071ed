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
from .contracts.least_error import LeastErrorObserver
from .contracts.metric import Metric
from .contracts.network_description import NetworkDescription, NodeDescription, OperationDescription
from .contracts.neuron_maker import NeuronMaker, NeuronSite
from .contracts.normalization import (
    CalibrationSite,
    Normalization,
    Observer,
    channels_first_2d,
    channels_last_2d,
    fill_dead_channels,
)
from .contracts.option_checks import require_flag, require_integer, require_number, require_shape
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
from .contracts.trial import Activations, Trial, TrialLayer, TrialOutput, TrialSite
from .contracts.values import NodeReference
from .conversion.converter import Converter
from .conversion.report import ConversionCheck, ConversionReport, ReportEntry
from .distributed.settings import Distributed
from .errors import (
    Ann2SnnError,
    BackendError,
    BackendWarning,
    CalibrationError,
    CheckpointError,
    CheckpointWarning,
    ConflictError,
    ConversionError,
    CorrectionError,
    DeadLayerError,
    DistributedError,
    EvaluationInterrupted,
    ExportError,
    FormatError,
    InputError,
    IntegerError,
    LegacyArgumentWarning,
    MemoryWarning,
    ModeError,
    NonFiniteError,
    NoSpikesWarning,
    NotConvertedWarning,
    OptionError,
    OutOfMemoryError,
    PluginError,
    PluginWarning,
    QuietLayerWarning,
    ScaleError,
    TracingError,
    TuningInterrupted,
    UnsupportedError,
    VerificationError,
    VersionError,
)
from .evaluation.evaluate import evaluate
from .evaluation.export_check import ExportCheck, SpikeDifference, check_export
from .evaluation.metrics.classes import Accuracy, Agreement
from .evaluation.metrics.regions import Dice, IoU
from .evaluation.metrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score
from .evaluation.result import EvaluationResult, LayerActivity
from .hooks.specs import API_VERSION, hookimpl
from .integers.network import IntegerNetwork, IntegerRun
from .integers.purity import Obstacle
from .integers.widths import LayerWidths
from .interchange.files import export, load_network
from .interchange.functional_step import FunctionalStep, functional_step
from .interchange.integers import integer_network, saturated
from .interchange.onnx import from_onnx
from .layers import (
    ChangeLoop,
    ChannelAffine,
    CumulativeMax,
    CumulativeMaxPool,
    InitialPotential,
    InPlaceNeuron,
    IntegerIF,
    IntegerInput,
    MemoryLayer,
    MomentumMaxPool,
    NeuronLoop,
    Scaler,
    StepBias,
    Stepwise,
    SumPool,
    call_operation,
)
from .simulation.simulate import simulate
from .spikingjelly_recipe import ConverterRecipe, recipe
from .support.moves import moved_elements
from .support.replacing import replacing
from .support.shapes import along_axis
from .support.site_notes import ConversionNotes, SiteNote
from .support.trees import map_tensors, tensors

if TYPE_CHECKING:
    from .builtin.exits import Margin
    from .builtin.neurons import IFNeuron
    from .builtin.normalizations import Fraction, Max, Percentile
    from .builtin.readouts import Delayed, Exponential, Last, Mean, Potential, Recent
    from .diagnosis.diagnose import diagnose
    from .diagnosis.result import Advice, Diagnosis, LayerDiagnosis, MetricFigures
    from .evaluation.costs.costs import costs
    from .evaluation.costs.energy import EnergyPerOperation
    from .evaluation.costs.result import Costs, LayerCosts
    from .report.page import html_report
    from .tuning.result import TunedPoint, Tuning
    from .tuning.tune import tune

__all__ = [
    "API_VERSION",
    "Accuracy",
    "Activations",
    "Advice",
    "Agreement",
    "Analog",
    "Ann2SnnError",
    "Average",
    "BackendError",
    "BackendWarning",
    "CalibrationError",
    "CalibrationSite",
    "ChangeLoop",
    "ChannelAffine",
    "CheckpointError",
    "CheckpointWarning",
    "ConflictError",
    "ConversionCheck",
    "ConversionError",
    "ConversionNotes",
    "ConversionReport",
    "Converter",
    "ConverterRecipe",
    "Correction",
    "CorrectionError",
    "Costs",
    "CumulativeMax",
    "CumulativeMaxPool",
    "DeadLayerError",
    "Delayed",
    "Diagnosis",
    "Dice",
    "Distributed",
    "DistributedError",
    "EnergyPerOperation",
    "EvaluationInterrupted",
    "EvaluationResult",
    "ExitRule",
    "Exponential",
    "ExportCheck",
    "ExportError",
    "Exporter",
    "FormatError",
    "Fraction",
    "FunctionalStep",
    "IFNeuron",
    "InPlaceNeuron",
    "InitialPotential",
    "InputError",
    "IntegerError",
    "IntegerIF",
    "IntegerInput",
    "IntegerNetwork",
    "IntegerRun",
    "IoU",
    "Last",
    "LayerActivity",
    "LayerCosts",
    "LayerDiagnosis",
    "LayerMapper",
    "LayerWidths",
    "LeastErrorObserver",
    "LegacyArgumentWarning",
    "Linear",
    "Margin",
    "Max",
    "Mean",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "MemoryLayer",
    "MemoryWarning",
    "Metric",
    "MetricFigures",
    "ModeError",
    "MomentumMaxPool",
    "NetworkDescription",
    "NeuronAfterPool",
    "NeuronLoop",
    "NeuronMaker",
    "NeuronSite",
    "NoSpikesWarning",
    "NodeDescription",
    "NodeReference",
    "NonFiniteError",
    "Normalization",
    "NotConvertedWarning",
    "Observer",
    "Obstacle",
    "OperationDescription",
    "OptionError",
    "OutOfMemoryError",
    "Percentile",
    "PluginError",
    "PluginWarning",
    "Potential",
    "Product",
    "QuantileSketch",
    "QuietLayerWarning",
    "R2Score",
    "Readout",
    "Rearrange",
    "Recent",
    "Refuse",
    "Remove",
    "Replacement",
    "ReportEntry",
    "ScaleError",
    "Scaler",
    "Site",
    "SiteNote",
    "Spike",
    "SpikeDifference",
    "Stateful",
    "StepBias",
    "Stepwise",
    "Sum",
    "SumPool",
    "TracingError",
    "Trial",
    "TrialLayer",
    "TrialOutput",
    "TrialSite",
    "TunedPoint",
    "Tuning",
    "TuningInterrupted",
    "UnsupportedError",
    "Value",
    "Varies",
    "VerificationError",
    "VersionError",
    "Weighted",
    "along_axis",
    "call_operation",
    "channels_first_2d",
    "channels_last_2d",
    "check_export",
    "costs",
    "diagnose",
    "evaluate",
    "export",
    "fill_dead_channels",
    "from_onnx",
    "functional_step",
    "hookimpl",
    "html_report",
    "integer_network",
    "load_network",
    "make_if_neuron",
    "map_tensors",
    "moved_elements",
    "recipe",
    "replacing",
    "require_flag",
    "require_integer",
    "require_number",
    "require_shape",
    "saturated",
    "simulate",
    "tensors",
    "tune",
]

_LATER = {
    "Advice": "diagnosis.result",
    "Costs": "evaluation.costs.result",
    "Delayed": "builtin.readouts",
    "Diagnosis": "diagnosis.result",
    "EnergyPerOperation": "evaluation.costs.energy",
    "Exponential": "builtin.readouts",
    "Fraction": "builtin.normalizations",
    "IFNeuron": "builtin.neurons",
    "Last": "builtin.readouts",
    "LayerCosts": "evaluation.costs.result",
    "LayerDiagnosis": "diagnosis.result",
    "Margin": "builtin.exits",
    "Max": "builtin.normalizations",
    "Mean": "builtin.readouts",
    "MetricFigures": "diagnosis.result",
    "Percentile": "builtin.normalizations",
    "Potential": "builtin.readouts",
    "Recent": "builtin.readouts",
    "TunedPoint": "tuning.result",
    "Tuning": "tuning.result",
    "costs": "evaluation.costs.costs",
    "diagnose": "diagnosis.diagnose",
    "html_report": "report.page",
    "tune": "tuning.tune",
}
"""Names that are imported when they are asked for, and their modules: the built-in plugins, which import this package,
and what converting and simulating do not need."""

if not TYPE_CHECKING:  # a type checker would take every name to exist

    def __getattr__(name):
        if name in _LATER:
            from importlib import import_module

            return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
        from .conversion.legacy_arguments import instead_of_attribute

        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{instead_of_attribute(name)}", name=name)
