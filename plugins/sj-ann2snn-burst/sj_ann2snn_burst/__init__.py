"""Burst neurons for sj-ann2snn.

>>> import torch
>>> from sj_ann2snn import Converter, simulate
>>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
>>> x = torch.rand(50, 4)
>>> snn = Converter([x], neuron="burst", levels=64, progress=False)(ann)
>>> bool((simulate(snn, x, T=8) - ann(x)).abs().max() < 0.01)
True
"""

from sj_ann2snn import NeuronMaker, hookimpl

from .neuron import Burst, BurstNeuron

__all__ = ["Burst", "BurstNeuron"]

ANN2SNN_API = 1


@hookimpl
def ann2snn_neurons() -> list[type[NeuronMaker]]:
    return [Burst]
