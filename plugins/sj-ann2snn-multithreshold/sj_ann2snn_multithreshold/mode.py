"""Thresholds per channel for what a few graded spikes can represent."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from sj_ann2snn import CalibrationSite, LeastErrorObserver, Normalization

from .neuron import MultiThreshold
from .sizes import Sizes, sizes_from

__all__ = ["MultiThresholdMode", "MultiThresholdObserver"]

CANDIDATES = 64
"""Scales to try."""


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


class MultiThresholdObserver(LeastErrorObserver):
    """Finds the λ whose first spikes have the least error."""

    def __init__(self, site: CalibrationSite, sizes: Sizes) -> None:
        super().__init__(site, CANDIDATES)
        self.sizes = sizes

    def represented(self, values: Tensor, scales: Tensor) -> Tensor:
        unit = scales / self.sizes.scale
        return self.sizes.represented(values / unit, steps=1).mul_(unit)
