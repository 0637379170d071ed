"""Layers that read and write bits: IF neurons, cumulative max pools and average pools."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ....support.compiled import compiled_loop
from ....support.exact_sums import averaged_by_halves
from ..compiled.arrays import channels_innermost, flat, whole_bytes, widest
from ..compiled.constants import BITS
from ..packed.neurons import Limits, limits, potential_of
from ..packed.pools import pooling, windows_of
from .values import PackedCounts, PackedSpikes

__all__ = ["average_packed", "fire_packed", "pool_packed", "subtract_packed", "thresholds_in_bytes"]


def fire_packed(neuron: Any, x_seq: Tensor, *, negated: bool = False) -> PackedSpikes:
    """The spikes of an IF neuron for the currents ``[T, N, C, ...]``, which may be one step repeated; or for what they
    are below zero."""
    from .kernels import fire_bits

    steps, channels = x_seq.shape[0], x_seq.shape[2]
    same = x_seq.stride(0) == 0
    currents = whole_bytes(channels_innermost(x_seq[:1] if same else x_seq, 2))
    potential = whole_bytes(potential_of(neuron, x_seq.shape[1:]))
    bits = torch.empty(steps, *currents.shape[1:-1], currents.shape[-1] // BITS, dtype=torch.uint8)
    found = limits(neuron, channels)
    width = widest(potential.numel() if found.same else potential.shape[-1])
    loop: Any = compiled_loop(fire_bits(width, found.fires, negated))
    thresholds = found.thresholds[:1].expand(width).contiguous() if found.same else thresholds_in_bytes(found)
    loop(
        flat(currents),
        0 if same else potential.numel(),
        flat(potential),
        flat(thresholds),
        found.ends,
        flat(bits),
        steps,
    )
    neuron.v = potential[..., :channels].movedim(-1, 1)
    return PackedSpikes(bits, channels)


def subtract_packed(spikes: PackedSpikes, others: PackedSpikes, factors: Tensor | None) -> Tensor:
    """The spikes less others, as numbers ``[T, N, C, ...]``.

    Args:
        spikes: The spikes.
        others: The others, of the same shape.
        factors: ``[C]``, by which these are multiplied; None for one.
    """
    from .kernels import subtract_bits

    channels = spikes.shape[2]
    by_channel = whole_bytes(torch.ones(channels, dtype=torch.float32) if factors is None else factors)
    numbers = torch.empty(*spikes.bits.shape[:-1], len(by_channel), dtype=torch.float32)
    loop: Any = compiled_loop(subtract_bits(widest(len(by_channel))))
    loop(*map(flat, (spikes.bits, others.bits, by_channel, numbers)))
    return numbers[..., :channels].contiguous().movedim(-1, 2)


def thresholds_in_bytes(limits: Limits) -> Tensor:
    """The thresholds, with one that nothing reaches for every bit behind them."""
    return whole_bytes(limits.thresholds, 1.0)


def pool_packed(pool: Any, spikes: PackedSpikes) -> PackedSpikes | None:
    """The output of a cumulative max pool."""
    from .kernels import pool_bits

    steps, samples, channels, *places = spikes.shape
    size = spikes.bits.shape[-1]
    found = pooling(pool, (steps, samples, size * BITS, *places))
    if found is None:
        return None
    out = torch.empty(steps, samples, *found.places, size, dtype=torch.uint8)
    loop: Any = compiled_loop(pool_bits(widest(size * BITS), found.apart))
    loop(*map(flat, (spikes.bits, found.total, found.emitted, out)), found.sizes)
    found.leave(pool)
    return PackedSpikes(out, channels)


def average_packed(pool: Any, spikes: PackedSpikes) -> PackedCounts | None:
    """The output of an average pool."""
    from .kernels import average_bits

    steps, samples, channels, *places = spikes.shape
    windows = windows_of(pool, tuple(places))
    if windows is None:
        return None
    taken, size = averaged_by_halves(pool), spikes.bits.shape[-1]
    out = torch.empty(taken.bit_length(), steps, samples, *windows.places, size, dtype=torch.uint8)
    loop: Any = compiled_loop(average_bits(len(out), math.gcd(size, 8)))
    sizes = *windows.inputs, *windows.outputs, *windows.window, *windows.stride
    loop(flat(spikes.bits), flat(out), steps * samples, size, sizes)
    return PackedCounts(out, 1 / taken, channels)
