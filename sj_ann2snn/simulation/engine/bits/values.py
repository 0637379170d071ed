"""Binary spikes in bits, and whole numbers of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ....support.compiled import compiled_loop
from ..compiled.arrays import flat, widest
from ..compiled.constants import BITS
from ..packed.values import Packed

__all__ = ["PackedBits", "PackedCounts", "PackedSpikes", "can_be_packed"]

SEEN = 2048
"""Bytes to look at for an estimate of the firing rate."""


class PackedBits(Packed):
    """Values in bits.

    Attributes:
        bits: ``[..., C / 8]``, uint8, where C is a multiple of 8: the channels of a position side by side, the first
            one lowest.
        planes: How many bits a value has.
        unit: What the lowest of them stands for.
    """

    planes: int
    unit: float
    size = 0.25  # bits, and a share of the potentials, which do not grow with the steps

    def __init__(self, bits: Tensor, steps: int, samples: int, places: tuple[int, ...]) -> None:
        super().__init__((steps, samples, bits.shape[-1] * BITS, *places))
        self.bits = bits

    def share(self) -> float:
        """The share of the bits that are set, from a part of them."""
        words = self.bits.view(-1)[:: self.bits.numel() // SEEN | 1]  # odd: all bytes of a position get their turn
        return float(_ONES[words.long()].float().mean()) / BITS


class PackedSpikes(PackedBits):
    """The spikes of a layer.

    Args:
        bits: ``[T, N, ..., C / 8]``.
    """

    planes, unit = 1, 1.0

    def __init__(self, bits: Tensor) -> None:
        steps, samples, *places, _ = bits.shape
        super().__init__(bits, steps, samples, tuple(places))

    def _numbers(self) -> Tensor:
        return unpack(self.bits)

    def active_per_step(self, weights: Tensor) -> Tensor:
        return self.per_step(weights)

    def per_step(self, weights: Tensor | None = None) -> Tensor:
        """The number of spikes at every step, ``[T]``, in int64.

        Args:
            weights: How often a spike counts, by its place, ``[...]`` without the channels, whole numbers.
        """
        from .kernels import count_bits

        steps, samples, *places, size = self.bits.shape
        found = torch.zeros(steps, dtype=torch.int64)
        by_place = torch.ones(math.prod(places), dtype=torch.int64) if weights is None else weights.flatten().long()
        loop: Any = compiled_loop(count_bits(math.gcd(size, 8)))
        loop(flat(self.bits), flat(by_place), found.numpy(), samples, size)
        return found


class PackedCounts(PackedBits):
    """Multiples of a number, as average pools make them from spikes.

    Args:
        bits: ``[planes, T, N, ..., C / 8]``, the lowest bits of the multiples first.
        unit: The number, a power of two.
    """

    def __init__(self, bits: Tensor, unit: float) -> None:
        planes, steps, samples, *places, _ = bits.shape
        super().__init__(bits, steps, samples, tuple(places))
        self.planes, self.unit = planes, unit

    def _numbers(self) -> Tensor:
        numbers = unpack(self.bits[-1])
        for plane in self.bits.flip(0)[1:]:
            numbers = torch.add(unpack(plane), numbers, alpha=2)
        return numbers.mul_(self.unit)

    def active(self) -> PackedSpikes:
        """Where the multiples are not zero."""
        found = self.bits[0]
        for plane in self.bits[1:]:
            found = found | plane
        return PackedSpikes(found)


def unpack(bits: Tensor) -> Tensor:
    """The spikes ``[T, N, C, ...]`` in ``[T, N, ..., C / 8]`` as numbers, images as channels_last."""
    from .kernels import unpack_bits

    steps, samples, *places, size = bits.shape
    numbers = torch.empty(steps, samples, *places, size * BITS, dtype=torch.float32)
    loop: Any = compiled_loop(unpack_bits(widest(numbers.numel())))
    loop(flat(bits), flat(numbers))
    return numbers.movedim(-1, 2)


_ONES = torch.tensor([byte.bit_count() for byte in range(256)], dtype=torch.uint8)


def can_be_packed(x_seq: Tensor) -> bool:
    """True for currents ``[T, N, C, ...]`` from which packed spikes may come: in single precision, on a CPU."""
    fits = x_seq.dtype == torch.float32 and x_seq.device.type == "cpu" and x_seq.dim() in (3, 5) and x_seq.numel() > 0
    return fits and x_seq.shape[2] % BITS == 0
