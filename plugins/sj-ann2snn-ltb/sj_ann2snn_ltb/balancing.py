"""The strategy: thresholds that are balanced layer by layer, each against what the ones before it pass on."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sj_ann2snn import (
    CalibrationSite,
    Normalization,
    Observer,
    OptionError,
    QuantileSketch,
    channels_last_2d,
    fill_dead_channels,
)

from .bound import Bound

__all__ = ["LocalThresholdBalancing", "ThresholdObserver"]

SETTLED = 1e-3
"""Share of itself by which a threshold may still move."""


class ThresholdObserver(Observer):
    """Counts the activations of a pass, and in later passes lets through what a neuron of its threshold would emit."""

    def __init__(self, site: CalibrationSite, steps: int, passes: int) -> None:
        super().__init__(site)
        self.steps, self.passes = steps, passes
        self.threshold: Tensor | None = None
        """What the passes so far have led to; None in the first one."""
        self._ended = 0
        self._counted = self._fresh()

    def observe(self, x: Tensor) -> Tensor | None:
        axis = self.site.channel_axis
        self._counted.update(x.reshape(1, -1) if axis is None else channels_last_2d(x, axis))
        return None if self.threshold is None else self._emitted(x, self.threshold)

    def merge(self, other: Self) -> None:
        self._counted.merge(other._counted)

    def end_pass(self) -> bool:
        before, self.threshold = self.threshold, self._balanced()
        self._counted = self._fresh()
        self._ended += 1
        if self._ended >= self.passes:
            return False
        return before is None or bool(((self.threshold - before).abs() > SETTLED * before).any())

    def scale(self) -> Tensor:
        """λ by the pass that is under way, if it has shown anything, else by the last one."""
        if self.threshold is None or bool(self._counted.totals.any()):
            return self._balanced()
        return self.threshold

    def _balanced(self) -> Tensor:
        whole = self._minimiser(self._counted.collapsed())[0]
        return whole if self.site.channel_axis is None else fill_dead_channels(self._minimiser(self._counted), whole)

    def _minimiser(self, counted: QuantileSketch) -> Tensor:
        return Bound(*counted.histogram(), self.steps).minimiser()

    def _emitted(self, x: Tensor, threshold: Tensor) -> Tensor:
        """`x` clipped to the threshold and rounded to multiples of a T-th of it, up to T of them."""
        if self.site.channel_axis is not None:
            threshold = threshold.view(-1, *(1,) * (x.dim() - self.site.channel_axis - 1))
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

    An update that looks at the channel alone raises its threshold by the activations that are still clipped, until
    what clipping costs and what rounding to T steps costs are in balance (`Bound`). From the second pass on every layer
    passes on what its neurons would emit in T steps, clipped and rounded, so that the next ones are balanced
    against it; passes go on until no threshold moves by more than a thousandth.

    The statistics cover whole passes: neither batch size nor order counts, except that what is counted in buckets
    (`QuantileSketch`) is known to 2^-13 per layer, 2^-8 per channel.

    Args:
        T: Number of time steps that the network is to run for.
        passes: Passes over the calibration data at the most.

    Raises:
        OptionError: `T` or `passes` is no integer from 1 up, or `passes` is above 100.

    Source: Bu, Li & Yu 2025, "Inference-scale complexity in ANN-SNN conversion for high-performance and low-power
    applications" (local threshold balancing). There the update has a learning rate, follows every batch, charges for
    clipping alone and so heads for the maximum, which it is stopped short of; here the cost of rounding, which
    the paper's error also holds, gives it an end of its own.
    """

    name = "ltb"
    suggests: ClassVar[dict[str, Any]] = {"channel_wise": True, "initial_potential": 0.5}

    def __init__(self, *, T: int = 16, passes: int = 8) -> None:  # noqa: N803 - the field's name
        for name, value, most in (("T", T, None), ("passes", passes, 100)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (most and value > most):
                allowed = f"from 1 to {most}" if most else "from 1 up"
                raise OptionError(f"{name}={value!r} is not allowed for mode 'ltb': it is an integer {allowed}.")
        self.T, self.passes = T, passes

    def observer(self, site: CalibrationSite) -> ThresholdObserver:
        return ThresholdObserver(site, self.T, self.passes)
