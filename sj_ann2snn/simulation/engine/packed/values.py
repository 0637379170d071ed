"""Values of a layer in less memory than numbers take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["Packed"]


class Packed:
    """Values of a layer in less memory than numbers take.

    Attributes:
        shape: ``(T, N, C, ...)``.
        size: Bytes that a value at one step counts for where tiles are cut.
    """

    size: float = 1

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._unpacked: Tensor | None = None

    def unpacked(self) -> Tensor:
        """The values as numbers."""
        if self._unpacked is None:
            self._unpacked = self._numbers()
        return self._unpacked

    def _numbers(self) -> Tensor:
        raise NotImplementedError  # subclasses implement it

    def repeated(self) -> Any:
        """The values as `Repeated` numbers; None if they are of a kind that differs at every step."""
        return None

    def active_per_step(self, weights: Tensor) -> Tensor:
        """How many values are not zero at every step, ``[T]``, in int64.

        Args:
            weights: How often a value counts, by its place, ``[...]`` without the channels, whole numbers.
        """
        raise NotImplementedError  # subclasses that a collector may see implement it

    movable: bool = False
    """True if the values may be moved as they are stored, see `memory` and `moved`."""

    channels_together: int = 1
    """Channels that are one number of `memory`."""

    def memory(self) -> Tensor:
        """The values as they are stored, ``[rows, channels, ...]``: rows of images, or what stands for channels in
        them, see `channels_together`."""
        raise NotImplementedError  # subclasses that values may be moved in implement it

    def moved(self, memory: Tensor, channels: int) -> Packed:
        """Values of the same kind, which are stored like that.

        Args:
            memory: As `Packed.memory` has it, of other channels and places.
            channels: How many channels they have.
        """
        raise NotImplementedError  # the same

    def mixes_with(self, other: Any) -> bool:
        """True for values of the same kind, which may be moved together."""
        return self.movable and type(other) is type(self) and other.shape[:2] == self.shape[:2]

    def stand_in(self) -> Tensor:
        """A tensor of this shape, without memory for its elements."""
        return torch.empty(()).expand(self.shape)
