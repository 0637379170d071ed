"""Graded spikes in small integers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ....support.compiled import compiled_loop
from ..compiled.arrays import flat
from ..packed.values import Packed

__all__ = ["Levels"]


class Levels(Packed):
    """Graded spikes, which are whole numbers.

    Args:
        codes: ``[T, N, ..., C]``, int16.
    """

    size = 4
    movable = True

    def __init__(self, codes: Tensor) -> None:
        steps, samples, *places, channels = codes.shape
        super().__init__((steps, samples, channels, *places))
        self.codes = codes

    def memory(self) -> Tensor:
        return self.codes.flatten(0, 1).movedim(-1, 1)

    def moved(self, memory: Tensor, channels: int) -> Levels:
        rows = memory.movedim(1, -1).contiguous()
        return Levels(rows.view(*self.shape[:2], *rows.shape[1:]))

    def active_per_step(self, weights: Tensor) -> Tensor:
        from .kernels import count_levels

        return self._counted(count_levels, flat(weights.flatten().long()))

    def per_step(self) -> Tensor:
        """The sum of the spikes' magnitudes at every step, ``[T]``, in int64."""
        from .kernels import sum_levels

        return self._counted(sum_levels)

    def _counted(self, loop: Any, *given: Any) -> Tensor:
        found = torch.zeros(self.shape[0], dtype=torch.int64)
        compiled: Any = compiled_loop(loop)
        compiled(flat(self.codes), found.numpy(), *given, self.shape[1], self.shape[2])
        return found

    def _numbers(self) -> Tensor:
        return self.codes.float().movedim(-1, 2)
