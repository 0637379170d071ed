"""Loops over packed spikes, for numba: a bit for each neuron, those of the channels of a position side by side.

All arrays are flat. Sizes: `steps` T, `samples` N, images of `height` times `columns` positions, `inputs` and
`outputs` channels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from numba.extending import register_jitable

from ..compiled.constants import BITS, BOUNDED, FLOAT, NUMBERS, SHORT, SILENT, SPIKES, WHOLE
from ..compiled.vectors import (
    add,
    as_floats,
    charge,
    charge_within,
    count,
    grow,
    larger,
    list_ones,
    load,
    load_like,
    ones_in,
    scaled,
    store,
    store_word,
    subtract,
    unpacked,
    word,
    zeros,
)

__all__ = [
    "MOST_PLANES",
    "PAD",
    "average_bits",
    "convolve_by_bytes",
    "convolve_by_columns",
    "convolve_by_rows",
    "convolve_depthwise",
    "count_bits",
    "fire_bits",
    "pool_bits",
    "subtract_bits",
    "unpack_bits",
]

PAD = 1
"""Unused rows behind a table of 256, without which equal entries of many tables would share a line of the cache."""


@functools.cache
def fire_bits(width: int, fires: int, negated: bool = False) -> Callable[..., None]:
    """Integrates currents ``[T, neurons]``, or what they are below zero, and writes the spikes ``[T, neurons]``;
    `stride` is 0 for the same currents at every step. There is a threshold for each neuron of a period."""

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
            v = load(v_at + first * FLOAT, width, FLOAT)
            limits = load(limits_at + first % period * FLOAT, width, FLOAT)
            out = out_at + first // BITS
            here = x_at + first * FLOAT
            for _ in range(steps):
                current = load(here, width, FLOAT)
                if negated:
                    current = subtract(zeros(width, FLOAT), current)
                if fires == BOUNDED:
                    v = charge_within(v, current, limits, ends[0], ends[1], out)
                else:
                    v = charge(v, current, limits, out)
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
def subtract_bits(width: int) -> Callable[..., None]:
    """Spikes ``[places, C]`` less others, times a factor for each channel, as numbers."""

    def loop(spikes: Any, others: Any, factors: Any, numbers: Any) -> None:
        spikes_at, others_at, out_at = spikes.ctypes.data, others.ctypes.data, numbers.ctypes.data
        factors_at, channels = factors.ctypes.data, factors.shape[0]
        for place in range(0, numbers.shape[0], channels):
            for first in range(0, channels, width):
                byte, factor = (place + first) // BITS, load(factors_at + first * FLOAT, width, FLOAT)
                found = subtract(unpacked(spikes_at + byte, width), scaled(factor, others_at + byte))
                store(found, out_at + (place + first) * FLOAT)

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
def pool_bits(width: int, apart: bool) -> Callable[..., None]:
    """The growth of the largest cumulative input, see `CumulativeMaxPool`.

    `cumulative` ``[N, height, columns, channels]`` and `emitted` ``[N, out height, out columns, channels]`` are 16-bit
    integers.

    Args:
        width: Channels at a time.
        apart: The windows lie within the image and have no position in common: each adds its own spikes.
    """

    def loop(spikes: Any, cumulative: Any, emitted: Any, out: Any, sizes: tuple[int, ...]) -> None:
        steps, samples, channels, height, columns, out_height, out_columns = sizes[:7]
        window_height, window_columns, stride_down, stride_across, above, before = sizes[7:]
        spikes_at, total_at, emitted_at, out_at = (
            spikes.ctypes.data,
            cumulative.ctypes.data,
            emitted.ctypes.data,
            out.ctypes.data,
        )
        # Windows apart take all steps of a line one after the other, others all lines of a step.
        outer, inner = (1, steps) if apart else (steps, 1)
        for sample in range(samples):
            for first_step in range(outer):
                if not apart:
                    begin, end = sample * height * columns * channels, (sample + 1) * height * columns * channels
                    shift = first_step * samples * height * columns * channels
                    for here in range(begin, end, width):
                        count(total_at + here * 2, spikes_at + (shift + here) // BITS, width)
                for y in range(out_height):
                    top = max(0, y * stride_down - above)
                    bottom = min(height, y * stride_down - above + window_height)
                    for step in range(first_step, first_step + inner):
                        image = step * samples + sample
                        for x in range(out_columns):
                            left = max(0, x * stride_across - before)
                            right = min(columns, x * stride_across - before + window_columns)
                            for first in range(0, channels, width):
                                largest = zeros(width, SHORT)
                                for line in range(top, bottom):
                                    for place in range(line * columns + left, line * columns + right):
                                        total = total_at + ((sample * height * columns + place) * channels + first) * 2
                                        if apart:
                                            at = (image * height * columns + place) * channels + first
                                            largest = larger(largest, count(total, spikes_at + at // BITS, width))
                                        else:
                                            largest = larger(largest, load(total, width, SHORT))
                                place = y * out_columns + x
                                grow(
                                    largest,
                                    emitted_at + ((sample * out_height * out_columns + place) * channels + first) * 2,
                                    out_at + ((image * out_height * out_columns + place) * channels + first) // BITS,
                                )

    return loop


MOST_PLANES = 5
"""Bits of the counts of `average_bits`, so that they reach 16."""


@functools.cache
def average_bits(planes: int, unit: int) -> Callable[..., None]:
    """Counts the spikes of windows within the image, in binary: ``[planes, images, out height, out columns, bytes]``.

    Args:
        planes: Bits of a count.
        unit: Bytes to count at a time, 1, 2, 4 or 8: in every bit of a word for itself, as a row of half adders.
    """

    def loop(spikes: Any, out: Any, images: int, size: int, sizes: tuple[int, ...]) -> None:
        height, columns, out_height, out_columns, window_height, window_columns, stride_down, stride_across = sizes
        spikes_at, out_at = spikes.ctypes.data, out.ctypes.data
        plane_bytes = images * out_height * out_columns * size
        for image in range(images):
            for y in range(out_height):
                for x in range(out_columns):
                    corner = ((image * height + y * stride_down) * columns + x * stride_across) * size
                    for part in range(0, size, unit):
                        ones, twos, fours, eights, sixteens = 0, 0, 0, 0, 0
                        for down in range(window_height):
                            here = spikes_at + corner + down * columns * size + part
                            for _ in range(window_columns):
                                carry = word(here, unit)
                                here += size
                                ones, carry = ones ^ carry, ones & carry
                                twos, carry = twos ^ carry, twos & carry
                                fours, carry = fours ^ carry, fours & carry
                                eights, carry = eights ^ carry, eights & carry
                                sixteens ^= carry
                        there = out_at + ((image * out_height + y) * out_columns + x) * size + part
                        store_word(ones, there, unit)
                        if planes > 1:
                            store_word(twos, there + plane_bytes, unit)
                        if planes > 2:
                            store_word(fours, there + 2 * plane_bytes, unit)
                        if planes > 3:
                            store_word(eights, there + 3 * plane_bytes, unit)
                        if planes > 4:
                            store_word(sixteens, there + 4 * plane_bytes, unit)

    return loop


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def addresses(behind: tuple[Any, ...]) -> tuple[int, int, int, int, int]:
    """Those of the arrays that sums meet; see `finish`."""
    added, factors, potential, thresholds, out = behind
    return added.ctypes.data, factors.ctypes.data, potential.ctypes.data, thresholds.ctypes.data, out.ctypes.data


@register_jitable(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def finish(
    total: Any,
    fires: int,
    addend: int,
    place: int,
    kept: int,
    first: int,
    behind: tuple[int, int, int, int, int],
    ends: tuple[Any, Any],
) -> None:
    """The sums of a position charge neurons, or are written as they are.

    `place` counts the numbers of all steps, `kept` those of one step, from which the potential is taken, and `first`
    the channels. `behind` are the addresses of what is added, its factors, the potentials, the thresholds and the
    result.
    """
    added, factors, potential, thresholds, out = behind
    if addend == NUMBERS:
        total = add(total, load_like(total, added + place * FLOAT))
    elif addend == SPIKES:
        total = add(total, scaled(load_like(total, factors + first * FLOAT), added + place // BITS))
    if fires == SILENT:
        store(total, out + place * FLOAT)
        return
    v, limits = potential + kept * FLOAT, load_like(total, thresholds + first * FLOAT)
    if fires == BOUNDED:
        store(charge_within(load_like(total, v), total, limits, ends[0], ends[1], out + place // BITS), v)
    else:
        store(charge(load_like(total, v), total, limits, out + place // BITS), v)


@functools.cache
def convolve_by_rows(width: int, unit: int, fires: int, addend: int, size: int = FLOAT) -> Callable[..., None]:
    """A convolution that adds the weights of the inputs that spike.

    Args:
        width: Outputs at a time.
        unit: Bytes of spikes to look at at a time, 1, 2, 4 or 8.
        fires: Which neurons the sums charge.
        addend: What to add to the sums.
        size: Bytes of a weight: 2 for small integers whose sums fit into 16 bits, 4 for single precision.

    The loop takes inputs ``[planes, T, N, ...]`` and the weights ``[blocks of outputs, planes, window height, window
    columns, inputs of a group, width]``. It lists the rows of so many `lines` of the output at a time, for which `rows`
    and `starts` have room, ``[lines, steps, ...]``, and `rows` for eight more: one block of weights after the other
    then serves all of them. `places` are those of the bits of every byte, times the bytes of a row, see `list_ones`.
    """
    row_bytes, weight_bytes = width * FLOAT, width * size

    def loop(
        spikes: Any,
        weights: Any,
        bias: Any,
        behind: tuple[Any, ...],
        ends: tuple[Any, Any],
        places: Any,
        rows: Any,
        starts: Any,
        lines: int,
        sizes: tuple[int, ...],
    ) -> None:
        steps, samples, inputs, outputs, height, columns, out_height, out_columns = sizes[:8]
        window_height, window_columns, stride_down, stride_across, above, before, planes, groups = sizes[8:]
        spikes_at, weights_at, bias_at = spikes.ctypes.data, weights.ctypes.data, bias.ctypes.data
        places_at, rows_at = places.ctypes.data, rows.ctypes.data
        behind_at = addresses(behind)
        read = inputs // groups
        block_bytes = planes * window_height * window_columns * read * weight_bytes
        position, part, plane_places = inputs // BITS, read // BITS, steps * samples * height * columns
        blocks = outputs // width // groups
        across = columns + 2 * before + 1  # starts of every step
        for sample in range(samples):
            for turn in range(groups * ((out_height + lines - 1) // lines)):
                group, first_line = turn % groups, turn // groups * lines
                end_line = min(out_height, first_line + lines)
                # The rows of weights that the spikes of a column select, for all columns, steps and lines.
                found = 0
                for y in range(first_line, end_line):
                    top = max(0, above - y * stride_down)
                    bottom = min(window_height, height + above - y * stride_down)
                    for step in range(steps):
                        image = step * samples + sample
                        line_at = spikes_at + ((image * height + y * stride_down - above) * columns - before) * position
                        line_at += group * part
                        starting = ((y - first_line) * steps + step) * across
                        for x in range(columns + 2 * before):
                            starts[starting + x] = found
                            if x < before or x >= columns + before:
                                continue
                            for plane in range(planes):
                                for down in range(top, bottom):
                                    here_at = line_at + (plane * plane_places + down * columns + x) * position
                                    row = ((plane * window_height + down) * window_columns + x) * read
                                    for _ in range(part // unit):
                                        if unit < BITS or word(here_at, unit) != 0:
                                            for k in range(unit):
                                                byte, to = word(here_at + k, 1), rows_at + found * WHOLE
                                                list_ones(byte, places_at, (row + k * BITS) * weight_bytes, to)
                                                found += ones_in(byte)
                                        here_at += unit
                                        row += unit * BITS
                        starts[starting + across - 1] = found
                for block in range(group * blocks, (group + 1) * blocks):
                    for y in range(first_line, end_line):
                        for step in range(steps):
                            starting = ((y - first_line) * steps + step) * across
                            here = weights_at + block * block_bytes
                            kept = ((sample * out_height + y) * out_columns) * outputs + block * width
                            place = (((step * samples + sample) * out_height + y) * out_columns) * outputs
                            place += block * width
                            for x in range(out_columns):
                                begin = starts[starting + x * stride_across]
                                end = starts[starting + x * stride_across + window_columns]
                                total = zeros(width, size)
                                for k in range(begin, end):
                                    row = word(rows_at + k * WHOLE, WHOLE)
                                    total = add(total, load(here + row, width, size))
                                sums = add(as_floats(total), load(bias_at + block * row_bytes, width, FLOAT))
                                finish(sums, fires, addend, place, kept, block * width, behind_at, ends)
                                here -= stride_across * read * weight_bytes
                                kept += outputs
                                place += outputs

    return loop


@functools.cache
def convolve_by_bytes(
    width: int, fires: int, addend: int, planes: int, unit: int, size: int = FLOAT
) -> Callable[..., None]:
    """A convolution by table lookup: every byte of spikes selects one of 256 sums of weights.

    Args:
        width: Outputs at a time.
        fires: Which neurons the sums charge.
        addend: What to add to the sums.
        planes: Of the inputs ``[planes, T, N, ...]``, of which each counts twice as much as the one before.
        unit: Bytes of spikes to look at at a time, 1, 2, 4 or 8, where there are several planes.
        size: As for `convolve_by_rows`.

    The loop takes the tables ``[blocks of outputs, bytes of a group's window, 256 + PAD, width]``. `window` is memory
    for ``[planes, window height, columns + 2 * before, bytes of a position]``, `used` for ``[columns + 2 * before]``.
    """
    row_bytes, entry_bytes = width * FLOAT, width * size
    table_bytes = (256 + PAD) * entry_bytes

    def loop(
        spikes: Any,
        tables: Any,
        bias: Any,
        behind: tuple[Any, ...],
        ends: tuple[Any, Any],
        window: Any,
        used: Any,
        sizes: tuple[int, ...],
    ) -> None:
        steps, samples, inputs, outputs, height, columns, out_height, out_columns = sizes[:8]
        window_height, window_columns, stride_down, stride_across, above, before, _, groups = sizes[8:]
        tables_at, bias_at, window_at = tables.ctypes.data, bias.ctypes.data, window.ctypes.data
        behind_at = addresses(behind)
        position = inputs // BITS
        line_bytes = (columns + 2 * before) * position
        plane_bytes = window_height * line_bytes
        # Bytes of a line of the window lie side by side, unless there are those of other groups in between.
        at_a_time = position // groups if groups > 1 else window_columns * position
        pieces = window_columns if groups > 1 else 1
        blocks = outputs // width // groups
        for block in range(outputs // width):
            first_table = tables_at + block * window_height * pieces * at_a_time * table_bytes
            first_byte = block // blocks * at_a_time
            for sample in range(samples):
                for y in range(out_height):
                    for step in range(steps):
                        image = step * samples + sample
                        used[:] = 0  # planes of a column, up to the highest with a spike
                        for plane in range(planes):
                            for down in range(window_height):
                                line = y * stride_down - above + down
                                to = plane * plane_bytes + down * line_bytes + before * position
                                here = window[to : to + columns * position]
                                if line < 0 or line >= height:
                                    here[:] = 0
                                    continue
                                images = plane * steps * samples + image
                                begin = (images * height + line) * columns * position
                                here[:] = spikes[begin : begin + columns * position]
                                if planes == 1:
                                    continue
                                here_at = window_at + to
                                for x in range(before, before + columns):
                                    bits = 0
                                    for _ in range(position // unit):
                                        bits |= word(here_at, unit)
                                        here_at += unit
                                    if bits != 0:
                                        used[x] = plane + 1
                        kept = ((sample * out_height + y) * out_columns) * outputs + block * width
                        place = ((image * out_height + y) * out_columns) * outputs + block * width
                        for x in range(out_columns):
                            total, highest = zeros(width, size), planes
                            if planes > 1:
                                highest = 0
                                for k in range(x * stride_across, x * stride_across + window_columns):
                                    highest = max(highest, used[k])
                            for plane in range(highest - 1, -1, -1):
                                total, other, table = add(total, total), zeros(width, size), first_table
                                for down in range(window_height):
                                    line_at = window_at + plane * plane_bytes + down * line_bytes + first_byte
                                    line_at += x * stride_across * position
                                    for piece in range(pieces):
                                        here_at = line_at + piece * position
                                        for k in range(0, at_a_time - 1, 2):
                                            entry = table + word(here_at + k, 1) * entry_bytes
                                            total = add(total, load(entry, width, size))
                                            table += table_bytes
                                            entry = table + word(here_at + k + 1, 1) * entry_bytes
                                            other = add(other, load(entry, width, size))
                                            table += table_bytes
                                        if at_a_time % 2:
                                            entry = table + word(here_at + at_a_time - 1, 1) * entry_bytes
                                            total = add(total, load(entry, width, size))
                                            table += table_bytes
                                total = add(total, other)
                            sums = add(as_floats(total), load(bias_at + block * row_bytes, width, FLOAT))
                            finish(sums, fires, addend, place, kept, block * width, behind_at, ends)
                            kept += outputs
                            place += outputs

    return loop


@functools.cache
def convolve_by_columns(
    width: int, fires: int, addend: int, part: int, planes: int = 1, size: int = SHORT, groups: int = 1
) -> Callable[..., None]:
    """A convolution by table lookup, for windows of three columns and a stride of one across.

    A byte of spikes at a column counts in three outputs side by side: its entry holds what it adds to each. So it is
    looked up once, not three times, and the sums of two outputs move on to the next column.

    Args:
        width: Outputs at a time.
        fires: Which neurons the sums charge.
        addend: What to add to the sums.
        part: Bytes of a position that a group of outputs reads.
        planes: Of the inputs ``[planes, T, N, ...]``, of which each counts twice as much as the one before.
        size: As for `convolve_by_rows`.
        groups: Of channels.

    The loop takes the tables ``[blocks of outputs, window height, part, 256 + PAD, 3, width]``.
    """
    row_bytes, part_bytes = width * FLOAT, width * size
    unit, position = math.gcd(part, 8), part * groups
    entry_bytes = 3 * part_bytes
    table_bytes = (256 + PAD) * entry_bytes
    line_bytes = part * table_bytes

    def loop(
        spikes: Any,
        tables: Any,
        bias: Any,
        behind: tuple[Any, ...],
        ends: tuple[Any, Any],
        sizes: tuple[int, ...],
    ) -> None:
        steps, samples, _, outputs, height, columns, out_height, out_columns = sizes[:8]
        window_height, _, stride_down, _, above, before = sizes[8:14]
        spikes_at, tables_at, bias_at = spikes.ctypes.data, tables.ctypes.data, bias.ctypes.data
        behind_at = addresses(behind)
        plane_places = steps * samples * height * columns
        blocks = outputs // width // groups
        for block in range(outputs // width):
            first_byte = spikes_at + block // blocks * part
            first_table = tables_at + block * window_height * line_bytes
            constant = load(bias_at + block * row_bytes, width, FLOAT)
            for sample in range(samples):
                for y in range(out_height):
                    top = max(0, above - y * stride_down)
                    bottom = min(window_height, height + above - y * stride_down)
                    for step in range(steps):
                        image = step * samples + sample
                        line = (image * height + y * stride_down - above) * columns - before
                        kept = ((sample * out_height + y) * out_columns) * outputs + block * width
                        place = ((image * out_height + y) * out_columns) * outputs + block * width
                        one, two = zeros(width, size), zeros(width, size)
                        for x in range(out_columns + 2):
                            left, middle, right = zeros(width, size), zeros(width, size), zeros(width, size)
                            if before <= x < columns + before:
                                for plane in range(planes - 1, -1, -1):
                                    corner_at = first_byte + (plane * plane_places + line + x) * position
                                    if planes > 1:
                                        left, middle, right = add(left, left), add(middle, middle), add(right, right)
                                        bits = 0
                                        for down in range(top, bottom):
                                            for k in range(0, part, unit):
                                                bits |= word(corner_at + down * columns * position + k, unit)
                                        if bits == 0:
                                            continue
                                    for down in range(top, bottom):
                                        here_at = corner_at + down * columns * position
                                        table = first_table + down * line_bytes
                                        for k in range(part):
                                            entry = table + word(here_at + k, 1) * entry_bytes + k * table_bytes
                                            left = add(left, load(entry, width, size))
                                            middle = add(middle, load(entry + part_bytes, width, size))
                                            right = add(right, load(entry + 2 * part_bytes, width, size))
                            if x > 1:
                                sums = add(as_floats(add(one, right)), constant)
                                finish(sums, fires, addend, place, kept, block * width, behind_at, ends)
                                kept += outputs
                                place += outputs
                            one, two = add(two, middle), left

    return loop


@functools.cache
def convolve_depthwise(width: int, fires: int, addend: int) -> Callable[..., None]:
    """A convolution that keeps channels apart.

    Args:
        width: Channels at a time.
        fires: Which neurons the sums charge.
        addend: What to add to the sums.

    The loop takes inputs ``[planes, T, N, ...]`` and the weights ``[planes, window height, window columns, channels]``.
    """

    def loop(
        spikes: Any,
        weights: Any,
        bias: Any,
        behind: tuple[Any, ...],
        ends: tuple[Any, Any],
        sizes: tuple[int, ...],
    ) -> None:
        steps, samples, channels, _, height, columns, out_height, out_columns = sizes[:8]
        window_height, window_columns, stride_down, stride_across, above, before, planes = sizes[8:15]
        spikes_at, weights_at, bias_at = spikes.ctypes.data, weights.ctypes.data, bias.ctypes.data
        behind_at = addresses(behind)
        for sample in range(samples):
            for y in range(out_height):
                top = y * stride_down - above
                for step in range(steps):
                    image = step * samples + sample
                    for x in range(out_columns):
                        left = x * stride_across - before
                        for first in range(0, channels, width):
                            total = load(bias_at + first * FLOAT, width, FLOAT)
                            for part_of_window in range(planes * window_height):
                                plane, down = part_of_window // window_height, part_of_window % window_height
                                line = top + down
                                if line < 0 or line >= height:
                                    continue
                                row_start = ((plane * steps * samples + image) * height + line) * columns
                                for across in range(max(0, -left), min(window_columns, columns - left)):
                                    weight = (part_of_window * window_columns + across) * channels + first
                                    here = (row_start + left + across) * channels + first
                                    row = load(weights_at + weight * FLOAT, width, FLOAT)
                                    total = add(total, scaled(row, spikes_at + here // BITS))
                            place = ((image * out_height + y) * out_columns + x) * channels + first
                            kept = ((sample * out_height + y) * out_columns + x) * channels + first
                            finish(total, fires, addend, place, kept, first, behind_at, ends)

    return loop
