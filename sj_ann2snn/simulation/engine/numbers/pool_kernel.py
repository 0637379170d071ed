"""The inner loop of cumulative max pools of numbers, in vector instructions; needs numba."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from numba.extending import register_jitable

from ..compiled.constants import FLOAT
from ..compiled.vectors import add, largest_of, load, store, subtract

__all__ = ["pool_numbers"]

WIDE = 16
"""Numbers to add up at a time."""


@functools.cache
def pool_numbers(width: int, rest: int) -> Callable[..., None]:
    """The growth of the largest cumulative input, see `CumulativeMaxPool`.

    Args:
        width: Channels at a time.
        rest: The same for those that are left then; 0 if none are.

    All arrays are flat: the inputs ``[T, N, height, columns, C]`` and outputs ``[T, N, out height, out columns, C]``,
    the sums `cumulative` of the inputs and what was `emitted`, which have no T. A line is added up just before the
    first window that reads it, while it is near.
    """
    most, remaining = _window(width), _window(rest or 1)

    def loop(x: Any, cumulative: Any, emitted: Any, out: Any, sizes: tuple[int, ...]) -> None:
        steps, samples, channels, height, columns, out_height, out_columns = sizes[:7]
        window_height, window_columns, stride_down, stride_across, above, before = sizes[7:]
        x_at, total_at = x.ctypes.data, cumulative.ctypes.data
        emitted_at, out_at = emitted.ctypes.data, out.ctypes.data
        line, position = columns * channels * FLOAT, channels * FLOAT
        wide = channels // width * width
        for sample in range(samples):
            for step in range(steps):
                image = step * samples + sample
                totals, inputs = total_at + sample * height * line, x_at + image * height * line
                added = 0
                for y in range(out_height):
                    top, bottom = y * stride_down - above, min(height, y * stride_down - above + window_height)
                    if bottom > added:
                        accumulate(totals + added * line, inputs + added * line, (bottom - added) * line)
                        added = bottom
                    top = max(0, top)
                    for column in range(out_columns):
                        left = max(0, column * stride_across - before)
                        right = min(columns, column * stride_across - before + window_columns)
                        corner = totals + top * line + left * position
                        place = (y * out_columns + column) * position
                        known = emitted_at + sample * out_height * out_columns * position + place
                        to = out_at + image * out_height * out_columns * position + place
                        for first in range(0, wide, width):
                            shift = first * FLOAT
                            window = corner + shift, bottom - top, line, right - left, position
                            most(window, known + shift, to + shift)
                        if rest:
                            for first in range(wide, channels, rest):
                                shift = first * FLOAT
                                window = corner + shift, bottom - top, line, right - left, position
                                remaining(window, known + shift, to + shift)
                accumulate(totals + added * line, inputs + added * line, (height - added) * line)

    return loop


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def accumulate(totals: int, inputs: int, size: int) -> None:
    """Add inputs to totals, so many bytes of them; both are addresses."""
    wide = size // (WIDE * FLOAT) * (WIDE * FLOAT)
    for shift in range(0, wide, WIDE * FLOAT):
        store(add(load(totals + shift, WIDE, FLOAT), load(inputs + shift, WIDE, FLOAT)), totals + shift)
    for shift in range(wide, size, FLOAT):
        store(add(load(totals + shift, 1, FLOAT), load(inputs + shift, 1, FLOAT)), totals + shift)


@functools.cache
def _window(width: int) -> Any:
    """Writes what the largest total of a window has grown by, for so many channels.

    The window is the address of its first position, its lines and their distance in bytes, and its columns and theirs.
    """

    @register_jitable(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
    def grow(window: tuple[int, int, int, int, int], emitted: int, out: int) -> None:
        corner, lines, down, columns, across = window
        largest = load(corner, width, FLOAT)
        for y in range(lines):
            here = corner + y * down
            for _ in range(columns):
                largest = largest_of(load(here, width, FLOAT), largest)
                here += across
        store(subtract(largest, load(emitted, width, FLOAT)), out)
        store(largest, emitted)

    return grow
