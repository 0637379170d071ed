"""Loops over packed spikes, for numba: a bit for each neuron, those of the channels of a position side by side.

All arrays are flat. Sizes: `steps` T, `samples` N, images of `height` times `columns` positions, `inputs` and
`outputs` channels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from numba.extending import register_jitable

from .loops import BITS, FLOAT
from .vectors import (
    add,
    as_floats,
    charge,
    charge_within,
    count,
    grow,
    larger,
    load,
    load_like,
    load_row,
    lowest,
    ones_in,
    scaled,
    store,
    unpacked,
    word,
    zero_row,
)

__all__ = [
    "PAD",
    "convolve_by_bytes",
    "convolve_by_rows",
    "count_bits",
    "fire_bits",
    "pool_bits",
    "unpack_bits",
]

PAD = 1
"""Unused rows behind a table of 256, without which equal entries of many tables would share a line of the cache."""


SILENT, FREE, BOUNDED = 0, 1, 2
"""What sums charge: no neurons, neurons, or neurons whose potential saturates."""


@functools.cache
def fire_bits(width: int, fires: int) -> Callable[..., None]:
    """Integrates currents ``[T, neurons]`` and writes the spikes ``[T, neurons]``; `stride` is 0 for the same currents
    at every step. There is a threshold for each neuron of a period."""

    def loop(
        currents: Any,
        stride: int,
        potential: Any,
        thresholds: Any,
        ends: tuple[Any, Any],
        spikes: Any,
        steps: int,
    ) -> None:
        neurons, period = potential.shape[0], thresholds.shape[0]
        x_at, v_at, out_at = currents.ctypes.data, potential.ctypes.data, spikes.ctypes.data
        limits_at = thresholds.ctypes.data
        for first in range(0, neurons, width):
            v = load(v_at + first * FLOAT, width)
            limits = load(limits_at + first % period * FLOAT, width)
            out = out_at + first // BITS
            here = x_at + first * FLOAT
            for _ in range(steps):
                if fires == BOUNDED:
                    v = charge_within(v, load(here, width), limits, ends[0], ends[1], out)
                else:
                    v = charge(v, load(here, width), limits, out)
                here += stride * FLOAT
                out += neurons // BITS
            store(v, v_at + first * FLOAT)

    return loop


@functools.cache
def unpack_bits(width: int) -> Callable[..., None]:
    """Spikes as numbers."""

    def loop(spikes: Any, numbers: Any) -> None:
        spikes_at, out_at = spikes.ctypes.data, numbers.ctypes.data
        for first in range(0, numbers.shape[0], width):
            store(unpacked(spikes_at + first // BITS, width), out_at + first * FLOAT)

    return loop


@functools.cache
def count_bits(unit: int) -> Callable[..., None]:
    """Counts spikes, by their places' weights, `unit` bytes at a time; `size` is the bytes of a place."""

    def loop(spikes: Any, weights: Any, found: Any, samples: int, size: int) -> None:
        here = spikes.ctypes.data
        for step in range(found.shape[0]):
            total = 0
            for _ in range(samples):
                for place in range(weights.shape[0]):
                    ones = 0
                    for _ in range(size // unit):
                        ones += ones_in(word(here, unit))
                        here += unit
                    total += ones * weights[place]
            found[step] = total

    return loop


@functools.cache
def pool_bits(width: int) -> Callable[..., None]:
    """The growth of the largest cumulative input, see `CumulativeMaxPool`; windows lie within the image.

    `cumulative` ``[N, height, columns, channels]`` and `emitted` ``[N, out height, out columns, channels]`` are 16-bit
    integers.
    """

    def loop(
        spikes: Any,
        cumulative: Any,
        emitted: Any,
        out: Any,
        steps: int,
        samples: int,
        channels: int,
        height: int,
        columns: int,
        out_height: int,
        out_columns: int,
        window_height: int,
        window_columns: int,
    ) -> None:
        spikes_at, total_at, emitted_at, out_at = (
            spikes.ctypes.data,
            cumulative.ctypes.data,
            emitted.ctypes.data,
            out.ctypes.data,
        )
        for sample in range(samples):
            for y in range(out_height):
                for step in range(steps):
                    image = step * samples + sample
                    for x in range(out_columns):
                        for first in range(0, channels, width):
                            corner = y * window_height * columns + x * window_columns
                            largest = count(
                                total_at + ((sample * height * columns + corner) * channels + first) * 2,
                                spikes_at + ((image * height * columns + corner) * channels + first) // BITS,
                                width,
                            )
                            for inside in range(1, window_height * window_columns):
                                here = corner + inside // window_columns * columns + inside % window_columns
                                largest = larger(
                                    largest,
                                    count(
                                        total_at + ((sample * height * columns + here) * channels + first) * 2,
                                        spikes_at + ((image * height * columns + here) * channels + first) // BITS,
                                        width,
                                    ),
                                )
                            place = y * out_columns + x
                            grow(
                                largest,
                                emitted_at + ((sample * out_height * out_columns + place) * channels + first) * 2,
                                out_at + ((image * out_height * out_columns + place) * channels + first) // BITS,
                            )

    return loop


NOTHING, NUMBERS, SPIKES = 0, 1, 2
"""What is added to the sums: nothing, numbers ``[T, N, out height, out columns, outputs]``, or spikes of that shape
times a factor for each channel."""


@register_jitable(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def finish(
    total: Any,
    fires: int,
    addend: int,
    place: int,
    kept: int,
    added: int,
    factors: int,
    thresholds: int,
    ends: tuple[Any, Any],
    potential: int,
    out: int,
) -> None:
    """The sums of a position charge neurons, or are written as they are.

    `place` counts the numbers of all steps, `kept` those of one step, from which the potential is taken. The other
    whole numbers are addresses.
    """
    if addend == NUMBERS:
        total = add(total, load_like(total, added + place * FLOAT))
    elif addend == SPIKES:
        total = add(total, scaled(load_like(total, factors), added + place // BITS))
    if fires == BOUNDED:
        v, limits = potential + kept * FLOAT, load_like(total, thresholds)
        store(charge_within(load_like(total, v), total, limits, ends[0], ends[1], out + place // BITS), v)
    elif fires == FREE:
        v = potential + kept * FLOAT
        store(charge(load_like(total, v), total, load_like(total, thresholds), out + place // BITS), v)
    else:
        store(total, out + place * FLOAT)


@functools.cache
def convolve_by_rows(width: int, unit: int, fires: int, addend: int, size: int = FLOAT) -> Callable[..., None]:
    """A convolution that adds the weights of the inputs that spike.

    Args:
        width: Outputs at a time.
        unit: Bytes of spikes to look at at a time, 1, 2, 4 or 8.
        fires: Which neurons the sums charge.
        addend: What to add to the sums.
        size: Bytes of a weight: 2 for small integers whose sums fit into 16 bits, 4 for single precision.

    The loop takes the weights ``[blocks of outputs, window height, window columns, inputs, width]``.
    """
    row_bytes, weight_bytes = width * FLOAT, width * size

    def loop(
        spikes: Any,
        weights: Any,
        bias: Any,
        added: Any,
        factors: Any,
        potential: Any,
        thresholds: Any,
        ends: tuple[Any, Any],
        out: Any,
        rows: Any,
        starts: Any,
        sizes: tuple[int, ...],
    ) -> None:
        steps, samples, inputs, outputs, height, columns, out_height, out_columns = sizes[:8]
        window_height, window_columns, stride_down, stride_across, above, before = sizes[8:]
        spikes_at, weights_at, bias_at, added_at = (
            spikes.ctypes.data,
            weights.ctypes.data,
            bias.ctypes.data,
            added.ctypes.data,
        )
        factors_at, v_at, out_at = factors.ctypes.data, potential.ctypes.data, out.ctypes.data
        limits_at = thresholds.ctypes.data
        block_bytes = window_height * window_columns * inputs * weight_bytes
        across = columns + 2 * before + 1  # starts of every step
        for sample in range(samples):
            for y in range(out_height):
                # The rows of weights that the spikes of a column select, for all columns and steps.
                found = 0
                for step in range(steps):
                    image = step * samples + sample
                    for x in range(columns + 2 * before):
                        starts[step * across + x] = found
                        if x < before or x >= columns + before:
                            continue
                        for down in range(window_height):
                            line = y * stride_down - above + down
                            if line < 0 or line >= height:
                                continue
                            place = ((image * height + line) * columns + x - before) * inputs
                            first = (down * window_columns + x) * inputs
                            for part in range(0, inputs, unit * BITS):
                                bits = word(spikes_at + (place + part) // BITS, unit)
                                while bits != 0:
                                    rows[found] = (first + part + lowest(bits)) * weight_bytes
                                    found += 1
                                    bits &= bits - 1
                    starts[step * across + across - 1] = found
                for block in range(outputs // width):
                    for step in range(steps):
                        here = weights_at + block * block_bytes
                        kept = ((sample * out_height + y) * out_columns) * outputs + block * width
                        place = (((step * samples + sample) * out_height + y) * out_columns) * outputs + block * width
                        for x in range(out_columns):
                            begin = starts[step * across + x * stride_across]
                            end = starts[step * across + x * stride_across + window_columns]
                            total = zero_row(width, size)
                            for k in range(begin, end):
                                total = add(total, load_row(here + rows[k], width, size))
                            finish(
                                add(as_floats(total), load(bias_at + block * row_bytes, width)),
                                fires,
                                addend,
                                place,
                                kept,
                                added_at,
                                factors_at + block * row_bytes,
                                limits_at + block * row_bytes,
                                ends,
                                v_at,
                                out_at,
                            )
                            here -= stride_across * inputs * weight_bytes
                            kept += outputs
                            place += outputs

    return loop


@functools.cache
def convolve_by_bytes(width: int, fires: int, addend: int, size: int = FLOAT) -> Callable[..., None]:
    """A convolution by table lookup: every byte of spikes selects one of 256 sums of weights.

    Args:
        width: Outputs at a time.
        fires: Which neurons the sums charge.
        addend: What to add to the sums.
        size: As for `convolve_by_rows`.

    The loop takes the tables ``[blocks of outputs, bytes of the window, 256 + PAD, width]``. `window` is memory for
    ``[window height, columns + 2 * before, bytes of a position]``.
    """
    row_bytes, entry_bytes = width * FLOAT, width * size
    table_bytes = (256 + PAD) * entry_bytes

    def loop(
        spikes: Any,
        tables: Any,
        bias: Any,
        added: Any,
        factors: Any,
        potential: Any,
        thresholds: Any,
        ends: tuple[Any, Any],
        out: Any,
        window: Any,
        sizes: tuple[int, ...],
    ) -> None:
        steps, samples, inputs, outputs, height, columns, out_height, out_columns = sizes[:8]
        window_height, window_columns, stride_down, stride_across, above, before = sizes[8:]
        tables_at, bias_at, added_at = tables.ctypes.data, bias.ctypes.data, added.ctypes.data
        factors_at, v_at, out_at, window_at = (
            factors.ctypes.data,
            potential.ctypes.data,
            out.ctypes.data,
            window.ctypes.data,
        )
        limits_at = thresholds.ctypes.data
        position = inputs // BITS
        line_bytes = (columns + 2 * before) * position
        at_a_time = window_columns * position
        for block in range(outputs // width):
            first_table = tables_at + block * window_height * at_a_time * table_bytes
            for sample in range(samples):
                for y in range(out_height):
                    for step in range(steps):
                        image = step * samples + sample
                        for down in range(window_height):
                            line = y * stride_down - above + down
                            to = down * line_bytes + before * position
                            if line < 0 or line >= height:
                                window[to : to + columns * position] = 0
                            else:
                                begin = (image * height + line) * columns * position
                                window[to : to + columns * position] = spikes[begin : begin + columns * position]
                        kept = ((sample * out_height + y) * out_columns) * outputs + block * width
                        place = ((image * out_height + y) * out_columns) * outputs + block * width
                        for x in range(out_columns):
                            total, other = zero_row(width, size), zero_row(width, size)
                            table = first_table
                            for down in range(window_height):
                                here = window_at + down * line_bytes + x * stride_across * position
                                for k in range(0, at_a_time - 1, 2):
                                    total = add(total, load_row(table + word(here + k, 1) * entry_bytes, width, size))
                                    table += table_bytes
                                    other = add(
                                        other, load_row(table + word(here + k + 1, 1) * entry_bytes, width, size)
                                    )
                                    table += table_bytes
                                if at_a_time % 2:
                                    total = add(
                                        total,
                                        load_row(table + word(here + at_a_time - 1, 1) * entry_bytes, width, size),
                                    )
                                    table += table_bytes
                            finish(
                                add(as_floats(add(total, other)), load(bias_at + block * row_bytes, width)),
                                fires,
                                addend,
                                place,
                                kept,
                                added_at,
                                factors_at + block * row_bytes,
                                limits_at + block * row_bytes,
                                ends,
                                v_at,
                                out_at,
                            )
                            kept += outputs
                            place += outputs

    return loop
