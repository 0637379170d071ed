"""Operations that no spiking neuron can compute, for sj-ann2snn: exact in the mean over time, without spikes.

>>> import torch
>>> from sj_ann2snn import Converter
>>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3), torch.nn.Softmax(1))
>>> converter = Converter([torch.rand(64, 4)], progress=False)
>>> snn = converter(ann)
>>> converter.report["3"].becomes
'temporal difference'
>>> str(converter.report).splitlines()[-1]
'computed on analog values, without spikes: 3'
"""

from __future__ import annotations

from sj_ann2snn import LayerMapper, hookimpl

from .layers import TemporalDifference
from .mappers import MAPPERS

__all__ = ["ANN2SNN_API", "MAPPERS", "TemporalDifference"]

ANN2SNN_API = 1


@hookimpl
def ann2snn_layer_mappers() -> list[type[LayerMapper]]:
    return list(MAPPERS)
