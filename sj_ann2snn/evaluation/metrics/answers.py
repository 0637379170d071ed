"""The answers of one output after some steps, divided by the readout's divisors when a metric needs that."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from ...errors import InputError

__all__ = ["Answers"]


class Answers:
    """Answers ``[t, n, ...]`` of one output.

    >>> Answers(torch.tensor([[[2.0]], [[6.0]]]), [1, 2]).divided.flatten().tolist()
    [2.0, 3.0]

    Args:
        undivided: The readout's answers before the division.
        divisors: The number by which to divide the answer after each step.
    """

    def __init__(self, undivided: Tensor, divisors: Sequence[float]) -> None:
        self.undivided, self._divisors = undivided, divisors

    def require_rows(self, samples: int) -> None:
        """
        Raises:
            InputError: There is not one row per sample.
        """
        if self.undivided.dim() < 2 or self.undivided.shape[1] != samples:
            rows = f"{self.undivided.shape[1]} rows" if self.undivided.dim() > 1 else "a single number"
            raise InputError(
                f"The network answers with {rows} for {samples} samples; evaluate needs one row per sample."
            )

    @cached_property
    def divided(self) -> Tensor:
        """The answers in the ANN's units."""
        if all(divisor == 1 for divisor in self._divisors):
            return self.undivided
        return torch.stack([one / divisor for one, divisor in zip(self.undivided, self._divisors, strict=True)])
