"""How many steps to leave out at the beginning, in which the spikes have not reached the output yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["EarlySums", "best_delay", "longest_delay", "some_elements"]

ELEMENTS = 4096
"""Elements of a sample's output to look at, evenly spread."""

AS_GOOD = 1.02
"""A shorter delay is taken if it brings the answer as close to the ANN's, give or take this factor."""


def longest_delay(steps: int) -> int:
    """The largest number of first steps to leave out: a quarter of all steps remains.

    >>> [longest_delay(steps) for steps in (1, 2, 8)]
    [0, 1, 6]
    """
    return steps * 3 // 4


def some_elements(x: Tensor) -> Tensor:
    """Some elements of every sample, ``[n, elements]``, in double precision.

    >>> some_elements(torch.ones(5, 3, 100, 100)).shape
    torch.Size([5, 3750])
    """
    rows = x.reshape(len(x), -1)
    return rows[:, :: max(1, -(-rows.shape[1] // ELEMENTS))].double()


class EarlySums:
    """The sums of the outputs of one tile after each of the first steps.

    Args:
        most: Number of steps.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: list[list[Tensor]] = []
        self._done = 0

    def add(self, outputs: Sequence[Tensor]) -> None:
        """Take in the next steps of every output, ``[t, n, ...]``."""
        count = min(len(outputs[0]), self._most - self._done) if outputs else 0
        if count <= 0:
            return
        self._done += count
        self._parts.append([torch.stack([some_elements(step) for step in one[:count]]) for one in outputs])

    def sums(self) -> list[Tensor]:
        """For every output ``[most, n, elements]``."""
        return [torch.cat(parts).cumsum(0) for parts in zip(*self._parts, strict=True)]


def best_delay(divergence: float, delayed: Mapping[int, float]) -> int:
    """The number of first steps without which the mean output is closest to the ANN's; 0 if it is closest with all.

    >>> best_delay(0.5, {1: 0.4, 2: 0.301, 3: 0.3, 4: 0.35}), best_delay(0.1, {1: 0.2})
    (2, 0)

    Args:
        divergence: Of the mean over all steps.
        delayed: Of the mean without the first steps, by their number.
    """
    least = min(delayed.values(), default=divergence)
    if least >= divergence:
        return 0
    return min(delay for delay, value in delayed.items() if value <= AS_GOOD * least)
