"""Binary spikes in bits: an eighth of the memory of bytes, and what the loops of packed convolutions read."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...support.compiled import compiled_loop
from .loops import BITS

__all__ = ["PackedSpikes", "can_be_packed", "channels_innermost", "widest"]

SEEN = 2048
"""Bytes to look at for an estimate of the firing rate."""


class PackedSpikes:
    """The spikes ``[T, N, C, ...]`` of a layer, where C is a multiple of 8.

    Args:
        bits: ``[T, N, ..., C / 8]``, uint8: the channels of a position side by side, the first one lowest.
    """

    def __init__(self, bits: Tensor) -> None:
        self.bits = bits
        self._unpacked: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """``(T, N, C, ...)``."""
        steps, samples, *places, size = self.bits.shape
        return (steps, samples, size * BITS, *places)

    def unpacked(self) -> Tensor:
        """The spikes as numbers, images as channels_last."""
        if self._unpacked is None:
            from .packed_kernels import unpack_bits

            steps, samples, *places, size = self.bits.shape
            numbers = torch.empty(steps, samples, *places, size * BITS)
            loop: Any = compiled_loop(unpack_bits(widest(numbers.numel())))
            loop(flat(self.bits), flat(numbers))
            self._unpacked = numbers.movedim(-1, 2)
        return self._unpacked

    def stand_in(self) -> Tensor:
        """A tensor of this shape, without memory for its elements."""
        return torch.empty(()).expand(self.shape)

    def per_step(self, weights: Tensor | None = None) -> Tensor:
        """The number of spikes at every step, ``[T]``, in int64.

        Args:
            weights: How often a spike counts, by its place, ``[...]`` without the channels, whole numbers.
        """
        from .packed_kernels import count_bits

        steps, samples, *places, size = self.bits.shape
        found = torch.zeros(steps, dtype=torch.int64)
        by_place = torch.ones(math.prod(places), dtype=torch.int64) if weights is None else weights.flatten().long()
        loop: Any = compiled_loop(count_bits(math.gcd(size, 8)))
        loop(flat(self.bits), flat(by_place), found.numpy(), samples, size)
        return found

    def share(self) -> float:
        """The share of the neurons that spike, from a part of them."""
        words = self.bits.view(-1)[:: max(1, self.bits.numel() // SEEN)]
        return float(_ONES[words.long()].float().mean()) / BITS


_ONES = torch.tensor([byte.bit_count() for byte in range(256)], dtype=torch.uint8)


def can_be_packed(x_seq: Tensor) -> bool:
    """True for currents ``[T, N, C, ...]`` from which packed spikes may come: in single precision, on a CPU."""
    fits = x_seq.dtype == torch.float32 and x_seq.device.type == "cpu" and x_seq.dim() in (3, 5) and x_seq.numel() > 0
    return fits and x_seq.shape[2] % BITS == 0


def channels_innermost(x: Tensor, channels: int) -> Tensor:
    """`x` with its channels, which are dimension `channels`, as the last dimension, dense in memory."""
    return x.movedim(channels, -1).contiguous()


def widest(numbers: int) -> int:
    """The widest vector that divides so many numbers."""
    return math.gcd(numbers, 64)


def flat(x: Tensor) -> Any:
    """The memory of a dense tensor."""
    return x.detach().reshape(-1).numpy()
