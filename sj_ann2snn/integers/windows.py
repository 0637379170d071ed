"""Windows of pools and convolutions as lists of positions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Windows", "adaptive_windows", "sliding_windows", "transposed_windows"]

Windows = np.ndarray[Any, np.dtype[np.int64]]
"""``[results, window]``: the positions that each result reads, flat; -1 outside of the image."""


def sliding_windows(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    *,
    results: Sequence[int] | None = None,
) -> Windows:
    """The windows of a convolution or pool.

    >>> sliding_windows((3,), (2,), (1,), ((1, 0),), (1,)).tolist()
    [[-1, 0], [0, 1], [1, 2]]

    Args:
        size: Of the image.
        kernel: Of the window.
        stride: From window to window.
        padding: Before and behind, in each dimension.
        dilation: From element to element.
        results: Windows in each dimension; by default, those that fit.
    """
    lines = []
    for axis, (length, width, step, (before, behind), apart) in enumerate(
        zip(size, kernel, stride, padding, dilation, strict=True)
    ):
        fitting = (length + before + behind - apart * (width - 1) - 1) // step + 1
        count = fitting if results is None else results[axis]
        places = np.arange(count)[:, None] * step - before + np.arange(width) * apart
        lines.append(np.where((places >= 0) & (places < length), places, -1))
    return _joined(lines, size)


def transposed_windows(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    results: Sequence[int],
) -> Windows:
    """For every result of a transposed convolution, the position that each of its weights multiplies.

    >>> transposed_windows((2,), (2,), (2,), (0,), (1,), (4,)).tolist()
    [[0, -1], [-1, 0], [1, -1], [-1, 1]]
    """
    lines = []
    for length, width, step, before, apart, count in zip(size, kernel, stride, padding, dilation, results, strict=True):
        reached = np.arange(count)[:, None] + before - np.arange(width) * apart
        places = reached // step
        lines.append(np.where((reached % step == 0) & (places >= 0) & (places < length), places, -1))
    return _joined(lines, size)


def adaptive_windows(size: Sequence[int], results: Sequence[int]) -> Windows:
    """The windows of an adaptive pool, the shorter ones filled up with -1.

    >>> adaptive_windows((5,), (2,)).tolist()
    [[0, 1, 2], [2, 3, 4]]
    >>> adaptive_windows((4,), (3,)).tolist()
    [[0, 1], [1, 2], [2, 3]]
    """
    lines = []
    for length, count in zip(size, results, strict=True):
        index = np.arange(count)
        begin, end = index * length // count, -(-(index + 1) * length // count)
        places = begin[:, None] + np.arange((end - begin).max())
        lines.append(np.where(places < end[:, None], places, -1))
    return _joined(lines, size)


def _joined(lines: list[Any], size: Sequence[int]) -> Windows:
    """The windows of an image from those of its dimensions, ``[results, window]`` each."""
    results = [range(len(one)) for one in lines]
    window = math.prod(one.shape[1] for one in lines)
    found = np.empty((math.prod(map(len, lines)), window), dtype=np.int64)
    for row, chosen in enumerate(itertools.product(*results)):
        places, inside = np.zeros(1, dtype=np.int64), np.ones(1, dtype=bool)
        for axis, index in enumerate(chosen):
            line = lines[axis][index]
            places = (places[:, None] * size[axis] + line).ravel()
            inside = (inside[:, None] & (line >= 0)).ravel()
        found[row] = np.where(inside, places, -1)
    return found


def padding_of(layer: Any) -> list[tuple[int, int]]:
    """Zeros before and behind in each dimension of a convolution."""
    if isinstance(layer.padding, str):
        if layer.padding == "valid":
            return [(0, 0)] * len(layer.kernel_size)
        totals = [apart * (width - 1) for apart, width in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(one, one) for one in layer.padding]
