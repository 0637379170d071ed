"""Neurons and pools of spikes in bytes, by kernels for Triton.

They need Triton, which comes with torch for CUDA; without it, layers compute numbers as usual.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ....support.exact_sums import averaged_by_halves
from ....support.shapes import pair
from ..compiled.arrays import channels_innermost
from ..compiled.constants import BOUNDED
from ..packed.neurons import limits, potential_of
from ..packed.pools import pooling
from .launch import launch
from .values import Codes

__all__ = ["average_codes", "can_be_coded", "fire_codes", "pool_codes"]


FIRE_BLOCK, POOL_BLOCK = 1024, 2048
"""Neurons, and inputs of a pool, in a block."""


def can_be_coded(x_seq: Tensor) -> bool:
    """True for currents ``[T, N, C, ...]`` in single precision, of images or of plain layers."""
    return x_seq.dtype == torch.float32 and x_seq.dim() in (3, 5) and x_seq.numel() > 0


def fire_codes(neuron: Any, x_seq: Tensor, initial: Tensor | None = None) -> Codes | None:
    """The spikes of a neuron for the currents ``[T, N, C, ...]``, which may be one step repeated.

    Args:
        neuron: An IF neuron of SpikingJelly's or one of integers, see `fires_packed`.
        x_seq: The currents.
        initial: The neuron's initial potential; it has none yet.

    Returns:
        None if Triton refuses the kernel; the neuron is as it was then.
    """
    steps, channels = x_seq.shape[0], x_seq.shape[2]
    same = x_seq.stride(0) == 0
    currents = channels_innermost(x_seq[:1] if same else x_seq, 2)
    potential = potential_of(neuron, x_seq.shape[1:], initial, x_seq.device)
    codes = torch.empty(steps, *currents.shape[1:], dtype=torch.int8, device=x_seq.device)
    neurons, fires = potential.numel(), limits(neuron, channels, x_seq.device)
    arguments = currents, 0 if same else neurons, potential, fires.thresholds, codes, neurons, steps
    constants = {"CHANNELS": channels, "BOUNDED": fires.fires == BOUNDED, "BLOCK": FIRE_BLOCK}
    blocks = math.ceil(neurons / FIRE_BLOCK)
    if not launch("fire", (blocks,), codes, *arguments, *map(float, fires.ends), **constants):
        return None
    neuron.v = potential.movedim(-1, 1)
    return Codes(codes)


def pool_codes(pool: Any, spikes: Codes) -> Codes | None:
    """The output of a cumulative max pool; None if no window fits in, or if Triton refuses the kernel."""
    found = pooling(pool, spikes.shape, spikes.codes.device)
    if found is None:
        return None
    steps, samples, *sizes = found.sizes
    channels = spikes.shape[2]
    out = torch.empty(steps, samples, *found.places, channels, dtype=torch.int8, device=spikes.codes.device)
    window = 1 << (math.prod(sizes[5:7]) - 1).bit_length()
    block = max(1, POOL_BLOCK // window)
    arrays = spikes.codes, found.total, found.emitted, out
    blocks = math.ceil(out[0].numel() / block)
    if not launch("pool", (blocks,), out, *arrays, steps, samples, *sizes, WINDOW=window, BLOCK=block):
        return None
    found.total.add_(spikes.codes.sum(0, dtype=found.total.dtype))
    found.leave(pool)
    return Codes(out, spikes.unit)


def average_codes(pool: Any, spikes: Codes) -> Codes | None:
    """The output of an average pool."""
    places = spikes.shape[3:]
    window, stride = pair(pool.kernel_size), pair(pool.stride)
    if len(places) != 2 or any(part > length for part, length in zip(window, places, strict=True)):
        return None  # the module raises the error
    windows = spikes.codes.unfold(2, window[0], stride[0]).unfold(3, window[1], stride[1])
    return Codes(windows.sum((-2, -1), dtype=torch.int8).contiguous(), spikes.unit / averaged_by_halves(pool))
