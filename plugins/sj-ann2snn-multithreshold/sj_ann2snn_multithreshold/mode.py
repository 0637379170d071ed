"""Thresholds per channel for what a few graded spikes can represent."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from sj_ann2snn import (
    CalibrationSite,
    Normalization,
    Observer,
    QuantileSketch,
    channels_first_2d,
    fill_dead_channels,
)

from .neuron import MultiThreshold
from .sizes import Sizes, sizes_from

__all__ = ["MultiThresholdMode", "MultiThresholdObserver"]

SMALLEST, CANDIDATES = 0.05, 64
"""Scales to try: from this share of the maximum up to the maximum, evenly spaced in the logarithm."""


class MultiThresholdMode(Normalization):
    """λ with which the first spikes of multi-threshold neurons represent the activations most closely.

    >>> import torch
    >>> from sj_ann2snn import CalibrationSite
    >>> observer = MultiThresholdMode(T=1, levels=4, rest=False).observer(CalibrationSite("relu"))
    >>> _ = observer.observe(torch.tensor([[0.25, 0.5, 0.75, 1.0, 1.0, 1.0]]))
    >>> round(observer.scale().item(), 2)
    1.0

    A large λ makes the sizes coarse, a small λ clips larger activations. The mode takes the λ with the least mean
    squared error over the calibration data, per channel (the criterion of Lloyd 1982 and Max 1960, for sizes in fixed
    proportions). It counts the first spike only: later ones must be able to correct what arrives too late, and with
    sizes for the activations alone there would be no room for that.

    Args:
        T: Number of time steps for which the network will run.
        levels: Number of sizes of a spike.
        finer: As for the neuron; the mode takes no notice of it.
        rest: As for the neuron.

    Raises:
        OptionError: An option is out of range.

    Source: for thresholds by the least error of the quantised activation, Li et al. 2021, "A free lunch from ANN:
    towards efficient, accurate spiking neural networks calibration", section 4.
    """

    name = "multi-threshold"
    suggests: ClassVar[dict[str, Any]] = {"channel_wise": True, "neuron": MultiThreshold}

    def __init__(
        self,
        *,
        T: int = 2,  # noqa: N803 - the field's name for the number of time steps
        levels: int = 8,
        finer: int = 4,
        rest: bool = True,
    ) -> None:
        self.sizes = sizes_from(T=T, levels=levels, finer=finer, rest=rest)
        self.T, self.levels, self.finer, self.rest = T, levels, finer, rest

    def observer(self, site: CalibrationSite) -> MultiThresholdObserver:
        return MultiThresholdObserver(site, self.sizes)


class MultiThresholdObserver(Observer):
    """Counts the activations of a site in logarithmic buckets, per channel if there is a scale per channel."""

    exact_merge = True

    def __init__(self, site: CalibrationSite, sizes: Sizes) -> None:
        super().__init__(site)
        self.sizes = sizes
        self._counted = QuantileSketch(site.channels or 1, bits=7, octaves=20)

    def observe(self, x: Tensor) -> None:
        axis = self.site.channel_axis
        self._counted.update(x.reshape(1, -1) if axis is None else channels_first_2d(x, axis))

    def merge(self, other: MultiThresholdObserver) -> None:
        self._counted.merge(other._counted)

    def scale(self) -> Tensor:
        if self.site.channel_axis is None:
            return self._best(self._counted).reshape(())
        return fill_dead_channels(self._best(self._counted), self._best(self._counted.collapsed()))

    def _best(self, counted: QuantileSketch) -> Tensor:
        values, counts = counted.histogram()
        shares = torch.logspace(0, 1, CANDIDATES, base=1 / SMALLEST, dtype=torch.float64).to(values.device) * SMALLEST
        return torch.stack(
            [
                self._least_error(values, of_row, maximum * shares)
                for of_row, maximum in zip(counts.double(), counted.maxima.double(), strict=True)
            ]
        )

    def _least_error(self, values: Tensor, counts: Tensor, scales: Tensor) -> Tensor:
        """The scale with which the first spikes have the least error on `values` that occur `counts` times."""
        unit = scales.clamp(min=torch.finfo(torch.float64).tiny)[:, None] / self.sizes.scale
        represented = self.sizes.represented(values / unit, steps=1).mul_(unit)
        return scales[(represented.sub_(values).square_() @ counts).argmin()]
