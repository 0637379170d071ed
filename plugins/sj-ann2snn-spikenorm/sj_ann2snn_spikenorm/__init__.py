"""SPIKE-NORM for sj-ann2snn: thresholds from the currents that arrive as spikes.

>>> import torch
>>> from sj_ann2snn import Converter
>>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
>>> snn = Converter(mode="spike-norm", T=32, dataloader=[torch.rand(64, 4)], progress=False)(ann)
"""

from __future__ import annotations

from sj_ann2snn import Correction, Normalization, hookimpl

from .correction import LargestCurrent
from .mode import SpikeNorm

__all__ = ["ANN2SNN_API", "LargestCurrent", "SpikeNorm"]

ANN2SNN_API = 1


@hookimpl
def ann2snn_normalizations() -> list[type[Normalization]]:
    return [SpikeNorm]


@hookimpl
def ann2snn_corrections() -> list[type[Correction]]:
    return [LargestCurrent]
