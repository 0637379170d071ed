"""Kernels over spikes in bytes, for Triton: a byte for each neuron, those of the channels of a position side by side.

Sums of weights are sums of integers, so their order does not matter: the kernels give the same spikes as a CPU does.

`tl.zeros`, `tl.max` and the like are functions of Triton's own, compiled as it is imported; without them, Triton's
interpreter can run the kernels whenever the tests ask for it.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["NOTHING", "NUMBERS", "SPIKES", "convolve", "fire", "pool"]

NOTHING, NUMBERS, SPIKES = (tl.constexpr(kind) for kind in range(3))
"""What is added to the currents of a convolution."""


@triton.jit
def larger(one, other):  # type: ignore[no-untyped-def]
    """The larger of two numbers."""
    return tl.maximum(one, other)


@triton.jit(do_not_specialize=["stride", "steps"])  # type: ignore[untyped-decorator]  # triton is untyped
def fire(  # type: ignore[no-untyped-def]
    currents,
    stride,
    potential,
    thresholds,
    spikes,
    neurons,
    steps,
    low,
    high,
    CHANNELS: tl.constexpr,
    BOUNDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Integrates currents ``[T, neurons]`` and writes the spikes ``[T, neurons]``; `stride` is 0 for the same currents
    at every step. There is a threshold for each channel. The potential saturates at `low` and `high` if it is
    `BOUNDED`."""
    one = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    alive = one < neurons
    v = tl.load(potential + one, mask=alive, other=0.0)
    threshold = tl.load(thresholds + one % CHANNELS)
    x_at, out_at = currents + one, spikes + one
    for _ in range(steps):
        v += tl.load(x_at, mask=alive, other=0.0)
        if BOUNDED:
            v = tl.minimum(tl.maximum(v, low), high)
        fires = v >= threshold
        v = tl.where(fires, v - threshold, v)
        tl.store(out_at, fires.to(tl.int8), mask=alive)
        x_at += stride
        out_at += neurons
    tl.store(potential + one, v, mask=alive)


@triton.jit(do_not_specialize=["steps", "samples"])  # type: ignore[untyped-decorator]
def convolve(  # type: ignore[no-untyped-def]
    codes,
    weights,
    grid,
    bias,
    added,
    factors,
    potential,
    thresholds,
    out,
    steps,
    samples,
    low,
    high,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    HEIGHT: tl.constexpr,
    COLUMNS: tl.constexpr,
    OUT_HEIGHT: tl.constexpr,
    OUT_COLUMNS: tl.constexpr,
    WINDOW_HEIGHT: tl.constexpr,
    WINDOW_COLUMNS: tl.constexpr,
    DOWN: tl.constexpr,
    ACROSS: tl.constexpr,
    ABOVE: tl.constexpr,
    BEFORE: tl.constexpr,
    DILATED_DOWN: tl.constexpr,
    DILATED_ACROSS: tl.constexpr,
    DIGITS: tl.constexpr,
    ALL_OUTPUTS: tl.constexpr,
    ALL_TERMS: tl.constexpr,
    KIND: tl.constexpr,
    FIRES: tl.constexpr,
    BOUNDED: tl.constexpr,
    BLOCK_PLACES: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_TERMS: tl.constexpr,
):
    """Currents ``[T, N, height, columns, outputs]``, or the spikes of the IF neurons that they charge, see `fire`.

    A program computes some outputs at some positions, step by step: sums, potentials and thresholds stay in registers.
    A term of a sum is a position of the window and an input channel; `weights` ``[digits, outputs, terms]`` are the
    digits to the base 256 of integers, which `grid` scales, with zeros up to whole blocks.
    """
    TERMS: tl.constexpr = WINDOW_HEIGHT * WINDOW_COLUMNS * INPUTS
    places = samples * (OUT_HEIGHT * OUT_COLUMNS)
    place = tl.program_id(0) * BLOCK_PLACES + tl.arange(0, BLOCK_PLACES)
    alive = place < places
    sample = place // (OUT_HEIGHT * OUT_COLUMNS)
    top = place % (OUT_HEIGHT * OUT_COLUMNS) // OUT_COLUMNS * DOWN - ABOVE
    left = place % OUT_COLUMNS * ACROSS - BEFORE

    output = tl.program_id(1) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    wanted = output < OUTPUTS
    unit = tl.load(grid + output, mask=wanted, other=0.0)
    constant = tl.load(bias + output, mask=wanted, other=0.0)
    inside = alive[:, None] & wanted[None, :]
    here = place[:, None].to(tl.int64) * OUTPUTS + output[None, :]
    if KIND == SPIKES:
        factor = tl.load(factors + output, mask=wanted, other=0.0)
    if FIRES:
        v = tl.load(potential + here, mask=inside, other=0.0)
        threshold = tl.load(thresholds + output, mask=wanted, other=1.0)[None, :]

    corner = codes + sample.to(tl.int64) * (HEIGHT * COLUMNS * INPUTS)
    out_at, added_at = out + here, added + here
    for _ in range(steps):
        sum_0 = tl.full((BLOCK_PLACES, BLOCK_OUTPUTS), 0, tl.int32)
        sum_1 = tl.full((BLOCK_PLACES, BLOCK_OUTPUTS), 0, tl.int32)
        sum_2 = tl.full((BLOCK_PLACES, BLOCK_OUTPUTS), 0, tl.int32)
        sum_3 = tl.full((BLOCK_PLACES, BLOCK_OUTPUTS), 0, tl.int32)
        for first in range(0, ALL_TERMS, BLOCK_TERMS):
            term = first + tl.arange(0, BLOCK_TERMS)
            tap = term // INPUTS
            row = top[:, None] + (tap // WINDOW_COLUMNS * DILATED_DOWN)[None, :]
            column = left[:, None] + (tap % WINDOW_COLUMNS * DILATED_ACROSS)[None, :]
            known = alive[:, None] & (row >= 0) & (row < HEIGHT) & (column >= 0) & (column < COLUMNS)
            if ALL_TERMS > TERMS:
                known = known & (term < TERMS)[None, :]
            at = (row * COLUMNS + column) * INPUTS + (term % INPUTS)[None, :]
            x = tl.load(corner[:, None] + at, mask=known, other=0)
            w_at = weights + output[None, :] * ALL_TERMS + term[:, None]
            sum_0 = tl.dot(x, tl.load(w_at), sum_0, out_dtype=tl.int32)
            if DIGITS > 1:
                sum_1 = tl.dot(x, tl.load(w_at + ALL_OUTPUTS * ALL_TERMS), sum_1, out_dtype=tl.int32)
            if DIGITS > 2:
                sum_2 = tl.dot(x, tl.load(w_at + 2 * ALL_OUTPUTS * ALL_TERMS), sum_2, out_dtype=tl.int32)
            if DIGITS > 3:
                sum_3 = tl.dot(x, tl.load(w_at + 3 * ALL_OUTPUTS * ALL_TERMS), sum_3, out_dtype=tl.int32)
        total = sum_0
        if DIGITS > 1:
            total += sum_1 * 256
        if DIGITS > 2:
            total += sum_2 * 65536
        if DIGITS > 3:
            total += sum_3 * 16777216
        current = total.to(tl.float32) * unit[None, :] + constant[None, :]
        if KIND == NUMBERS:
            current += tl.load(added_at, mask=inside, other=0.0)
        if KIND == SPIKES:
            current += tl.load(added_at, mask=inside, other=0).to(tl.float32) * factor[None, :]
        if FIRES:
            v += current
            if BOUNDED:
                v = tl.minimum(tl.maximum(v, low), high)
            fires = v >= threshold
            v = tl.where(fires, v - threshold, v)
            tl.store(out_at, fires.to(tl.int8), mask=inside)
        else:
            tl.store(out_at, current, mask=inside)
        corner += samples.to(tl.int64) * (HEIGHT * COLUMNS * INPUTS)
        out_at += places.to(tl.int64) * OUTPUTS
        added_at += places.to(tl.int64) * OUTPUTS
    if FIRES:
        tl.store(potential + here, v, mask=inside)


@triton.jit(do_not_specialize=["steps", "samples"])  # type: ignore[untyped-decorator]
def pool(  # type: ignore[no-untyped-def]
    codes,
    total,
    emitted,
    out,
    steps,
    samples,
    CHANNELS: tl.constexpr,
    HEIGHT: tl.constexpr,
    COLUMNS: tl.constexpr,
    OUT_HEIGHT: tl.constexpr,
    OUT_COLUMNS: tl.constexpr,
    WINDOW_HEIGHT: tl.constexpr,
    WINDOW_COLUMNS: tl.constexpr,
    DOWN: tl.constexpr,
    ACROSS: tl.constexpr,
    ABOVE: tl.constexpr,
    BEFORE: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The growth of the largest cumulative input, see `CumulativeMaxPool`.

    `total` ``[N, height, columns, channels]``, the input so far, is only read; `emitted` ``[N, out height, out columns,
    channels]`` is brought up to date. `WINDOW` is a power of two, at least the size of a window.
    """
    one = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    outputs = samples.to(tl.int64) * (OUT_HEIGHT * OUT_COLUMNS * CHANNELS)
    alive = one < outputs
    place = one // CHANNELS
    tap = tl.arange(0, WINDOW)
    top, left = place // OUT_COLUMNS % OUT_HEIGHT * DOWN - ABOVE, place % OUT_COLUMNS * ACROSS - BEFORE
    row = top[None, :] + (tap // WINDOW_COLUMNS)[:, None]
    column = left[None, :] + (tap % WINDOW_COLUMNS)[:, None]
    known = alive[None, :] & (tap < WINDOW_HEIGHT * WINDOW_COLUMNS)[:, None]
    known = known & (row >= 0) & (row < HEIGHT) & (column >= 0) & (column < COLUMNS)
    sample = place // (OUT_HEIGHT * OUT_COLUMNS)
    at = ((sample[None, :] * HEIGHT + row) * COLUMNS + column) * CHANNELS + (one % CHANNELS)[None, :]
    so_far = tl.where(known, tl.load(total + at, mask=known, other=0).to(tl.int32), -(1 << 30))
    before = tl.load(emitted + one, mask=alive, other=0).to(tl.int32)
    x_at, out_at = codes + at, out + one
    for _ in range(steps):
        so_far += tl.load(x_at, mask=known, other=0).to(tl.int32)
        largest = tl.reduce(so_far, 0, larger)
        tl.store(out_at, (largest - before).to(tl.int8), mask=alive)
        before = largest
        x_at += samples.to(tl.int64) * (HEIGHT * COLUMNS * CHANNELS)
        out_at += outputs
    tl.store(emitted + one, before.to(tl.int16), mask=alive)
