"""Shapes of values per channel, and sizes of windows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["along_axis", "pair"]


def along_axis(values: Tensor, ndim: int, axis: int = 0) -> Tensor:
    """Reshape a vector to broadcast along one axis of a tensor; a scalar stays a scalar.

    >>> import torch
    >>> along_axis(torch.ones(3), ndim=4, axis=1).shape
    torch.Size([1, 3, 1, 1])
    >>> along_axis(torch.tensor(2.0), ndim=4).shape
    torch.Size([])

    Args:
        values: ``[C]``, or a scalar.
        ndim: Number of dimensions of the tensor.
        axis: The dimension with C entries; negative values count from the end.
    """
    if not values.dim():
        return values
    axis %= ndim
    return values.reshape(*(1,) * axis, -1, *(1,) * (ndim - axis - 1))


def pair(size: Any) -> tuple[int, int]:
    """The height and width of a window, as torch's layers take them.

    >>> pair(2), pair([2, 3])
    ((2, 2), (2, 3))
    """
    return (size, size) if isinstance(size, int) else tuple(size)
