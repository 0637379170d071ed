"""Calibrated conversion for sj-ann2snn: high accuracy in few time steps, without retraining.

>>> import torch
>>> from sj_ann2snn import Converter
>>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
>>> snn = Converter(mode="low-latency", T=8, dataloader=[torch.rand(64, 4)], progress=False)(ann)
"""

from sj_ann2snn import Correction, Normalization, hookimpl

from .joint import Joint
from .layer_by_layer import LayerByLayer
from .low_latency import LowLatency
from .snn_calibration import SnnCalibration
from .staircase import Staircase

__all__ = ["Joint", "LayerByLayer", "LowLatency", "SnnCalibration", "Staircase"]

ANN2SNN_API = 1


@hookimpl
def ann2snn_normalizations() -> list[type[Normalization]]:
    return [Staircase, LowLatency]


@hookimpl
def ann2snn_corrections() -> list[type[Correction]]:
    return [Joint, LayerByLayer, SnnCalibration]
