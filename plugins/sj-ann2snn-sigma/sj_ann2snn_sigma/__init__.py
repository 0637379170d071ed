"""Normalization mode ``"mean+Ksigma"`` for sj-ann2snn.

>>> from sj_ann2snn import Converter
>>> str(Converter(mode="mean+3sigma").normalization)
'mean+3sigma'
"""

from __future__ import annotations

from sj_ann2snn import Normalization, hookimpl

from .moments import Moments
from .sigma import MeanSigma, MeanSigmaObserver

__all__ = ["ANN2SNN_API", "MeanSigma", "MeanSigmaObserver", "Moments"]

ANN2SNN_API = 1


@hookimpl
def ann2snn_normalizations() -> list[type[Normalization]]:
    return [MeanSigma]
