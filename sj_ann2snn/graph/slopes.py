"""The slope below zero of activations that spike for both signs."""

from __future__ import annotations

import torch
from torch import Tensor

from ..replacements import Spike
from .records import TensorRecord

__all__ = ["broadcast_slope"]


def broadcast_slope(spike: Spike, activation: TensorRecord) -> Tensor:
    """The slope in the activation's dtype: a scalar, or without sample dimension ``[C, 1, 1]``."""
    slope = torch.as_tensor(spike.negative_slope, dtype=activation.dtype).detach()
    return slope.reshape(-1, *(1,) * (len(activation.shape) - 2)) if slope.numel() > 1 else slope.reshape(())
