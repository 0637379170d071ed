"""The modules that stand in the spiking network."""

from __future__ import annotations

from typing import Any

import torch
from spikingjelly.activation_based.base import MemoryModule
from torch import Tensor, nn

__all__ = ["CumulativeMax", "SpatialMax"]


class SpatialMax(nn.Module):
    """The maximum over some dimensions, as a module.

    >>> import torch
    >>> SpatialMax((2, 3))(torch.arange(8.0).view(1, 2, 2, 2))
    tensor([[3., 7.]])

    Args:
        dim: Dimensions of ``[N, C, ...]`` over which the maximum is taken.
        keepdim: Keep them with size one.
    """

    def __init__(self, dim: tuple[int, ...], keepdim: bool = False) -> None:
        super().__init__()
        self.dim = dim
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(self.dim, keepdim=self.keepdim)

    def export_options(self) -> dict[str, Any]:
        """What makes it anew."""
        return {"dim": self.dim, "keepdim": self.keepdim}

    def extra_repr(self) -> str:
        return f"dim={self.dim}, keepdim={self.keepdim}"


class CumulativeMax(MemoryModule):  # type: ignore[misc]  # SpikingJelly is untyped
    """Emits the growth of the maximum of the cumulative input: ``max C(t) - max C(t-1)``.

    >>> import torch
    >>> pool = CumulativeMax(torch.nn.AdaptiveMaxPool1d(1))
    >>> pool(torch.tensor([[[1.0, 0.0, 0.0]]])), pool(torch.tensor([[[0.0, 1.0, 0.0]]]))
    (tensor([[[1.]]]), tensor([[[0.]]]))

    Its outputs up to any step add up to `maximum` of the summed inputs, so their mean is `maximum` of the
    mean input.

    Args:
        maximum: A module that takes maxima over parts of ``[N, C, ...]``.

    Source: the same construction as `sj_ann2snn.CumulativeMaxPool`, for windows of any kind.
    """

    cumulative: Tensor | float
    emitted: Tensor | float

    def __init__(self, maximum: nn.Module) -> None:
        super().__init__()
        self.maximum = maximum
        self.register_memory("cumulative", 0.0)
        self.register_memory("emitted", 0.0)

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.cumulative = self.cumulative + x
        largest: Tensor = self.maximum(self.cumulative)
        out: Tensor = largest - self.emitted
        self.emitted = largest
        return out

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # The state goes into the first step rather than on top of the sums: the same rounding as step by step.
        cumulative = torch.cat([(self.cumulative + x_seq[0])[None], x_seq[1:]]).cumsum(0)
        largest = self.maximum(cumulative.flatten(0, 1)).unflatten(0, x_seq.shape[:2])
        before = torch.cat([torch.zeros_like(largest[:1]) + self.emitted, largest[:-1]])
        self.cumulative, self.emitted = cumulative[-1], largest[-1]
        out: Tensor = largest - before
        return out

    def export_options(self) -> dict[str, Any]:
        """What makes it anew."""
        return {"maximum": self.maximum}
