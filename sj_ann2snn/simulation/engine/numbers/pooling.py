"""Cumulative max pools of numbers, in one pass through memory."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ....support.compiled import compiled_loop
from ..compiled.arrays import channels_innermost, flat
from ..packed.pools import pools_packed, windows_of
from . import kernels

__all__ = ["pool_in_one_pass"]

WIDTHS = (64, 32, 16, 8, 4)
"""Channels to take at a time."""


def pool_in_one_pass(pool: Any, x_seq: Tensor) -> Tensor | None:
    """The output of a cumulative max pool for images ``[T, N, C, height, columns]`` as channels_last; None if this does
    not apply."""
    if x_seq.dtype != torch.float32 or x_seq.device.type != "cpu" or x_seq.dim() != 5 or not x_seq.numel():
        return None
    steps, samples, channels, *places = x_seq.shape
    inner = x_seq.movedim(2, -1)
    if channels < min(WIDTHS) or not inner.is_contiguous() or not pools_packed(pool):
        return None
    windows = windows_of(pool, tuple(places))
    if windows is None or compiled_loop(kernels.fire) is None:
        return None
    from .pool_kernel import pool_numbers

    total = _memory(pool.cumulative, (samples, channels, *places))
    emitted = _memory(pool.emitted, (samples, channels, *windows.outputs))
    out = torch.empty(steps, samples, *windows.outputs, channels, dtype=torch.float32)
    geometry = *windows.inputs, *windows.outputs, *windows.window, *windows.stride, *windows.padding
    loop: Any = compiled_loop(pool_numbers(*_widths(channels)))
    loop(*map(flat, (inner, total, emitted, out)), (steps, samples, channels, *geometry))
    pool.cumulative, pool.emitted = total.movedim(-1, 1), emitted.movedim(-1, 1)
    return out.movedim(-1, 2)


def _widths(channels: int) -> tuple[int, int]:
    """How many channels to take at a time, and how many of the rest, so that there are few such times.

    >>> _widths(64), _widths(28), _widths(10), _widths(9)
    ((64, 0), (16, 4), (8, 2), (8, 1))
    """
    fitting = [width for width in WIDTHS if width <= channels]
    rests = {width: math.gcd(channels % width, width) if channels % width else 0 for width in fitting}

    def times(width: int) -> int:
        return channels // width + (channels % width // rests[width] if rests[width] else 0)

    best = min(fitting, key=times)
    return best, rests[best]


def _memory(known: Any, shape: tuple[int, ...]) -> Tensor:
    """What a pool remembers, with its channels innermost: memory of its own that may be written to."""
    if isinstance(known, Tensor):
        return channels_innermost(known, 1)
    samples, channels, *places = shape
    return torch.zeros(samples, *places, channels, dtype=torch.float32)
