"""Binary spikes in bits, and whole numbers of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ....support.compiled import compiled_loop
from ..compiled.arrays import flat, whole, widest
from ..compiled.constants import BITS
from ..packed.values import Packed

__all__ = ["Flattened", "PackedBits", "PackedCounts", "PackedSpikes", "can_be_packed"]

SEEN = 2048
"""Bytes to look at for an estimate of the firing rate."""


class PackedBits(Packed):
    """Values in bits.

    Attributes:
        bits: ``[..., bytes]``, uint8: the channels of a position side by side, the first one lowest, and zeros behind
            the last one where they do not fill a byte.
        planes: How many bits a value has.
        unit: What the lowest of them stands for.
    """

    planes: int
    unit: float
    size = 0.25  # bits, and a share of the potentials, which do not grow with the steps

    def __init__(self, bits: Tensor, leading: tuple[int, ...], channels: int | None) -> None:
        steps, samples, *places = leading
        super().__init__((steps, samples, bits.shape[-1] * BITS if channels is None else channels, *places))
        self.bits = bits

    movable, channels_together = True, BITS

    def memory(self) -> Tensor:
        return self.bits.flatten(0, -len(self.shape[3:]) - 2).movedim(-1, 1)

    def _bits(self, memory: Tensor) -> Tensor:
        """The bits in what `memory` has made of them."""
        leading = self.bits.shape[: self.bits.dim() - len(self.shape[3:]) - 1]
        rows = memory.movedim(1, -1).contiguous()
        return rows.view(*leading, *rows.shape[1:])

    def stored_as(self, bits: Tensor) -> PackedBits:
        """Values of the same kind and channels in other bits."""
        raise NotImplementedError  # subclasses implement it

    def active(self) -> PackedSpikes:
        """Where the values are not zero."""
        raise NotImplementedError  # subclasses implement it

    def share(self) -> float:
        """The share of the bits that are set, from a part of them."""
        words = self.bits.view(-1)[:: self.bits.numel() // SEEN | 1]  # odd: all bytes of a position get their turn
        return float(_ONES[words.long()].float().mean()) / BITS


class PackedSpikes(PackedBits):
    """The spikes of a layer.

    Args:
        bits: ``[T, N, ..., bytes]``.
        channels: C; by default, as many as there are bits.
    """

    planes, unit = 1, 1.0

    def __init__(self, bits: Tensor, channels: int | None = None) -> None:
        super().__init__(bits, bits.shape[:-1], channels)

    def stored_as(self, bits: Tensor) -> PackedSpikes:
        return PackedSpikes(bits, self.shape[2])

    def active(self) -> PackedSpikes:
        return self

    def moved(self, memory: Tensor, channels: int) -> PackedSpikes:
        return PackedSpikes(self._bits(memory), channels)

    def _numbers(self) -> Tensor:
        return unpack(self.bits, self.shape[2])

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
        bits: ``[planes, T, N, ..., bytes]``, the lowest bits of the multiples first.
        unit: The number, a power of two.
        channels: C; by default, as many as there are bits.
    """

    def __init__(self, bits: Tensor, unit: float, channels: int | None = None) -> None:
        super().__init__(bits, bits.shape[1:-1], channels)
        self.planes, self.unit = len(bits), unit

    def stored_as(self, bits: Tensor) -> PackedCounts:
        return PackedCounts(bits, self.unit, self.shape[2])

    def moved(self, memory: Tensor, channels: int) -> PackedCounts:
        return PackedCounts(self._bits(memory), self.unit, channels)

    def mixes_with(self, other: Any) -> bool:
        return super().mixes_with(other) and (other.planes, other.unit) == (self.planes, self.unit)

    def _numbers(self) -> Tensor:
        channels = self.shape[2]
        numbers = unpack(self.bits[-1], channels)
        for plane in self.bits.flip(0)[1:]:
            numbers = torch.add(unpack(plane, channels), numbers, alpha=2)
        return numbers.mul_(self.unit)

    def active(self) -> PackedSpikes:
        found = self.bits[0]
        for plane in self.bits[1:]:
            found = found | plane
        return PackedSpikes(found, self.shape[2])


class Flattened(Packed):
    """Images in bits whose channels and positions count as features, ``[T, N, features]``.

    Args:
        spikes: The images.
    """

    size = 0.25

    def __init__(self, spikes: PackedBits) -> None:
        steps, samples, *sizes = spikes.shape
        super().__init__((steps, samples, math.prod(sizes)))
        self.spikes = spikes

    def active(self) -> PackedSpikes:
        """Where the features are not zero, as if those of a position lay side by side: to be counted."""
        return PackedSpikes(self.spikes.active().bits.flatten(2), self.shape[2])

    def _numbers(self) -> Tensor:
        return self.spikes.unpacked().flatten(2)


def unpack(bits: Tensor, channels: int) -> Tensor:
    """The spikes ``[T, N, C, ...]`` in ``[T, N, ..., bytes]`` as numbers, images as channels_last."""
    from .kernels import unpack_bits

    steps, samples, *places, size = bits.shape
    numbers = torch.empty(steps, samples, *places, size * BITS, dtype=torch.float32)
    loop: Any = compiled_loop(unpack_bits(widest(numbers.numel())))
    loop(flat(bits), flat(numbers))
    return numbers[..., :channels].contiguous().movedim(-1, 2)


_ONES = torch.tensor([byte.bit_count() for byte in range(256)], dtype=torch.uint8)


def can_be_packed(x_seq: Tensor) -> bool:
    """True for currents ``[T, N, C, ...]`` from which packed spikes may come: in single precision, on a CPU, and of so
    many channels that they fill half of their bytes at least."""
    fits = (
        x_seq.dtype == torch.float32 and x_seq.device.type == "cpu" and x_seq.dim() in (3, 4, 5) and x_seq.numel() > 0
    )
    return fits and whole(x_seq.shape[2]) <= 2 * x_seq.shape[2]
