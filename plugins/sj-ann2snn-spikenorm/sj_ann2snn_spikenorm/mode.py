"""The strategy: the scales from which the correction starts."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sj_ann2snn import CalibrationSite, Normalization, Observer, channels_first_2d, fill_dead_channels

from .correction import LargestCurrent

__all__ = ["LargestActivation", "SpikeNorm"]


class LargestActivation(Observer):
    """Keeps the largest activation, per channel or per layer."""

    exact_merge = True

    def __init__(self, site: CalibrationSite) -> None:
        super().__init__(site)
        self.largest = torch.zeros(site.channels or 1, dtype=torch.float32)

    def observe(self, x: Tensor) -> None:
        axis = self.site.channel_axis
        rows = x.reshape(1, -1) if axis is None else channels_first_2d(x, axis)
        if rows.shape[1]:
            self._raise(rows.amax(1))

    def merge(self, other: Self) -> None:
        self._raise(other.largest)

    def scale(self) -> Tensor:
        layer = self.largest.amax()
        return layer if self.site.channel_axis is None else fill_dead_channels(self.largest, layer)

    def _raise(self, largest: Tensor) -> None:
        self.largest = torch.maximum(self.largest.to(largest), largest.to(largest.device))


class SpikeNorm(Normalization):
    """λ from the largest current that reaches a layer as spikes, one layer after the other.

    >>> [correction.name for correction in SpikeNorm.suggests["corrections"]]
    ['spike-norm']

    By itself, the mode takes every layer's largest activation as λ. The correction `LargestCurrent`, which it suggests,
    replaces it by the largest current in the spiking network. You can pass the correction's options along with the
    mode: ``Converter(mode="spike-norm", T=256)``.

    Source: as for `LargestCurrent`.
    """

    name = "spike-norm"
    suggests: ClassVar[dict[str, Any]] = {"corrections": (LargestCurrent,)}

    def observer(self, site: CalibrationSite) -> LargestActivation:
        return LargestActivation(site)
