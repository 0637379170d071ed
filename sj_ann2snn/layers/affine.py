"""Scaling by fixed factors, for scales that cannot be folded into weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..compat import StepModule
from ..support.shapes import along_axis

__all__ = ["ChannelAffine", "Scaler"]


class Scaler(nn.Module, StepModule):  # type: ignore[misc]  # SpikingJelly is untyped
    """Multiplies by a fixed scale, which converts units of one λ into units of another.

    >>> import torch
    >>> Scaler(torch.tensor(2.0))(torch.ones(1, 3))
    tensor([[2., 2., 2.]])

    Args:
        scale: A scalar, or ``[C, 1, 1]`` for images. Without a sample dimension, it broadcasts over both ``[N, ...]``
            and ``[T, N, ...]``.
    """

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().clone())
        self.step_mode = "s"

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale

    def export_options(self) -> dict[str, Any]:
        """The keywords that rebuild it."""
        return {"scale": self.scale}

    def extra_repr(self) -> str:
        text = f"{self.scale.item():.6g}" if self.scale.numel() == 1 else f"shape={tuple(self.scale.shape)}"
        return f"{text}, step_mode={self.step_mode}"


class ChannelAffine(nn.Module, StepModule):  # type: ignore[misc]  # SpikingJelly is untyped
    """Per-channel ``weight * x + bias``: a BatchNorm at inference with no layer before it to absorb it.

    >>> import torch
    >>> ChannelAffine(torch.tensor([2.0]), torch.tensor([1.0]), ndim=4)(torch.ones(1, 1, 1, 1)).item()
    3.0

    Args:
        weight: ``[C]``.
        bias: ``[C]``.
        ndim: Number of input dimensions, including sample and channel but not time.
        axis: The dimension of ``[N, ...]`` that holds the channels.
    """

    def __init__(self, weight: Tensor, bias: Tensor, ndim: int, axis: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(along_axis(weight.detach(), ndim - 1, axis - 1).clone())
        self.bias = nn.Parameter(along_axis(bias.detach(), ndim - 1, axis - 1).clone())
        self.axis = axis
        self.step_mode = "s"

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, x, self.weight)

    def export_options(self) -> dict[str, Any]:
        """The keywords that rebuild it."""
        options = {"weight": self.weight.flatten(), "bias": self.bias.flatten(), "ndim": self.weight.dim() + 1}
        return options if self.axis == 1 else {**options, "axis": self.axis}

    def extra_repr(self) -> str:
        axis = "" if self.axis == 1 else f"axis={self.axis}, "
        return f"{self.weight.numel()}, {axis}step_mode={self.step_mode}"
