"""Values of a layer in less memory than numbers take."""

from __future__ import annotations

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

    def active_per_step(self, weights: Tensor) -> Tensor:
        """How many values are not zero at every step, ``[T]``, in int64.

        Args:
            weights: How often a value counts, by its place, ``[...]`` without the channels, whole numbers.
        """
        raise NotImplementedError  # subclasses that a collector may see implement it

    def stand_in(self) -> Tensor:
        """A tensor of this shape, without memory for its elements."""
        return torch.empty(()).expand(self.shape)
