"""The strategy: balances thresholds layer by layer, each on what the layers before it pass on."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sj_ann2snn import (
    CalibrationSite,
    Normalization,
    Observer,
    QuantileSketch,
    along_axis,
    channels_first_2d,
    fill_dead_channels,
    require_integer,
)

from .bound import Bound

__all__ = ["LocalThresholdBalancing", "ThresholdObserver"]

SETTLED = 1e-3
"""Relative change below which a threshold counts as settled."""


class ThresholdObserver(Observer):
    """Counts the activations of a pass; in later passes, passes on what a neuron with its threshold would emit."""

    exact_merge = True

    def __init__(self, site: CalibrationSite, steps: int, passes: int) -> None:
        super().__init__(site)
        self.steps, self.passes = steps, passes
        self.threshold: Tensor | None = None
        """The threshold after the passes so far; None in the first pass."""
        self._ended = 0
        self._counted = self._fresh()

    def observe(self, x: Tensor) -> Tensor | None:
        axis = self.site.channel_axis
        self._counted.update(x.reshape(1, -1) if axis is None else channels_first_2d(x, axis))
        return None if self.threshold is None else self._emit(x, self.threshold)

    def merge(self, other: Self) -> None:
        self._counted.merge(other._counted)

    def end_pass(self) -> bool:
        before, self.threshold = self.threshold, self._balance()
        self._counted = self._fresh()
        self._ended += 1
        if self._ended >= self.passes:
            return False
        return before is None or bool(((self.threshold - before).abs() > SETTLED * before).any())

    def scale(self) -> Tensor:
        """λ from the current pass, if it has shown any data, otherwise from the last pass."""
        if self.threshold is None or bool(self._counted.totals.any()):
            return self._balance()
        return self.threshold

    def _balance(self) -> Tensor:
        whole = self._minimiser(self._counted.collapsed())[0]
        return whole if self.site.channel_axis is None else fill_dead_channels(self._minimiser(self._counted), whole)

    def _minimiser(self, counted: QuantileSketch) -> Tensor:
        return Bound(*counted.histogram(), self.steps).minimiser()

    def _emit(self, x: Tensor, threshold: Tensor) -> Tensor:
        """`x`, clipped to the threshold and rounded to multiples of threshold / T."""
        if self.site.channel_axis is not None:
            threshold = along_axis(threshold, x.dim(), self.site.channel_axis)
        height = (threshold / self.steps).to(x).clamp(min=torch.finfo(x.dtype).tiny)
        return (x / height).round_().clamp_(0, self.steps).mul_(height)

    def _fresh(self) -> QuantileSketch:
        rows = self.site.channels or 1
        return QuantileSketch(rows, bits=7 if self.site.channels else 12, octaves=16 if self.site.channels else 24)


class LocalThresholdBalancing(Normalization):
    """λ by local threshold balancing: each channel's threshold minimises a bound on its conversion error.

    >>> LocalThresholdBalancing.parse("LTB", T=16).T
    16
    >>> dict(LocalThresholdBalancing.suggests)
    {'channel_wise': True, 'initial_potential': 0.5}

    An update that uses only the channel itself raises its threshold by the activations that are still clipped, until
    the cost of clipping and the cost of rounding to T steps are in balance (`Bound`). From the second pass on, every
    layer passes on what its neurons would emit in T steps, clipped and rounded, so later layers are balanced on that.
    Passes continue until no threshold moves by more than a thousandth.

    The statistics cover whole passes, so batch size and order do not matter. Values counted in buckets
    (`QuantileSketch`) are known to 2^-13 per layer, 2^-8 per channel.

    Args:
        T: Number of time steps for which the network will run.
        passes: Maximum number of passes over the calibration data.

    Raises:
        OptionError: `T` or `passes` is not an integer of at least 1, or `passes` is above 100.

    Source: Bu, Li & Yu 2025, "Inference-scale complexity in ANN-SNN conversion for high-performance and low-power
    applications" (local threshold balancing). There, the update has a learning rate, follows every batch and counts
    only the cost of clipping, so it moves towards the maximum and must be stopped before that. Here, the cost of
    rounding, which is also part of the paper's error, makes it converge.
    """

    name = "ltb"
    suggests: ClassVar[dict[str, Any]] = {"channel_wise": True, "initial_potential": 0.5}

    def __init__(self, *, T: int = 16, passes: int = 8) -> None:  # noqa: N803 - the field's name
        self.T = require_integer("T", T, what="in mode 'ltb' it")
        self.passes = require_integer("passes", passes, 1, 100, what="in mode 'ltb' it")

    def observer(self, site: CalibrationSite) -> ThresholdObserver:
        return ThresholdObserver(site, self.T, self.passes)
