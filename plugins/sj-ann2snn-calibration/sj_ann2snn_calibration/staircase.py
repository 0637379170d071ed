"""Thresholds that suit a number of time steps."""

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
    require_integer,
)

__all__ = [
    "Staircase",
    "StaircaseObserver",
]

SMALLEST, CANDIDATES = 0.05, 96
"""Scales to try: from this share of the maximum up to the maximum, evenly spaced in the logarithm."""


class Staircase(Normalization):
    """λ that makes the staircase of T steps follow the activation most closely.

    >>> from sj_ann2snn import CalibrationSite
    >>> observer = Staircase(T=4).observer(CalibrationSite("relu"))
    >>> _ = observer.observe(torch.tensor([[0.25, 0.5, 0.75, 1.0, 1.0, 1.0]]))
    >>> round(observer.scale().item(), 2)
    1.0

    After T steps, an IF neuron that starts at half a threshold has emitted ``round(T a / λ)`` spikes for an activation
    a, at most T. A large λ makes the staircase coarse, a small λ clips larger activations; the mode takes the λ with
    the least mean squared error over the calibration data.

    Args:
        T: Number of time steps for which the network will run.

    Raises:
        OptionError: `T` is not an integer of at least 1.

    Source: Li et al. 2021, "A free lunch from ANN: towards efficient, accurate spiking neural networks calibration",
    section 4 (a threshold by the least error of the quantised activation).
    """

    name = "staircase"
    suggests: ClassVar[dict[str, Any]] = {"channel_wise": True, "initial_potential": 0.5}

    def __init__(self, *, T: int = 8) -> None:  # noqa: N803 - the field's name for the number of time steps
        self.T = require_integer("T", T, what="the number of time steps")

    def observer(self, site: CalibrationSite) -> StaircaseObserver:
        return StaircaseObserver(site, self.T)


class StaircaseObserver(Observer):
    """Counts the activations of a site in logarithmic buckets, per channel if there is a scale per channel."""

    exact_merge = True

    def __init__(self, site: CalibrationSite, steps: int) -> None:
        super().__init__(site)
        self.steps = steps
        self._counted = QuantileSketch(site.channels or 1, bits=7, octaves=20)

    def observe(self, x: Tensor) -> None:
        axis = self.site.channel_axis
        self._counted.update(x.reshape(1, -1) if axis is None else channels_first_2d(x, axis))

    def merge(self, other: StaircaseObserver) -> None:
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
        """The scale whose staircase has the least error on `values` that occur `counts` times."""
        height = scales.clamp(min=torch.finfo(torch.float64).tiny)[:, None] / self.steps
        staircase = (values / height).round_().clamp_(max=self.steps).mul_(height)
        return scales[(staircase.sub_(values).square_() @ counts).argmin()]
