"""The activation that a spiking neuron replaces, in units of its threshold."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..compat import StepModule

__all__ = ["NormalizedReLU"]


class NormalizedReLU(nn.Module, StepModule):  # type: ignore[misc]  # SpikingJelly is untyped
    """``clamp(x, 0, maximum)``, in place of a neuron that will fire at that rate.

    >>> import torch
    >>> NormalizedReLU(torch.tensor(1.5))(torch.tensor([-1.0, 1.0, 2.0]))
    tensor([0.0000, 1.0000, 1.5000])

    Args:
        maximum: The activation's bound divided by λ, if it has a bound: a scalar, or ``[C, 1, 1]`` without a sample
            dimension.
        negative_slope: Slope below zero, in the same shapes.
    """

    maximum: Tensor | None
    negative_slope: Tensor | None

    def __init__(self, maximum: Tensor | None = None, negative_slope: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("maximum", maximum)
        self.register_buffer("negative_slope", negative_slope)
        self.step_mode = "s"

    def forward(self, x: Tensor) -> Tensor:
        out = x.relu() if self.maximum is None else x.relu().minimum(self.maximum)
        return out if self.negative_slope is None else out - self.negative_slope * (-x).relu()

    def export_options(self) -> dict[str, Any]:
        """The keywords that rebuild it."""
        return {"maximum": self.maximum, "negative_slope": self.negative_slope}

    def extra_repr(self) -> str:
        bounded = "" if self.maximum is None else f"maximum={self.maximum.max().item():.6g}, "
        return f"{bounded}step_mode={self.step_mode}"
