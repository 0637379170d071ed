"""The bound on the conversion error of a channel, and the local update that minimises it."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Bound"]

ITERATIONS = 1000
"""More than any update has been seen to need: each stops at a bucket further up, and few are passed one by one."""


class Bound:
    """Mean squared error that a threshold costs at the most, for activations that were counted in buckets.

    >>> import torch
    >>> bound = Bound(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[5, 4, 1]]), steps=2)
    >>> threshold = bound.minimiser()
    >>> [round(bound(threshold + d).item() - bound(threshold).item(), 4) for d in (-0.1, 0.1)]
    [0.0121, 0.0121]

    A neuron of threshold θ that runs for T steps answers to an activation z with one of T + 1 levels, θ / T apart. What
    lies above θ is clipped; rounding costs (θ / T)² / 12 on average for evenly spread z. The bound charges every
    positive activation for both::

        E(θ) = Σ max(z - θ, 0)² + n θ² / (12 T²),    n the number of positive z

    It is convex and has one minimum, at or below the largest activation.

    Args:
        values: What the buckets stand for, ascending: ``[width]``.
        counts: How many activations of each row lie there: ``[rows, width]``.
        steps: T.
    """

    def __init__(self, values: Tensor, counts: Tensor, steps: int) -> None:
        self._values = values.double()
        self._counts = counts.double()
        self._rounding = self._counts.sum(1) / (12 * steps**2)

    def __call__(self, threshold: Tensor) -> Tensor:
        """E of one threshold ``[rows]`` for each row."""
        clipped = (self._values - threshold[:, None]).clamp(min=0).square()
        return (clipped * self._counts).sum(1) + self._rounding * threshold.square()

    def minimiser(self) -> Tensor:
        """The θ with the least E for each row, ``[rows]``; zero for rows without a positive activation."""
        return self.updates()[-1]

    def updates(self) -> list[Tensor]:
        """The thresholds that the update passes, from zero to the minimiser, each ``[rows]``.

        The update θ ← θ - E'(θ) / E''(θ) climbs from θ = 0, never passes the minimum, and is there after finitely
        many steps, because E is quadratic between two values.
        """
        # How many activations lie in a bucket and above it, and what they sum up to; nothing lies above the last one.
        number = _from_above(self._counts)
        total = _from_above(self._counts * self._values)
        thresholds = [torch.zeros_like(self._rounding)]
        for _ in range(ITERATIONS):
            threshold = thresholds[-1]
            above = torch.searchsorted(self._values, threshold, right=True)[:, None]
            curvature = number.gather(1, above)[:, 0] + self._rounding
            # -E'(θ) / 2 is the total of z - θ over the clipped activations, less what rounding adds.
            slope = total.gather(1, above)[:, 0] - curvature * threshold
            climb = torch.where(curvature > 0, slope / curvature, 0)
            updated = threshold + climb.clamp(min=0)
            if torch.equal(updated, threshold):
                break
            thresholds.append(updated)
        return thresholds


def _from_above(x: Tensor) -> Tensor:
    sums = x.flip(1).cumsum(1).flip(1)
    return torch.cat([sums, torch.zeros_like(sums[:, :1])], 1)
