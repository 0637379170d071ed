"""The tutorial's three normalizations: maximum, robust percentile, fraction of the maximum."""

from __future__ import annotations

import re
from fractions import Fraction as Rational
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sj_ann2snn import (
    CalibrationSite,
    ModeError,
    Normalization,
    Observer,
    QuantileSketch,
    channels_first_2d,
    fill_dead_channels,
    hookimpl,
    require_integer,
)

ANN2SNN_API = 1


class MaxObserver(Observer):
    """Keeps the true maximum; λ is `factor` times the maximum."""

    exact_merge = True

    def __init__(self, site: CalibrationSite, factor: float = 1.0) -> None:
        super().__init__(site)
        self.factor = factor
        self.maximum: Tensor | None = None

    def observe(self, x: Tensor) -> None:
        axis = self.site.channel_axis
        self._raise(x.detach().amax() if axis is None else channels_first_2d(x.detach(), axis).amax(1))

    def merge(self, other: Self) -> None:
        if other.maximum is not None:
            self._raise(other.maximum)

    def scale(self) -> Tensor:
        maximum = torch.zeros((), dtype=torch.float32) if self.maximum is None else self.maximum
        return self.factor * fill_dead_channels(maximum, maximum.amax())

    def _raise(self, maximum: Tensor) -> None:
        if self.maximum is None:
            self.maximum = maximum.clone()
        else:
            self.maximum = torch.maximum(self.maximum, maximum.to(self.maximum.device))


class Max(Normalization):
    """λ is the true maximum over all calibration data; rates never saturate on it.

    >>> str(Max.parse("Max"))
    'max'

    Source: Diehl et al. 2015, "Fast-classifying, high-accuracy spiking deep networks through weight and
    threshold balancing", model-based and data-based normalization.
    """

    name = "max"

    def observer(self, site: CalibrationSite) -> MaxObserver:
        return MaxObserver(site)


class Fraction(Normalization):
    """λ is a fixed fraction of the true maximum.

    >>> str(Fraction.parse(0.5))
    '0.5'
    >>> Fraction.parse("1/4").fraction
    0.25

    Args:
        fraction: In (0, 1].
    """

    name = "fraction"
    tunable: ClassVar = {"mode": (0.5, 0.75)}
    example = "0.5"

    def __init__(self, fraction: float) -> None:
        if not 0 < fraction <= 1:
            raise ModeError(_out_of_range(fraction))
        self.fraction = float(fraction)

    @classmethod
    def parse(cls, mode: object, **options: Any) -> Self | None:
        if isinstance(mode, bool):
            return None
        if isinstance(mode, (int, float)):
            return cls(mode)
        if isinstance(mode, str) and re.fullmatch(r"\s*[-+]?\d*\.?\d+\s*(/\s*\d+)?\s*", mode):
            try:
                return cls(float(Rational(mode.replace(" ", ""))))
            except (ZeroDivisionError, ModeError):
                raise ModeError(_out_of_range(mode)) from None
        return None

    def observer(self, site: CalibrationSite) -> MaxObserver:
        return MaxObserver(site, self.fraction)

    def __str__(self) -> str:
        return f"{self.fraction:g}"


class PercentileObserver(Observer):
    """Counts activations in a `QuantileSketch`."""

    exact_merge = True

    def __init__(self, site: CalibrationSite, percentile: float, bits: int) -> None:
        super().__init__(site)
        self.percentile = percentile
        self.sketch = QuantileSketch(site.channels or 1, bits=bits, octaves=16 if site.channels else 24)

    def observe(self, x: Tensor) -> None:
        axis = self.site.channel_axis
        self.sketch.update(x.detach().reshape(1, -1) if axis is None else channels_first_2d(x.detach(), axis))

    def merge(self, other: Self) -> None:
        self.sketch.merge(other.sketch)

    def scale(self) -> Tensor:
        layer = self._robust(self.sketch.collapsed())
        rows = fill_dead_channels(self._robust(self.sketch), layer)
        return rows if self.site.channel_axis is not None else rows[0]

    def _robust(self, sketch: QuantileSketch) -> Tensor:
        # If so few activations fire that the percentile is zero, use the maximum.
        quantile = sketch.quantile(self.percentile / 100)
        return torch.where(quantile > 0, quantile, sketch.maxima.double())


class Percentile(Normalization):
    """λ is the true p-percentile over all calibration data, robust against outliers.

    >>> str(Percentile.parse("99.9%"))
    '99.9%'

    All activations count, including zeros, as in `numpy.percentile`. Constant memory, one pass; the relative error is
    at most ``2**-(bits + 1)`` (see `QuantileSketch`): 0.012 % per layer, 0.4 % per channel.

    Args:
        percentile: In (0, 100].
        percentile_bits: Precision of the counters; by default 12 per layer, 7 per channel.

    Source: Rueckauer et al. 2017, "Conversion of continuous-valued deep networks to efficient event-driven
    networks for image classification", section 2.2.2, robust normalization.
    """

    name = "percentile"
    tunable: ClassVar = {"mode": ("99%", "99.9%", "99.99%")}
    example = "99.9%"

    def __init__(self, percentile: float, *, percentile_bits: int | None = None) -> None:
        if not 0 < percentile <= 100:
            raise ModeError(
                f"mode='{percentile:g}%' is not allowed: a percentage must be in (0, 100], such as '99.9%'."
            )
        self.percentile = float(percentile)
        self.bits = None if percentile_bits is None else require_integer("percentile_bits", percentile_bits, most=16)

    @classmethod
    def parse(cls, mode: object, **options: Any) -> Self | None:
        if not isinstance(mode, str) or not mode.strip().endswith("%"):
            return None
        number = mode.strip()[:-1]
        try:
            return cls(float(number), **options)
        except ValueError as error:
            if isinstance(error, ModeError):
                raise
            raise ModeError(
                f"mode={mode!r:.300} is not allowed: write a number in (0, 100] before the %, as in '99.9%'."
            ) from None

    def observer(self, site: CalibrationSite) -> PercentileObserver:
        return PercentileObserver(site, self.percentile, self.bits or (7 if site.channels else 12))

    def __str__(self) -> str:
        return f"{self.percentile:g}%"


def _out_of_range(mode: object) -> str:
    return (
        f"mode={mode!r:.300} is not allowed: a fraction of the maximum must be in (0, 1], such as 0.5. "
        "For a percentile, write a string, mode='99.9%'."
    )


@hookimpl
def ann2snn_normalizations() -> list[type[Normalization]]:
    return [Max, Fraction, Percentile]
