"""Loops over the changes that neurons send, for numba: the channels of a position side by side.

All arrays are flat; `Changes` describes those of changes. `send_changes` stands for the loop of the neurons that a loop
is compiled for. A loop that sends changes returns nothing, but writes which image holds them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import register_jitable

from ..compiled.constants import FLOAT, WHOLE
from ..compiled.lines import copy, count_nonzero
from ..compiled.neuron_loops import send_changes
from ..compiled.row_sums import AT_ONCE, LENGTHS, MOST_PARTS, add_rows
from ..compiled.vectors import lowest, nonzero

__all__ = [
    "CONVOLVED",
    "NOTHING",
    "SCALED",
    "average_changes",
    "charge_changes",
    "count_changes",
    "count_outputs",
    "fire_changes",
    "pool_changes",
    "write_outputs",
]

WIDTH = 16
"""Changes to look at a time."""

NOTHING, SCALED, CONVOLVED = 0, 1, 2
"""What charges neurons, twice: no changes, changes times a factor for each channel, or a convolution of them."""


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def any_of(sent: Any) -> int:
    """1 if one of them is not zero."""
    found = False
    for i in range(sent.shape[0]):
        found |= sent[i] != 0
    return 1 if found else 0


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def add_scaled(line: Any, sent: Any, factors: Any) -> None:
    """Add changes times their factors to a line."""
    for i in range(line.shape[0]):
        line[i] += sent[i] * factors[i]


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def list_changes(sent: Any, start: int, count: int, rows: Any, factors: Any, end: int) -> int:
    """List those that are not zero, with their sizes, behind those listed so far; returns where the list ends."""
    at = sent.ctypes.data + start * FLOAT
    whole = count - count % WIDTH
    for first in range(0, whole, WIDTH):
        bits = nonzero(at + first * FLOAT, WIDTH)
        while bits:
            i = first + lowest(bits)
            rows[end] = i
            factors[end] = sent[start + i]
            end += 1
            bits &= bits - 1
    for i in range(whole, count):
        if sent[start + i]:
            rows[end] = i
            factors[end] = sent[start + i]
            end += 1
    return end


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def add_image_scaled(source: Any, image: int, padded: Any, changed: Any, sizes: Any) -> None:
    """Add an image of changes, times their factors, to the mean currents."""
    sent, live, _, factors = source
    outputs, height, columns, above, before, line = sizes
    length = columns * outputs
    for y in range(height):
        start = image * height + y
        if any_of(live[start * columns : (start + 1) * columns]):
            to = ((above + y) * line + before) * outputs
            add_scaled(padded[to : to + length], sent[start * length : (start + 1) * length], factors)
            changed[above + y] = 1


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def add_image_convolved(source: Any, image: int, padded: Any, changed: Any, lists: Any, sizes: Any) -> None:
    """Add a convolution of an image of changes to the mean currents: each change adds its rows of weights."""
    sent, live, _, weights, geometry = source
    inputs, source_height, source_columns, window_height, window_columns, down, across, above, before = geometry
    outputs, _, _, margin_above, margin_before, line = sizes
    rows, factors, starts, lines, columns, rests_down, rests_across = lists
    places = source_height * source_columns
    count, end = 0, 0
    for place in range(places):
        if live[image * places + place]:
            y, x = place // source_columns + above, place % source_columns + before
            starts[count] = end
            lines[count], rests_down[count] = margin_above + y // down, y % down
            columns[count], rests_across[count] = margin_before + x // across, x % across
            end = list_changes(sent, (image * places + place) * inputs, inputs, rows, factors, end)
            count += 1
    starts[count] = end
    weights_at, rows_at, factors_at, padded_at = (
        weights.ctypes.data,
        rows.ctypes.data,
        factors.ctypes.data,
        padded.ctypes.data,
    )
    # A position at y, x reaches the outputs at (y + above - row) / down for the rows of the window that leave no rest,
    # and likewise across: one beside the other, the last row and column first. So the weights are stored, by the rest.
    table = weights_at
    for rest_down in range(min(down, window_height)):
        parts = (window_height - rest_down + down - 1) // down
        for rest_across in range(min(across, window_columns)):
            reached = (window_columns - rest_across + across - 1) // across
            length = reached * outputs
            begin = 0
            while begin < length:
                size = LENGTHS[0]
                for one_length in LENGTHS:
                    if one_length <= AT_ONCE and one_length <= length - begin:
                        size = one_length
                        break
                together = min(MOST_PARTS, parts, AT_ONCE // size)
                for part in range(0, parts, together):
                    some = min(together, parts - part)
                    for one in range(count):
                        if rests_down[one] != rest_down or rests_across[one] != rest_across:
                            continue
                        y = lines[one] - parts + 1 + part
                        to = y * line + columns[one] - reached + 1
                        add_rows(
                            padded_at + (to * outputs + begin) * FLOAT,
                            line * outputs * FLOAT,
                            table + (part * length + begin) * FLOAT,
                            length * FLOAT,
                            parts * length * FLOAT,
                            rows_at + starts[one] * WHOLE,
                            factors_at + starts[one] * FLOAT,
                            starts[one + 1] - starts[one],
                            some,
                            size,
                        )
                        for into in range(y, y + some):
                            changed[into] = 1
                begin += size
            table += inputs * parts * length * FLOAT


@functools.cache
def charge_changes(first: int, second: int) -> Callable[..., None]:
    """Neurons that receive changes from up to two sources.

    Args:
        first: What the first source is.
        second: What the second one is.

    The loop takes the sources, each as changes, live, images, and the factors of a line or the weights and the
    geometry; the mean currents and values ``[N, ..., C]``, which it changes; the memory for the changes sent; and the
    sizes: steps, samples, channels, height, columns, and the margins of `padded`, above and below and to both sides.
    """

    def loop(
        sources: tuple[Any, Any],
        means: Any,
        values: Any,
        out: tuple[Any, Any, Any],
        constants: tuple[Any, ...],
        memory: tuple[Any, Any, Any],
        sizes: tuple[int, ...],
    ) -> None:
        changes, live, images = out
        padded, changed, lists = memory
        steps, samples, outputs, height, columns, above, before = sizes
        places, line, length = height * columns, columns + 2 * before, columns * outputs
        own = outputs, height, columns, above, before, line
        used = 0
        for sample in range(samples):
            for y in range(height):
                start, to = (sample * height + y) * length, ((above + y) * line + before) * outputs
                copy(means[start : start + length], padded[to : to + length])
            changed[:] = 1
            waiting = True  # there is a neuron to ask
            for step in range(steps):
                at = step * samples + sample
                if first == CONVOLVED:  # noqa: SIM102 - numba leaves out what a constant excludes
                    if sources[0][2][at] >= 0:
                        add_image_convolved(sources[0], sources[0][2][at], padded, changed, lists, own)
                        waiting = True
                if second == CONVOLVED:  # noqa: SIM102
                    if sources[1][2][at] >= 0:
                        add_image_convolved(sources[1], sources[1][2][at], padded, changed, lists, own)
                        waiting = True
                if second == SCALED:  # noqa: SIM102
                    if sources[1][2][at] >= 0:
                        add_image_scaled(sources[1], sources[1][2][at], padded, changed, own)
                        waiting = True
                images[at] = -1
                if not waiting:
                    continue
                waiting = False
                for y in range(height):
                    place = used * places + y * columns
                    live[place : place + columns] = 0
                    if not changed[above + y]:
                        continue
                    changed[above + y] = 0
                    start, to = (sample * height + y) * length, ((above + y) * line + before) * outputs
                    sent = changes[place * outputs : place * outputs + length]
                    send_changes(padded[to : to + length], values[start : start + length], sent, constants)
                    for x in range(columns):
                        if any_of(sent[x * outputs : (x + 1) * outputs]):
                            live[place + x] = 1
                            changed[above + y] = 1  # these neurons have another value now
                    if changed[above + y]:
                        waiting = True
                if waiting:
                    images[at] = used
                    used += 1
            for y in range(height):
                start, to = (sample * height + y) * length, ((above + y) * line + before) * outputs
                copy(padded[to : to + length], means[start : start + length])

    return loop


def fire_changes(
    currents: Any,
    rows: Any,
    totals: Any,
    values: Any,
    out: tuple[Any, Any, Any],
    constants: tuple[Any, ...],
    clock: Any,
    one: Any,
    line: Any,
    sizes: tuple[int, ...],
) -> None:
    """Neurons that receive currents ``[rows, N, ..., C]``, one row at each step; `line` is memory for a sample's."""
    changes, live, images = out
    steps, samples, channels, places = sizes
    count = places * channels
    used = 0
    for sample in range(samples):
        total, value = totals[sample * count : (sample + 1) * count], values[sample * count : (sample + 1) * count]
        now = clock
        for step in range(steps):
            now += one
            at = step * samples + sample
            begin = (rows[step] * samples + sample) * count
            add_up(total, currents[begin : begin + count], now, line)
            sent = changes[used * count : (used + 1) * count]
            send_changes(line, value, sent, constants)
            images[at] = -1
            for place in range(places):
                found = any_of(sent[place * channels : (place + 1) * channels])
                live[used * places + place] = found
                if found:
                    images[at] = used
            if images[at] >= 0:
                used += 1


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def add_up(total: Any, currents: Any, steps: Any, means: Any) -> None:
    """Add the currents to their sum, whose mean over so many steps is written."""
    for i in range(total.shape[0]):
        total[i] += currents[i]
        means[i] = total[i] / steps


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def windows_over(position: int, window: int, stride: int, count: int) -> Any:
    """The numbers of the windows, of so many, that a position lies in."""
    return range(max(0, (position - window) // stride + 1), min(count, position // stride + 1))


def pool_changes(
    source: tuple[Any, Any, Any], totals: Any, largest: Any, out: tuple[Any, Any, Any], dirty: Any, sizes: Any
) -> None:
    """The changes of the largest value in each window: those of a cumulative max pool.

    `totals` ``[N, height, columns, C]`` and `largest` ``[N, out height, out columns, C]`` are the values, which
    change, and `dirty` is memory for a truth value for each window.
    """
    sent, live, images = source
    out_sent, out_live, out_images = out
    steps, samples, channels, height, columns, out_height, out_columns = sizes[:7]
    window_height, window_columns, down, across, above, before = sizes[7:]
    places, windows = height * columns, out_height * out_columns
    used = 0
    for sample in range(samples):
        for step in range(steps):
            at = step * samples + sample
            out_images[at] = -1
            image = images[at]
            if image < 0:
                continue
            dirty[:] = 0
            for place in range(places):
                if not live[image * places + place]:
                    continue
                start, to = (image * places + place) * channels, (sample * places + place) * channels
                add_changes(totals[to : to + channels], sent[start : start + channels])
                y, x = place // columns + above, place % columns + before
                for line in windows_over(y, window_height, down, out_height):
                    for column in windows_over(x, window_columns, across, out_columns):
                        dirty[line * out_columns + column] = 1
            for window in range(windows):
                found = 0
                to = (used * windows + window) * channels
                if not dirty[window]:
                    out_sent[to : to + channels] = 0
                else:
                    y, x = window // out_columns * down - above, window % out_columns * across - before
                    mine = (sample * windows + window) * channels
                    found = change_largest(
                        totals[sample * places * channels : (sample + 1) * places * channels],
                        largest[mine : mine + channels],
                        out_sent[to : to + channels],
                        (max(0, y), min(height, y + window_height), max(0, x), min(columns, x + window_columns)),
                        columns,
                    )
                out_live[used * windows + window] = found
                if found:
                    out_images[at] = used
            if out_images[at] >= 0:
                used += 1


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def add_changes(total: Any, sent: Any) -> None:
    for i in range(total.shape[0]):
        total[i] += sent[i]


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def change_largest(totals: Any, largest: Any, out: Any, window: tuple[int, int, int, int], columns: int) -> int:
    """Write by how much the largest values of a window have changed; returns 1 if any has."""
    top, bottom, left, right = window
    channels = largest.shape[0]
    changed = False
    for i in range(channels):
        most = totals[(top * columns + left) * channels + i]
        for line in range(top, bottom):
            for column in range(left, right):
                most = max(most, totals[(line * columns + column) * channels + i])
        change = most - largest[i]
        changed |= change != 0
        out[i] = change
        largest[i] = most
    return 1 if changed else 0


def average_changes(source: tuple[Any, Any, Any], out: tuple[Any, Any, Any], factor: Any, sizes: Any) -> None:
    """The sums of the changes in each window, which lies within the image, times a factor."""
    sent, live, images = source
    out_sent, out_live, out_images = out
    steps, samples, channels, height, columns, out_height, out_columns = sizes[:7]
    window_height, window_columns, down, across = sizes[7:]
    places, windows = height * columns, out_height * out_columns
    used = 0
    for sample in range(samples):
        for step in range(steps):
            at = step * samples + sample
            out_images[at] = -1
            image = images[at]
            if image < 0:
                continue
            out_sent[used * windows * channels : (used + 1) * windows * channels] = 0
            for place in range(places):
                if not live[image * places + place]:
                    continue
                start = (image * places + place) * channels
                y, x = place // columns, place % columns
                for line in windows_over(y, window_height, down, out_height):
                    for column in windows_over(x, window_columns, across, out_columns):
                        to = (used * windows + line * out_columns + column) * channels
                        add_changes(out_sent[to : to + channels], sent[start : start + channels])
            for window in range(windows):
                to = (used * windows + window) * channels
                found = multiply(out_sent[to : to + channels], factor)
                out_live[used * windows + window] = found
                if found:
                    out_images[at] = used
            if out_images[at] >= 0:
                used += 1


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def multiply(sent: Any, factor: Any) -> int:
    """Multiply changes by a factor; returns 1 if any of them is not zero."""
    found = False
    for i in range(sent.shape[0]):
        sent[i] *= factor
        found |= sent[i] != 0
    return 1 if found else 0


def count_changes(sent: Any, live: Any, images: Any, counts: Any, channels: int, samples: int) -> None:
    """How many changes there are at every step."""
    places = live.shape[0] // images.shape[0]
    for step in range(counts.shape[0]):
        for image in images[step * samples : (step + 1) * samples]:
            if image < 0:
                continue
            for place in range(image * places, (image + 1) * places):
                if live[place]:
                    counts[step] += count_nonzero(sent[place * channels : (place + 1) * channels])


def count_outputs(
    sent: Any, live: Any, images: Any, values: Any, weights: Any, counts: Any, before: int, channels: int
) -> None:
    """How many outputs ``a + t q`` are not zero at every step, each as often as the weight of its place says."""
    places, steps = weights.shape[0], counts.shape[0]
    samples, count = images.shape[0] // steps, places * channels
    for sample in range(samples):
        value = values[sample * count : (sample + 1) * count]
        settled = 0  # what is not zero without a change
        for place in range(places):
            settled += weights[place] * count_nonzero(value[place * channels : (place + 1) * channels])
        for step in range(steps):
            image = images[step * samples + sample]
            counts[step] += settled
            if image < 0:
                continue
            now = np.float32(before + step + 1)
            for place in range(places):
                if live[image * places + place]:
                    start, own = (image * places + place) * channels, place * channels
                    was, active, now_active = count_changed(
                        value[own : own + channels], sent[start : start + channels], now
                    )
                    counts[step] += weights[place] * (active - was)
                    settled += weights[place] * (now_active - was)


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def count_changed(values: Any, sent: Any, step: Any) -> tuple[int, int, int]:
    """Change values; returns how many were not zero, how many outputs are not, and how many are not any more."""
    was, active, now = 0, 0, 0
    for i in range(values.shape[0]):
        was += values[i] != 0
        active += values[i] + step * sent[i] != 0
        values[i] += sent[i]
        now += values[i] != 0
    return was, active, now


def write_outputs(
    sent: Any, live: Any, images: Any, values: Any, rows: Any, out: Any, before: int, sizes: tuple[int, ...]
) -> None:
    """The outputs ``a + t q`` for the values a, which change: ``[rows, N, ..., C]``.

    `rows` tells into which row the outputs of a step go; -1 for those of the step before, without a change.
    """
    steps, samples, channels = sizes
    count = values.shape[0] // samples
    places = count // channels
    for sample in range(samples):
        value = values[sample * count : (sample + 1) * count]
        for step in range(steps):
            if rows[step] < 0:
                continue
            image, at = images[step * samples + sample], rows[step] * samples + sample
            copy(value, out[at * count : (at + 1) * count])
            if image < 0:
                continue
            now = np.float32(before + step + 1)
            for place in range(places):
                if live[image * places + place]:
                    start = (image * places + place) * channels
                    to = at * count + place * channels
                    change_outputs(
                        value[place * channels : (place + 1) * channels],
                        sent[start : start + channels],
                        out[to : to + channels],
                        now,
                    )


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def change_outputs(values: Any, sent: Any, out: Any, step: Any) -> None:
    for i in range(values.shape[0]):
        out[i] = values[i] + step * sent[i]
        values[i] += sent[i]
