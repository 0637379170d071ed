"""The answers of one output after some steps, divided by the readout's divisors when a metric needs that."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

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

    @cached_property
    def divided(self) -> Tensor:
        """The answers in the ANN's units."""
        if all(divisor == 1 for divisor in self._divisors):
            return self.undivided
        return torch.stack([one / divisor for one, divisor in zip(self.undivided, self._divisors, strict=True)])
