"""Spikes in bytes, on a CUDA device."""

from __future__ import annotations

import torch
from torch import Tensor

from ..packed.values import Packed

__all__ = ["Codes"]


class Codes(Packed):
    """Spikes, or whole numbers of them, in bytes, as kernels on a CUDA device read and write them.

    Args:
        codes: ``[T, N, ..., C]``, int8.
        unit: What they count, a power of two.
    """

    size = 4  # beside the currents of some layers, which are numbers

    def __init__(self, codes: Tensor, unit: float = 1.0) -> None:
        steps, samples, *places, channels = codes.shape
        super().__init__((steps, samples, channels, *places))
        self.codes, self.unit = codes, unit

    def _numbers(self) -> Tensor:
        numbers = torch.empty(self.shape, dtype=torch.float32, device=self.codes.device)
        return numbers.copy_(self.codes.movedim(-1, 2)).mul_(self.unit)
