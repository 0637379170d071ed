"""Adaptive and global max pooling for sj-ann2snn.

>>> import torch
>>> from sj_ann2snn import Converter
>>> ann = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveMaxPool1d(2))
>>> converter = Converter([torch.rand(8, 1, 9)], progress=False)
>>> snn = converter(ann)
>>> converter.report["2"].becomes
'cumulative max'
"""

from __future__ import annotations

from sj_ann2snn import LayerMapper, hookimpl

from .layers import SpatialMax
from .mappers import AdaptiveMaxPoolMapper, SpatialMaxMapper

__all__ = ["ANN2SNN_API", "AdaptiveMaxPoolMapper", "SpatialMax", "SpatialMaxMapper"]

ANN2SNN_API = 1


@hookimpl
def ann2snn_layer_mappers() -> list[type[LayerMapper]]:
    return [AdaptiveMaxPoolMapper, SpatialMaxMapper]
