"""λ with the least squared error of what a neuron can represent of the activations."""

from __future__ import annotations

import abc
from typing import Any

import torch
from torch import Tensor

from .normalization import CalibrationSite, Observer, channels_first_2d, fill_dead_channels
from .quantiles import QuantileSketch

__all__ = ["LeastErrorObserver"]

SMALLEST = 0.05
"""Scales to try: from this share of the maximum up to the maximum, evenly spaced in the logarithm."""


class LeastErrorObserver(Observer):
    """Finds the λ with which neurons represent the activations of a site most closely, per channel if there is one λ
    for each.

    >>> class InHalves(LeastErrorObserver):
    ...     def represented(self, values, scales):
    ...         return (2 * values / scales).round().clamp(max=2) * scales / 2
    >>> observer = InHalves(CalibrationSite("relu"))
    >>> _ = observer.observe(torch.tensor([[0.5, 0.5, 1.0, 1.0, 1.0, 1.02]]))
    >>> round(observer.scale().item(), 1)
    1.0

    A large λ makes what can be represented coarse, a small λ clips larger activations; the observer takes the λ with
    the least mean squared error over the calibration data. It counts the activations in logarithmic buckets, in
    constant memory and in one pass.

    Args:
        site: The site.
        candidates: Number of scales to try, from 5 % of the largest activation up to the largest one.

    Source: Li et al. 2021, "A free lunch from ANN: towards efficient, accurate spiking neural networks calibration",
    section 4 (a threshold by the least error of the quantised activation).
    """

    exact_merge = True

    def __init__(self, site: CalibrationSite, candidates: int = 96) -> None:
        super().__init__(site)
        self._candidates = candidates
        self._counted = QuantileSketch(site.channels or 1, bits=7, octaves=20)

    @abc.abstractmethod
    def represented(self, values: Tensor, scales: Tensor) -> Tensor:
        """What neurons represent of activations, for every λ: ``[scales, values]``.

        Args:
            values: Activations ``[values]``, in the ANN's units.
            scales: λ, positive, ``[scales, 1]``.
        """

    def observe(self, x: Tensor) -> None:
        axis = self.site.channel_axis
        self._counted.update(x.reshape(1, -1) if axis is None else channels_first_2d(x, axis))

    def merge(self, other: Any) -> None:
        self._counted.merge(other._counted)

    def scale(self) -> Tensor:
        if self.site.channel_axis is None:
            return self._best(self._counted).reshape(())
        return fill_dead_channels(self._best(self._counted), self._best(self._counted.collapsed()))

    def _best(self, counted: QuantileSketch) -> Tensor:
        values, counts = counted.histogram()
        shares = torch.logspace(0, 1, self._candidates, base=1 / SMALLEST, dtype=torch.float64)
        shares = shares.to(values.device) * SMALLEST
        return torch.stack(
            [
                self._least_error(values, of_row, maximum * shares)
                for of_row, maximum in zip(counts.double(), counted.maxima.double(), strict=True)
            ]
        )

    def _least_error(self, values: Tensor, counts: Tensor, scales: Tensor) -> Tensor:
        """The scale with the least error on `values` that occur `counts` times."""
        positive = scales.clamp(min=torch.finfo(torch.float64).tiny)[:, None]
        return scales[((self.represented(values, positive) - values).square() @ counts).argmin()]
