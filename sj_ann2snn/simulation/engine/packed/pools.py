"""Pools as loops take them: sizes, and the memory of cumulative ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ....compat import layer
from ....layers import CumulativeMaxPool
from ....support.exact_sums import averaged_by_halves
from ....support.shapes import along, pair, pooled_along, spatial_of
from .modules import as_image, is_watched

__all__ = ["Pooling", "Windows", "averages_packed", "pooling", "pools_packed", "windows_of"]

MOST_AVERAGED = 16
"""Largest window of an average pool whose spikes are counted in bits."""


def pools_packed(pool: Any) -> bool:
    """True for a pool that `pool_packed` can stand for: of lines or images, without gaps in its windows."""
    if type(pool) is not CumulativeMaxPool or pool.spatial > 2:
        return False
    dilation: Any = pool.dilation
    return set(along(pool.spatial, dilation)) == {1}


def averages_packed(pool: Any) -> bool:
    """True for an average pool that `average_packed` can stand for: of lines or images, within them, of a power of two
    of spikes."""
    if type(pool) not in (nn.AvgPool1d, nn.AvgPool2d, layer.AvgPool1d, layer.AvgPool2d) or is_watched(pool):
        return False
    inside = set(along(spatial_of(pool), pool.padding)) == {0} and not pool.ceil_mode
    return 1 < averaged_by_halves(pool) <= MOST_AVERAGED and inside


class Windows(NamedTuple):
    """The windows of a pool. A line is an image of one row.

    Attributes:
        inputs: Height and columns of the input.
        outputs: Of the output.
        window: Of a window.
        stride: From one window to the next, down and across.
        padding: Above and before.
        places: Of the output: its columns, if it is a line.
    """

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    places: tuple[int, ...]


def windows_of(pool: Any, places: tuple[int, ...]) -> Windows | None:
    """A pool's windows over an input of `places`; None if it is of other dimensions, or if no window fits in: the
    module raises the error then."""
    spatial = spatial_of(pool)
    if len(places) != spatial:
        return None
    window, stride, padding = (along(spatial, one) for one in (pool.kernel_size, pool.stride, pool.padding))
    sizes = zip(places, window, stride, padding, strict=True)
    found = tuple(pooled_along(*one, ceil_mode=pool.ceil_mode) for one in sizes)
    if min(found) < 1:
        return None
    geometry = ((places, 1), (found, 1), (window, 1), (stride, 1), (padding, 0))
    inputs, outputs, windows, strides, margins = (pair(as_image(size, fill)) for size, fill in geometry)
    return Windows(inputs, outputs, windows, strides, margins, found)


class Pooling(NamedTuple):
    """What the loop of a cumulative max pool needs besides spikes.

    Attributes:
        total: The spikes so far ``[N, height, columns, C]``, whole numbers: memory that may be written to.
        emitted: Those that it has passed on ``[N, out height, out columns, C]``, likewise.
        places: Of the output.
        sizes: All shapes, in the loop's order.
        apart: The windows do not begin outside the image and have no position in common.
    """

    total: Tensor
    emitted: Tensor
    places: tuple[int, ...]
    sizes: tuple[int, ...]
    apart: bool

    def leave(self, pool: Any) -> None:
        """Give the pool its memory."""
        pool.cumulative, pool.emitted = self.total, self.emitted


def pooling(pool: Any, shape: tuple[int, ...], device: torch.device | None = None) -> Pooling | None:
    """What the loop of a cumulative max pool needs for spikes ``(T, N, C, ...)``; None if there are no windows."""
    steps, samples, channels, *places = shape
    found = windows_of(pool, tuple(places))
    if found is None:
        return None
    if isinstance(pool.cumulative, Tensor):
        total, emitted = pool.cumulative.contiguous(), pool.emitted.contiguous()
    else:
        total = torch.zeros(samples, *found.inputs, channels, dtype=torch.int16, device=device)
        emitted = torch.zeros(samples, *found.outputs, channels, dtype=torch.int16, device=device)
    geometry = *found.window, *found.stride, *found.padding
    sizes = (steps, samples, channels, *found.inputs, *found.outputs, *geometry)
    return Pooling(total, emitted, found.places, sizes, found.window == found.stride and found.padding == (0, 0))
