"""Loops over graded spikes in small integers, for numba: the channels of a position side by side.

All arrays are flat. `neurons` stands for the loop of the neurons that a loop is compiled for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import register_jitable

from ..compiled.constants import BLOCK, NUMBERS, SHORT, SPIKES
from ..compiled.dot_products import SUM, add_products
from ..compiled.lines import copy, count_nonzero
from ..compiled.neuron_loops import neurons

__all__ = ["convolve_levels", "copy", "count_levels", "count_nonzero", "fire_levels", "pool_levels", "sum_levels"]


# Numbers stand in slices of their own wherever a loop runs over them: numba allows for negative indices, and a compiler
# that cannot exclude them uses no vectors.


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def write(numbers: Any, codes: Any) -> None:
    """Write whole numbers as small integers."""
    for i in range(codes.shape[0]):
        codes[i] = np.int16(numbers[i])


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def charge_by(line: Any, sums: Any, units: Any, bias: Any) -> None:
    """The currents of a line from its sums."""
    for i in range(line.shape[0]):
        line[i] = np.float32(sums[i]) * units[i] + bias[i]


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def add_to(total: Any, numbers: Any) -> None:
    """Add numbers to others."""
    for i in range(total.shape[0]):
        total[i] += numbers[i]


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def add_scaled(line: Any, codes: Any, factors: Any) -> None:
    """Add graded spikes times their factors to a line."""
    for i in range(line.shape[0]):
        line[i] += np.float32(codes[i]) * factors[i]


def fire_levels(
    currents: Any,
    stride: int,
    states: tuple[Any, ...],
    constants: tuple[Any, ...],
    clock: Any,
    one: Any,
    line: Any,
    codes: Any,
    steps: int,
) -> None:
    """Integrate currents ``[T, neurons]`` and write the spikes; `stride` is 0 for the same currents at every step.

    `line` is memory for as many currents as are taken at a time.
    """
    count = states[0].shape[0]
    for start in range(0, count, BLOCK):
        length, now = min(BLOCK, count - start), clock
        for step in range(steps):
            copy(currents[step * stride + start : step * stride + start + length], line[:length])
            neurons(line, states, start, length, constants, now, one, 1, 0)
            write(line[:length], codes[step * count + start : step * count + start + length])
            now += one


@functools.cache
def convolve_levels(
    positions: int, distance: int, vectors: int, lanes: int, fires: bool, addend: int
) -> Callable[..., None]:
    """A convolution of graded spikes, in integers: ``sums * units + bias``, what is added, and the neurons behind that.

    Args:
        positions: Of the result, to sum at a time.
        distance: Bytes from one window to the next.
        vectors: Vectors of outputs to sum at a time.
        lanes: Outputs of a vector.
        fires: Whether the currents charge neurons.
        addend: What to add to the currents.

    The loop takes the weights ``[blocks of outputs, window height, pairs of inputs, outputs, 2]``, and `units` and
    `bias` for every number of a line of the result, as well as `factors` for what is added. `padded`, `sums` and
    `line` are memory for an image with its margins, and for `lines` lines and one line of the result.
    """
    width = vectors * lanes

    def loop(
        codes: Any,
        weights: Any,
        line_of: tuple[Any, Any, Any],
        added: Any,
        out: Any,
        states: tuple[Any, ...],
        constants: tuple[Any, ...],
        clock: Any,
        one: Any,
        memory: tuple[Any, Any, Any],
        lines: int,
        sizes: tuple[int, ...],
    ) -> None:
        steps, samples, inputs, outputs, height, columns, out_height, out_columns = sizes[:8]
        window_height, window_columns, stride_down, _, above, before = sizes[8:]
        units, bias, factors = line_of
        padded, sums, line = memory
        codes_at, weights_at, padded_at, sums_at = (
            codes.ctypes.data,
            weights.ctypes.data,
            padded.ctypes.data,
            sums.ctypes.data,
        )
        margins = above > 0 or before > 0
        row, length = columns * inputs, out_columns * outputs
        padded_row = (columns + 2 * before) * inputs
        pairs = window_columns * inputs // 2
        block_bytes = window_height * pairs * width * 2 * SHORT
        padded[:] = 0
        for sample in range(samples):
            now = clock
            for step in range(steps):
                image = step * samples + sample
                image_at = padded_at if margins else codes_at + image * height * row * SHORT
                for y in range(height if margins else 0):
                    to, start = (y + above) * padded_row + before * inputs, (image * height + y) * row
                    copy(codes[start : start + row], padded[to : to + row])
                for first_line in range(0, out_height, lines):
                    end_line = min(out_height, first_line + lines)
                    for block in range(outputs // width):
                        for y in range(first_line, end_line):
                            here = image_at + y * stride_down * padded_row * SHORT
                            to = sums_at + ((y - first_line) * length + block * width) * SUM
                            for first in range(0, out_columns, positions):
                                x = min(first, out_columns - positions)  # the last ones may be summed again
                                add_products(
                                    here + x * distance,
                                    weights_at + block * block_bytes,
                                    to + x * outputs * SUM,
                                    window_height,
                                    padded_row * SHORT,
                                    pairs,
                                    outputs * SUM,
                                    positions,
                                    distance,
                                    vectors,
                                    lanes,
                                )
                    for y in range(first_line, end_line):
                        summed = sums[(y - first_line) * length : (y - first_line + 1) * length]
                        place = (image * out_height + y) * length
                        charge_by(line, summed, units, bias)
                        if addend == NUMBERS:
                            add_to(line, added[place : place + length])
                        elif addend == SPIKES:
                            add_scaled(line, added[place : place + length], factors)
                        if fires:
                            begin = (sample * out_height + y) * length
                            neurons(line, states, begin, length, constants, now, one, 1, 0)
                            write(line, out[place : place + length])
                        else:
                            copy(line, out[place : place + length])
                now += one

    return loop


def count_levels(codes: Any, counts: Any, weights: Any, samples: int, channels: int) -> None:
    """Count spikes that are not zero at every step, each as often as the weight of its place says."""
    places = weights.shape[0]
    for step in range(counts.shape[0]):
        for sample in range(samples):
            for place in range(places):
                start = ((step * samples + sample) * places + place) * channels
                counts[step] += weights[place] * count_nonzero(codes[start : start + channels])


def sum_levels(codes: Any, counts: Any, samples: int, channels: int) -> None:
    """The sum of the magnitudes of all spikes at every step."""
    size = codes.shape[0] // counts.shape[0]
    for step in range(counts.shape[0]):
        counts[step] = sum_of_magnitudes(codes[step * size : (step + 1) * size])


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def sum_of_magnitudes(codes: Any) -> Any:
    found = np.int64(0)
    for i in range(codes.shape[0]):
        found += abs(np.int64(codes[i]))
    return found


def pool_levels(codes: Any, cumulative: Any, emitted: Any, out: Any, lowest: Any, sizes: tuple[int, ...]) -> None:
    """The growth of the largest cumulative input, see `CumulativeMaxPool`.

    `cumulative` ``[N, height, columns, channels]`` and `emitted` ``[N, out height, out columns, channels]`` are
    16-bit integers, and `lowest` is the least of them for each channel.
    """
    steps, samples, channels, height, columns, out_height, out_columns = sizes[:7]
    window_height, window_columns, stride_down, stride_across, above, before = sizes[7:]
    whole = height * columns * channels
    largest = np.empty_like(lowest)
    for sample in range(samples):
        total = cumulative[sample * whole : (sample + 1) * whole]
        for step in range(steps):
            image = step * samples + sample
            add_to(total, codes[image * whole : (image + 1) * whole])
            for y in range(out_height):
                top, bottom = max(0, y * stride_down - above), min(height, y * stride_down - above + window_height)
                for x in range(out_columns):
                    left = max(0, x * stride_across - before)
                    right = min(columns, x * stride_across - before + window_columns)
                    copy(lowest, largest)
                    for line in range(top, bottom):
                        for place in range(line * columns + left, line * columns + right):
                            take_larger(largest, total[place * channels : (place + 1) * channels])
                    at = ((sample * out_height + y) * out_columns + x) * channels
                    to = ((image * out_height + y) * out_columns + x) * channels
                    grow(largest, emitted[at : at + channels], out[to : to + channels])


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def take_larger(largest: Any, others: Any) -> None:
    for i in range(largest.shape[0]):
        largest[i] = max(largest[i], others[i])


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def grow(largest: Any, emitted: Any, out: Any) -> None:
    for i in range(largest.shape[0]):
        out[i] = largest[i] - emitted[i]
        emitted[i] = largest[i]
