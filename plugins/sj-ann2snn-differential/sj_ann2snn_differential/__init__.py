"""Differential coding for sj-ann2snn.

>>> import torch
>>> from sj_ann2snn import Converter, simulate
>>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU())
>>> x = torch.rand(50, 4)
>>> snn = Converter([x], neuron="differential", progress=False)(ann)
>>> bool((simulate(snn, x, T=12) - ann(x)).abs().max() < 0.02)
True
"""

from sj_ann2snn import NeuronMaker, hookimpl

from .neuron import Differential, DifferentialNeuron

__all__ = ["Differential", "DifferentialNeuron"]

ANN2SNN_API = 1


@hookimpl
def ann2snn_neurons() -> list[type[NeuronMaker]]:
    return [Differential]
