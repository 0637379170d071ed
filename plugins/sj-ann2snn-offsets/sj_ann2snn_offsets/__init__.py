"""Two published methods against uneven spikes for sj-ann2snn: biases per step (FTBC) and offset spikes (COS).

>>> import torch
>>> from sj_ann2snn import Converter
>>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
>>> x = torch.rand(64, 4)
>>> snn = Converter([x], mode="99.9%", T=8, corrections="ftbc", progress=False)(ann)
>>> snn = Converter([x], mode="99.9%", neuron="cos", probe_steps=4, progress=False)(ann)
"""

from sj_ann2snn import Correction, NeuronMaker, hookimpl

from .cos import OffsetSpikes, OffsetSpikesNeuron
from .ftbc import ForwardTemporalBias

__all__ = ["ForwardTemporalBias", "OffsetSpikes", "OffsetSpikesNeuron"]

ANN2SNN_API = 1


@hookimpl
def ann2snn_neurons() -> list[type[NeuronMaker]]:
    return [OffsetSpikes]


@hookimpl
def ann2snn_corrections() -> list[type[Correction]]:
    return [ForwardTemporalBias]
