"""Shapes of values per channel, and sizes of windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

__all__ = ["along", "along_axis", "along_steps", "pair", "pooled_along", "spatial_of", "windows_along"]


ENDS = ("1d", "2d", "3d")
"""Of the names of torch's pools."""


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


def along_steps(values: Tensor, steps: int) -> Tensor:
    """The first `steps` rows of ``[T, ...]``; rows of zeros, if there are fewer.

    >>> import torch
    >>> along_steps(torch.tensor([[1.0], [2.0]]), 3).flatten()
    tensor([1., 2., 0.])
    """
    missing = max(0, steps - len(values))
    return F.pad(values[:steps], (*(0, 0) * (values.dim() - 1), 0, missing))


def pair(size: Any) -> tuple[int, int]:
    """The height and width of a window, as torch's layers take them.

    >>> pair(2), pair([2, 3])
    ((2, 2), (2, 3))
    """
    height, width = along(2, size)
    return height, width


def windows_along(length: int, window: int, stride: int, padding: int = 0, dilation: int = 1) -> int:
    """How many windows of a convolution or a pool lie side by side along a dimension of space; less than one if none
    fits in.

    >>> windows_along(8, 3, stride=2), windows_along(8, 3, stride=1, padding=1), windows_along(8, 3, 1, dilation=2)
    (3, 8, 4)

    Args:
        length: Of the dimension.
        window: How many positions a window takes.
        stride: From one window to the next.
        padding: Positions added at either end.
        dilation: From one position of a window to the next.
    """
    return (length + 2 * padding - dilation * (window - 1) - 1) // stride + 1


def pooled_along(length: int, window: int, stride: int, padding: int = 0, *, ceil_mode: bool = False) -> int:
    """The same for a pool: with `ceil_mode`, a last window may reach over the end, if it begins before it.

    >>> pooled_along(7, 3, 3), pooled_along(7, 3, 3, ceil_mode=True), pooled_along(3, 1, 3, ceil_mode=True)
    (2, 3, 1)
    """
    if not ceil_mode:
        return windows_along(length, window, stride, padding)
    found = -((window - length - 2 * padding) // stride) + 1
    return found - 1 if (found - 1) * stride >= length + padding else found


def along(spatial: int, size: int | Sequence[int]) -> tuple[int, ...]:
    """A size for each dimension of space, as torch's layers take them.

    >>> along(3, 2), along(2, (3,)), along(2, (1, 2))
    ((2, 2, 2), (3, 3), (1, 2))
    """
    sizes = (size,) if isinstance(size, int) else tuple(map(int, size))
    return sizes * spatial if len(sizes) == 1 else sizes


def spatial_of(layer: Any) -> int:
    """Number of spatial dimensions of a pool, which come last: what it says, or the class of torch's that it is, called
    ``...2d``.

    >>> import torch
    >>> spatial_of(torch.nn.AvgPool2d(2)), spatial_of(type("Pool", (torch.nn.MaxPool1d,), {})(2))
    (2, 1)
    """
    if (found := getattr(layer, "spatial", None)) is not None:
        return int(found)
    return next(int(name[-2]) for name in (kind.__name__ for kind in type(layer).__mro__) if name[-2:] in ENDS)
