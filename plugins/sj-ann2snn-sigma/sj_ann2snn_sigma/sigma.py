"""The strategy: λ is the mean plus K standard deviations."""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar, Self

from torch import Tensor

from sj_ann2snn import (
    CalibrationSite,
    ModeError,
    Normalization,
    Observer,
    channels_first_2d,
    fill_dead_channels,
    require_flag,
)

from .moments import Moments

__all__ = ["MeanSigma", "MeanSigmaObserver"]

_MODE = re.compile(r"mean\s*\+\s*(?P<sigmas>.*?)\s*\*?\s*(sigma|σ)")
_NUMBER = re.compile(r"\d+(\.\d*)?|\.\d+")


class MeanSigmaObserver(Observer):
    """Keeps count, mean and squared deviations of the activations, per channel or per layer."""

    def __init__(self, site: CalibrationSite, sigmas: float, *, ignore_zeros: bool = False) -> None:
        super().__init__(site)
        self.sigmas = sigmas
        self.moments = Moments(site.channels or 1, ignore_zeros=ignore_zeros)

    def observe(self, x: Tensor) -> None:
        # A neuron emits nothing below zero, but a neuron behind a pool may receive negative values.
        x = x.detach().clamp(min=0)
        axis = self.site.channel_axis
        self.moments.update(x.reshape(1, -1) if axis is None else channels_first_2d(x, axis))

    def merge(self, other: Self) -> None:
        self.moments.merge(other.moments)

    def scale(self) -> Tensor:
        layer = self._upper(self.moments.collapsed())[0]
        return layer if self.site.channel_axis is None else fill_dead_channels(self._upper(self.moments), layer)

    def _upper(self, moments: Moments) -> Tensor:
        return moments.mean + self.sigmas * moments.variance().sqrt()


class MeanSigma(Normalization):
    """λ is the mean plus K standard deviations of the activations.

    >>> str(MeanSigma.parse("Mean+2.5Sigma"))
    'mean+2.5sigma'
    >>> MeanSigma.parse("max") is None
    True

    All activations count, including zeros, unless `sigma_ignore_zeros` is set. The deviation is that of the calibration
    set itself (divided by n, not n - 1). One pass, constant memory, float64; batch size, order and the split over
    merged observers change the result only by rounding. Channels that never fire get the scale of their layer.

    Args:
        sigmas: K, greater than 0.
        sigma_ignore_zeros: Use only the positive activations for mean and deviation.

    Raises:
        ModeError: K is not a number greater than 0.
        OptionError: `sigma_ignore_zeros` is not a bool.

    Source: a sigma-clipping threshold instead of the maximum; scales per channel as in Kim et al. 2020,
    "Spiking-YOLO: spiking neural network for energy-efficient object detection". We know of no paper that proposes this
    combination.
    """

    name = "mean+sigma"
    tunable: ClassVar = {"mode": ("mean+3sigma", "mean+5sigma")}
    example = "mean+3sigma"

    def __init__(self, sigmas: float = 1.0, *, sigma_ignore_zeros: bool = False) -> None:
        if not 0 < sigmas < math.inf:
            raise ModeError(
                f"mode='mean+{sigmas:g}sigma' is not allowed: the number of standard deviations must be finite and "
                "greater than 0, as in 'mean+3sigma'."
            )
        self.sigmas = float(sigmas)
        self.ignore_zeros = require_flag("sigma_ignore_zeros", sigma_ignore_zeros)

    @classmethod
    def parse(cls, mode: object, **options: Any) -> Self | None:
        found = _MODE.fullmatch(mode.strip().lower()) if isinstance(mode, str) else None
        if found is None:
            return None
        written = found["sigmas"]
        if written and not _NUMBER.fullmatch(written):
            raise ModeError(
                f"mode={mode!r} is not allowed: write a number greater than 0 between 'mean+' and 'sigma', "
                "as in 'mean+3sigma'."
            )
        return cls(float(written or 1), **options)

    def observer(self, site: CalibrationSite) -> MeanSigmaObserver:
        return MeanSigmaObserver(site, self.sigmas, ignore_zeros=self.ignore_zeros)

    def __str__(self) -> str:
        return f"mean+{self.sigmas:g}sigma"
