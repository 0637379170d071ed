"""Signed neurons for sj-ann2snn.

>>> import torch
>>> from sj_ann2snn import Converter, simulate
>>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU())
>>> x = torch.rand(50, 4)
>>> snn = Converter([x], neuron="signed", progress=False)(ann)
>>> bool((simulate(snn, x, T=64) - ann(x)).abs().max() < 0.1)
True
"""

from sj_ann2snn import NeuronMaker, hookimpl

from .neuron import Signed, SignedNeuron

__all__ = ["Signed", "SignedNeuron"]

ANN2SNN_API = 1


@hookimpl
def ann2snn_neurons() -> list[type[NeuronMaker]]:
    return [Signed]
