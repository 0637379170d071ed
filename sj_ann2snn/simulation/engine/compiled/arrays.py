"""The memory of tensors, as compiled loops take it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["channels_innermost", "flat", "flat_steps", "is_dense", "widest"]


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


def widest(numbers: int) -> int:
    """The widest vector that divides so many numbers."""
    return math.gcd(numbers, 64)


def flat(x: Tensor) -> Any:
    """The memory of a dense tensor."""
    return x.detach().reshape(-1).numpy()
