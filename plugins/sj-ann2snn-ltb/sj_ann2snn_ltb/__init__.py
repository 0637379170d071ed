"""Normalization mode ``"ltb"`` for sj-ann2snn: local threshold balancing.

>>> from sj_ann2snn import Converter
>>> Converter(mode="ltb", T=16).normalization.T
16
"""

from __future__ import annotations

from sj_ann2snn import Normalization, hookimpl

from .balancing import LocalThresholdBalancing, ThresholdObserver
from .bound import Bound

__all__ = ["ANN2SNN_API", "Bound", "LocalThresholdBalancing", "ThresholdObserver"]

ANN2SNN_API = 1


@hookimpl
def ann2snn_normalizations() -> list[type[Normalization]]:
    return [LocalThresholdBalancing]
