"""Pools as loops take them: sizes, and the memory of cumulative ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ....compat import layer
from ....layers import CumulativeMaxPool
from ....support.exact_sums import averaged_by_halves
from ....support.shapes import pair, windows_along
from .modules import is_watched

__all__ = ["Pooling", "averages_packed", "pooled_size", "pooling", "pools_packed"]

MOST_AVERAGED = 16
"""Largest window of an average pool whose spikes are counted in bits."""


def pools_packed(pool: nn.Module) -> bool:
    """True for a pool that `pool_packed` can stand for: of images, without gaps in its windows."""
    if type(pool) is not CumulativeMaxPool or pool.spatial != 2 or pool.ceil_mode:
        return False
    return pair(pool.dilation) == (1, 1)


def averages_packed(pool: nn.Module) -> bool:
    """True for an average pool that `average_packed` can stand for: of images, within them, of a power of two of
    spikes."""
    if type(pool) not in (nn.AvgPool2d, layer.AvgPool2d) or is_watched(pool):
        return False
    return 1 < averaged_by_halves(pool) <= MOST_AVERAGED and pair(pool.padding) == (0, 0) and not pool.ceil_mode


class Pooling(NamedTuple):
    """What the loop of a cumulative max pool needs besides spikes.

    Attributes:
        total: The spikes so far ``[N, height, columns, C]``, whole numbers: memory that may be written to.
        emitted: Those that it has passed on ``[N, out height, out columns, C]``, likewise.
        size: Height and columns of the output.
        sizes: All shapes, in the loop's order.
        apart: The windows lie within the image and have no position in common.
    """

    total: Tensor
    emitted: Tensor
    size: tuple[int, int]
    sizes: tuple[int, ...]
    apart: bool

    def leave(self, pool: Any) -> None:
        """Give the pool its memory."""
        pool.cumulative, pool.emitted = self.total, self.emitted


def pooled_size(pool: Any, places: tuple[int, ...]) -> tuple[int, int] | None:
    """Height and columns of a pool's output for an image of `places`; None if no window fits in: the module raises the
    error."""
    window, stride, padding = pair(pool.kernel_size), pair(pool.stride), pair(pool.padding)
    height, columns = (windows_along(*one) for one in zip(places, window, stride, padding, strict=True))
    return (height, columns) if min(height, columns) > 0 else None


def pooling(pool: Any, shape: tuple[int, ...], device: torch.device | None = None) -> Pooling | None:
    """What the loop of a cumulative max pool needs for spikes ``(T, N, C, height, columns)``; None if none fits in."""
    steps, samples, channels, height, columns = shape
    size = pooled_size(pool, (height, columns))
    if size is None:
        return None
    if isinstance(pool.cumulative, Tensor):
        total, emitted = pool.cumulative.contiguous(), pool.emitted.contiguous()
    else:
        total = torch.zeros(samples, height, columns, channels, dtype=torch.int16, device=device)
        emitted = torch.zeros(samples, *size, channels, dtype=torch.int16, device=device)
    window, stride, padding = pair(pool.kernel_size), pair(pool.stride), pair(pool.padding)
    sizes = (steps, samples, channels, height, columns, *size, *window, *stride, *padding)
    return Pooling(total, emitted, size, sizes, window == stride and padding == (0, 0))
