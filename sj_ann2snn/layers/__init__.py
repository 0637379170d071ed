"""The modules of a converted network that SpikingJelly does not have itself."""

from .activation import NormalizedReLU
from .affine import ChannelAffine, Scaler
from .maxpool import CumulativeMaxPool, MomentumMaxPool
from .neuron import InPlaceNeuron
from .potential import InitialPotential
from .stepwise import Stepwise, to_step_module

__all__ = [
    "ChannelAffine",
    "CumulativeMaxPool",
    "InPlaceNeuron",
    "InitialPotential",
    "MomentumMaxPool",
    "NormalizedReLU",
    "Scaler",
    "Stepwise",
    "to_step_module",
]
