"""Numbers that many steps in a row have in common."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor

from ..compiled.arrays import empty_steps
from .values import Packed

__all__ = ["Repeated", "starts_of_all"]


class Repeated(Packed):
    """Numbers that many steps in a row have in common, once for all of these steps.

    >>> Repeated(torch.tensor([[[1.0]], [[5.0]]]), (0, 3), 4).unpacked().flatten()
    tensor([1., 1., 1., 5.])

    Args:
        distinct: ``[K, N, ...]``.
        starts: K steps, from which on each of them holds, in order; the first is 0.
        steps: The number of all steps.
    """

    size = 1  # most steps have no numbers of their own

    def __init__(self, distinct: Tensor, starts: tuple[int, ...], steps: int) -> None:
        super().__init__((steps, *distinct.shape[1:]))
        self.distinct, self.starts = distinct, starts

    def repeated(self) -> Repeated:
        return self

    def at(self, starts: tuple[int, ...]) -> Tensor:
        """The numbers at these steps."""
        if starts == self.starts:
            return self.distinct
        return self._each([bisect_right(self.starts, step) - 1 for step in starts])

    def rows(self) -> list[int]:
        """Which of the distinct numbers every step has."""
        return [row for row, count in enumerate(self._counts()) for _ in range(count)]

    def active_per_step(self, weights: Tensor) -> Tensor:
        by_place = self.distinct.ne(0).sum((1, 2)) * weights.long()
        return by_place.reshape(len(self.starts), -1).sum(1).repeat_interleave(torch.tensor(self._counts()))

    def _counts(self) -> list[int]:
        return [end - begin for begin, end in pairwise((*self.starts, self.shape[0]))]

    def _numbers(self) -> Tensor:
        return self.distinct if len(self.starts) == self.shape[0] else self._each(self.rows())

    def _each(self, rows: list[int]) -> Tensor:
        """Copies of these rows, laid out alike."""
        found = empty_steps(self.distinct, len(rows))
        for target, row in zip(found, rows, strict=True):
            target.copy_(self.distinct[row])
        return found


def starts_of_all(values: Iterable[Repeated]) -> tuple[int, ...]:
    """The steps at which one of several values begins to be another."""
    return tuple(sorted({start for value in values for start in value.starts}))
