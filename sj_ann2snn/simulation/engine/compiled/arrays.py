"""The memory of tensors, as compiled loops take it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .constants import BITS

__all__ = [
    "channels_innermost",
    "empty_steps",
    "flat",
    "flat_steps",
    "is_dense",
    "spread",
    "whole",
    "whole_bytes",
    "widest",
]


def is_dense(x: Tensor) -> bool:
    """True for a tensor that fills its memory without gaps, in the default layout or as channels_last images."""
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def flat_steps(x_seq: Tensor) -> Any:
    """The memory of a sequence whose steps are dense, as a flat array."""
    steps, step = x_seq.shape[0], x_seq[0].numel()
    return torch.as_strided(x_seq, ((steps - 1) * x_seq.stride(0) + step,), (1,)).numpy()


def channels_innermost(x: Tensor, channels: int) -> Tensor:
    """`x` with its channels, which are dimension `channels`, as the last dimension, dense in memory."""
    return x.movedim(channels, -1).contiguous()


def empty_steps(x_seq: Tensor, steps: int) -> Tensor:
    """Memory for so many steps, each laid out like a step of `x_seq` (which may repeat a single step)."""
    step = torch.empty_like(x_seq[0])
    strides = (step.numel(), *step.stride())
    return torch.empty_strided((steps, *step.shape), strides, dtype=x_seq.dtype, device=x_seq.device)


def spread(x: Any, shape: tuple[int, ...]) -> Any:
    """`x` as if it were of the `shape` ``(T, N, ...)``, if it is ``[1, ...]``: the same for every step and sample."""
    same = isinstance(x, Tensor) and tuple(x.shape) == (1, *shape[2:])
    return x.expand(shape) if same else x


def whole(numbers: int) -> int:
    """So many numbers, rounded up to whole bytes of bits.

    >>> whole(8), whole(9)
    (8, 16)
    """
    return (numbers + BITS - 1) // BITS * BITS


def whole_bytes(x: Tensor, value: float = 0.0) -> Tensor:
    """`x` with so many more numbers in its last dimension that their bits fill bytes; `x` itself if they do."""
    missing = whole(x.shape[-1]) - x.shape[-1]
    return F.pad(x, (0, missing), value=value) if missing else x


def widest(numbers: int) -> int:
    """The widest vector that divides so many numbers."""
    return math.gcd(numbers, 64)


def flat(x: Tensor) -> Any:
    """The memory of a dense tensor."""
    return x.detach().reshape(-1).numpy()
