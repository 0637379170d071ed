"""Layers that read and write bits: IF neurons, cumulative max pools and average pools."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ....support.compiled import compiled_loop
from ....support.exact_sums import averaged_by_halves
from ....support.shapes import pair
from ..compiled.arrays import channels_innermost, flat, widest
from ..compiled.constants import BITS
from ..packed.neurons import limits, potential_of
from ..packed.pools import pooled_size, pooling
from .values import PackedCounts, PackedSpikes

__all__ = ["average_packed", "fire_packed", "pool_packed"]


def fire_packed(neuron: Any, x_seq: Tensor) -> PackedSpikes:
    """The spikes of an IF neuron for the currents ``[T, N, C, ...]``, which may be one step repeated."""
    from .kernels import fire_bits

    steps = x_seq.shape[0]
    same = x_seq.stride(0) == 0
    currents = channels_innermost(x_seq[:1] if same else x_seq, 2)
    potential = potential_of(neuron, x_seq.shape[1:])
    bits = torch.empty(steps, *currents.shape[1:-1], currents.shape[-1] // BITS, dtype=torch.uint8)
    found = limits(neuron, potential.shape[-1])
    width = widest(potential.numel() if found.same else potential.shape[-1])
    loop: Any = compiled_loop(fire_bits(width, found.fires))
    thresholds = found.thresholds[:1].expand(width).contiguous() if found.same else found.thresholds
    loop(
        flat(currents),
        0 if same else potential.numel(),
        flat(potential),
        flat(thresholds),
        found.ends,
        flat(bits),
        steps,
    )
    neuron.v = potential.movedim(-1, 1)
    return PackedSpikes(bits)


def pool_packed(pool: Any, spikes: PackedSpikes) -> PackedSpikes | None:
    """The output of a cumulative max pool."""
    from .kernels import pool_bits

    found = pooling(pool, spikes.shape)
    if found is None:
        return None
    steps, samples, channels, *_ = spikes.shape
    out = torch.empty(steps, samples, *found.size, channels // BITS, dtype=torch.uint8)
    loop: Any = compiled_loop(pool_bits(widest(channels), found.apart))
    loop(*map(flat, (spikes.bits, found.total, found.emitted, out)), found.sizes)
    found.leave(pool)
    return PackedSpikes(out)


def average_packed(pool: Any, spikes: PackedSpikes) -> PackedCounts | None:
    """The output of an average pool."""
    from .kernels import average_bits

    steps, samples, channels, *places = spikes.shape
    if len(places) != 2:
        return None
    size = pooled_size(pool, (places[0], places[1]))
    if size is None:
        return None
    window, stride = pair(pool.kernel_size), pair(pool.stride)
    taken = averaged_by_halves(pool)
    out = torch.empty(taken.bit_length(), steps, samples, *size, channels // BITS, dtype=torch.uint8)
    loop: Any = compiled_loop(average_bits(len(out), math.gcd(channels // BITS, 8)))
    loop(flat(spikes.bits), flat(out), steps * samples, channels // BITS, (*places, *size, *window, *stride))
    return PackedCounts(out, 1 / taken)
