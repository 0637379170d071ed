"""Layers that read and write packed spikes: IF neurons, cumulative max pools and average pools."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ...compat import layer
from ...layers import CumulativeMaxPool
from ...support.compiled import compiled_loop
from ...support.exact_sums import averaged_by_halves
from ...support.shapes import pair
from .loops import BITS
from .packed import PackedCounts, PackedSpikes, channels_innermost, flat, widest

__all__ = [
    "average_packed",
    "averages_packed",
    "fire_packed",
    "limit",
    "pool_packed",
    "pools_packed",
    "potential_of",
]

MOST_AVERAGED = 16
"""Largest window of an average pool whose spikes are counted in bits."""


def fire_packed(neuron: Any, x_seq: Tensor) -> PackedSpikes:
    """The spikes of an IF neuron for the currents ``[T, N, C, ...]``, which may be one step repeated."""
    from .packed_kernels import fire_bits

    steps = x_seq.shape[0]
    same = x_seq.stride(0) == 0
    currents = channels_innermost(x_seq[:1] if same else x_seq, 2)
    potential = potential_of(neuron, x_seq.shape[1:])
    bits = torch.empty(steps, *currents.shape[1:-1], currents.shape[-1] // BITS, dtype=torch.uint8)
    loop: Any = compiled_loop(fire_bits(widest(potential.numel())))
    loop(flat(currents), 0 if same else potential.numel(), flat(potential), limit(neuron), flat(bits), steps)
    neuron.v = potential.movedim(-1, 1)
    return PackedSpikes(bits)


def potential_of(neuron: Any, shape: tuple[int, ...]) -> Tensor:
    """A neuron's membrane potential for currents of the `shape` ``(N, C, ...)``, channels innermost: memory of its own
    that may be written to."""
    v = neuron.v
    if isinstance(v, Tensor) and v.shape == shape:
        return channels_innermost(v, 1)
    samples, channels, *places = shape
    return torch.full((samples, *places, channels), float(v) if isinstance(v, (int, float)) else 0.0)


def limit(neuron: Any) -> Any:
    """The threshold in single precision."""
    return torch.tensor(float(neuron.v_threshold)).numpy()[()]


def pools_packed(pool: nn.Module) -> bool:
    """True for a pool that `pool_packed` can stand for: of images, without gaps in its windows."""
    if type(pool) is not CumulativeMaxPool or pool.spatial != 2 or pool.ceil_mode:
        return False
    return pair(pool.dilation) == (1, 1)


def pool_packed(pool: Any, spikes: PackedSpikes) -> PackedSpikes | None:
    """The output of a cumulative max pool; its memory holds whole numbers, channels innermost."""
    from .packed_kernels import pool_bits

    steps, samples, channels, height, columns = spikes.shape
    window, stride, padding = pair(pool.kernel_size), pair(pool.stride), pair(pool.padding)
    apart = window == stride and padding == (0, 0)
    size = (
        (height + 2 * padding[0] - window[0]) // stride[0] + 1,
        (columns + 2 * padding[1] - window[1]) // stride[1] + 1,
    )
    if min(size) < 1:
        return None  # the module raises the error
    if not isinstance(pool.cumulative, Tensor):
        pool.cumulative = torch.zeros(samples, height, columns, channels, dtype=torch.int16)
        pool.emitted = torch.zeros(samples, *size, channels, dtype=torch.int16)
    out = torch.empty(steps, samples, *size, channels // BITS, dtype=torch.uint8)
    loop: Any = compiled_loop(pool_bits(widest(channels), apart))
    total, emitted = pool.cumulative.contiguous(), pool.emitted.contiguous()
    sizes = (steps, samples, channels, height, columns, *size, *window, *stride, *padding)
    loop(*map(flat, (spikes.bits, total, emitted, out)), sizes)
    pool.cumulative, pool.emitted = total, emitted
    return PackedSpikes(out)


def averages_packed(pool: nn.Module) -> bool:
    """True for an average pool that `average_packed` can stand for: of images, within them, of a power of two of
    spikes."""
    if type(pool) not in (nn.AvgPool2d, layer.AvgPool2d) or pool._forward_hooks or pool._forward_pre_hooks:
        return False
    return 1 < averaged_by_halves(pool) <= MOST_AVERAGED and pair(pool.padding) == (0, 0) and not pool.ceil_mode


def average_packed(pool: Any, spikes: PackedSpikes) -> PackedCounts | None:
    """The output of an average pool."""
    from .packed_kernels import average_bits

    steps, samples, channels, *places = spikes.shape
    if len(places) != 2:
        return None
    window, stride = pair(pool.kernel_size), pair(pool.stride)
    size = [(length - part) // step + 1 for length, part, step in zip(places, window, stride, strict=True)]
    if min(size) < 1:
        return None  # the module raises the error
    taken = averaged_by_halves(pool)
    out = torch.empty(taken.bit_length(), steps, samples, *size, channels // BITS, dtype=torch.uint8)
    loop: Any = compiled_loop(average_bits(len(out), math.gcd(channels // BITS, 8)))
    loop(flat(spikes.bits), flat(out), steps * samples, channels // BITS, (*places, *size, *window, *stride))
    return PackedCounts(out, 1 / taken)
