"""The maximum over dimensions as a module."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["SpatialMax"]


class SpatialMax(nn.Module):
    """The maximum over some dimensions, as a module.

    >>> import torch
    >>> SpatialMax((2, 3))(torch.arange(8.0).view(1, 2, 2, 2))
    tensor([[3., 7.]])

    Args:
        dim: Dimensions of ``[N, C, ...]`` over which to take the maximum.
        keepdim: Keep these dimensions with size one.
    """

    def __init__(self, dim: tuple[int, ...], keepdim: bool = False) -> None:
        super().__init__()
        self.dim = dim
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(self.dim, keepdim=self.keepdim)

    def export_options(self) -> dict[str, Any]:
        """The keywords that rebuild it."""
        return {"dim": self.dim, "keepdim": self.keepdim}

    def extra_repr(self) -> str:
        return f"dim={self.dim}, keepdim={self.keepdim}"
