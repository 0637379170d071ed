"""The neurons' inner loops for a compiler, and tensors as the flat arrays that they take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["fire", "fire_in_place", "flat", "is_dense"]

BLOCK = 4096
"""Neurons whose potentials stay in a core's nearest cache while all steps run over them."""


def is_dense(x: Tensor) -> bool:
    """True for a tensor that fills its memory without gaps, images with their channels innermost included."""
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def flat(x_seq: Tensor) -> Any:
    """The memory of a sequence whose steps are dense, as a flat array."""
    steps, step = x_seq.shape[0], x_seq[0].numel()
    return torch.as_strided(x_seq, ((steps - 1) * x_seq.stride(0) + step,), (1,)).numpy()


# The arrays of `fire` must not overlap, or the compiler's vector code steps aside: hence two loops.


def fire(x: Any, spikes: Any, potential: Any, threshold: Any, steps: int, x_stride: int, spikes_stride: int) -> None:
    """``v += x; s = v >= threshold; v -= threshold * s``; a stride is the distance from one step to the next."""
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


def fire_in_place(x: Any, potential: Any, threshold: Any, steps: int, stride: int) -> None:
    """`fire` with the spikes where the currents were."""
    for start in range(0, potential.shape[0], BLOCK):
        v = potential[start : start + BLOCK]
        for t in range(steps):
            currents = x[t * stride + start : t * stride + start + v.shape[0]]
            for i in range(v.shape[0]):
                charged = v[i] + currents[i]
                fires = charged >= threshold
                currents[i] = fires
                v[i] = charged - threshold if fires else charged
