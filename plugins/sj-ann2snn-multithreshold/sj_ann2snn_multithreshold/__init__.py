"""Multi-threshold neurons for sj-ann2snn: one graded, signed spike per step, for one or two time steps.

>>> import torch
>>> from sj_ann2snn import Converter, simulate
>>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU())
>>> x = torch.rand(50, 4)
>>> snn = Converter([x], mode="multi-threshold", T=2, progress=False)(ann)
>>> bool((simulate(snn, x, T=2) - ann(x)).abs().max() < 0.05)
True
"""

from sj_ann2snn import NeuronMaker, Normalization, hookimpl

from .mode import MultiThresholdMode
from .neuron import MultiThreshold, MultiThresholdNeuron

__all__ = ["MultiThreshold", "MultiThresholdMode", "MultiThresholdNeuron"]

ANN2SNN_API = 1


@hookimpl
def ann2snn_neurons() -> list[type[NeuronMaker]]:
    return [MultiThreshold]


@hookimpl
def ann2snn_normalizations() -> list[type[Normalization]]:
    return [MultiThresholdMode]
