"""The modules of converted networks that SpikingJelly lacks."""

from .activation import NormalizedReLU
from .affine import ChannelAffine, Scaler
from .integer import IntegerIF, IntegerInput, SumPool
from .maxpool import CumulativeMax, CumulativeMaxPool, MomentumMaxPool
from .memory import MemoryLayer
from .neuron import ChangeLoop, InPlaceNeuron, NeuronLoop
from .potential import InitialPotential
from .step_bias import StepBias
from .stepwise import Stepwise, call_operation, to_step_module

__all__ = [
    "ChangeLoop",
    "ChannelAffine",
    "CumulativeMax",
    "CumulativeMaxPool",
    "InPlaceNeuron",
    "InitialPotential",
    "IntegerIF",
    "IntegerInput",
    "MemoryLayer",
    "MomentumMaxPool",
    "NeuronLoop",
    "NormalizedReLU",
    "Scaler",
    "StepBias",
    "Stepwise",
    "SumPool",
    "call_operation",
    "to_step_module",
]
