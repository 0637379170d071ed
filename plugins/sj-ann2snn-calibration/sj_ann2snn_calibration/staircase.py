"""Thresholds that suit a number of time steps."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from sj_ann2snn import CalibrationSite, LeastErrorObserver, Normalization, require_integer

__all__ = [
    "Staircase",
    "StaircaseObserver",
]


class Staircase(Normalization):
    """λ that makes the staircase of T steps follow the activation most closely.

    >>> import torch
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


class StaircaseObserver(LeastErrorObserver):
    """Finds the λ whose staircase has the least error."""

    def __init__(self, site: CalibrationSite, steps: int) -> None:
        super().__init__(site)
        self.steps = steps

    def represented(self, values: Tensor, scales: Tensor) -> Tensor:
        height = scales / self.steps
        return (values / height).round_().clamp_(max=self.steps).mul_(height)
