"""Inner loops compiled by numba where it is installed (``pip install "sj-ann2snn[fast]"``).

They do the same arithmetic in the same order as the loops of torch operations that they stand for, with one pass
through memory instead of one for each operation, and hold Python's lock at no time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["compiled", "flat", "is_dense"]

BLOCK = 4096
"""Neurons whose potentials stay in a core's nearest cache while all steps run over them."""


@functools.cache
def compiled(name: str) -> Callable[..., None] | None:
    """The compiled loop of that name, None without numba.

    ``"fire"``: ``(x, spikes, potential, threshold, steps, x_stride, spikes_stride)``;
    ``"fire_in_place"``: ``(x, potential, threshold, steps, stride)``, spikes where the currents were.
    Arrays are flat; a stride is the distance from one step to the next.
    """
    try:
        from numba import config, njit
    except ImportError:
        return None
    if config.DISABLE_JIT:
        return None
    options = {"nogil": True, "error_model": "numpy"}
    try:
        loop: Callable[..., None] = njit(**options, cache=True)(_LOOPS[name])
    except RuntimeError:  # there is no folder that numba may write to
        loop = njit(**options)(_LOOPS[name])
    return loop


def is_dense(x: Tensor) -> bool:
    """True for a tensor that fills its memory without gaps, images with their channels innermost included."""
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def flat(x_seq: Tensor) -> Any:
    """The memory of a sequence whose steps are dense, as a flat array."""
    steps, step = x_seq.shape[0], x_seq[0].numel()
    return torch.as_strided(x_seq, ((steps - 1) * x_seq.stride(0) + step,), (1,)).numpy()


# The arrays of `fire` must not overlap, or the compiler's vector code steps aside: hence two loops.


def _fire(x: Any, spikes: Any, potential: Any, threshold: Any, steps: int, x_stride: int, spikes_stride: int) -> None:
    for start in range(0, potential.shape[0], BLOCK):
        v = potential[start : start + BLOCK]
        for t in range(steps):
            currents = x[t * x_stride + start : t * x_stride + start + v.shape[0]]
            out = spikes[t * spikes_stride + start : t * spikes_stride + start + v.shape[0]]
            for i in range(v.shape[0]):
                charged = v[i] + currents[i]
                fires = charged >= threshold
                out[i] = fires
                v[i] = charged - threshold if fires else charged


def _fire_in_place(x: Any, potential: Any, threshold: Any, steps: int, stride: int) -> None:
    for start in range(0, potential.shape[0], BLOCK):
        v = potential[start : start + BLOCK]
        for t in range(steps):
            currents = x[t * stride + start : t * stride + start + v.shape[0]]
            for i in range(v.shape[0]):
                charged = v[i] + currents[i]
                fires = charged >= threshold
                currents[i] = fires
                v[i] = charged - threshold if fires else charged


_LOOPS = {"fire": _fire, "fire_in_place": _fire_in_place}
