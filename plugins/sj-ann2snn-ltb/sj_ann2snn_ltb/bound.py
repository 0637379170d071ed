"""The bound on the conversion error of a channel, and the local update that minimises it."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Bound"]

ITERATIONS = 1000
"""More steps than any update has needed in practice: each step moves up to a higher bucket and skips most others."""


class Bound:
    """Upper bound on the mean squared error of a threshold, for activations counted in buckets.

    >>> import torch
    >>> bound = Bound(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[5, 4, 1]]), steps=2)
    >>> threshold = bound.minimiser()
    >>> [round(bound(threshold + d).item() - bound(threshold).item(), 4) for d in (-0.1, 0.1)]
    [0.0121, 0.0121]

    A neuron with threshold θ that runs for T steps maps an activation z to one of T + 1 levels, θ / T apart. Values
    above θ are clipped; rounding costs (θ / T)² / 12 on average for evenly spread z. The bound counts both for every
    positive activation::

        E(θ) = Σ max(z - θ, 0)² + n θ² / (12 T²),    n the number of positive z

    It is convex and has one minimum, at or below the largest activation.

    Args:
        values: Values of the buckets, ascending: ``[width]``.
        counts: Number of activations of each row in the buckets: ``[rows, width]``.
        steps: T.
    """

    def __init__(self, values: Tensor, counts: Tensor, steps: int) -> None:
        self._values = values.double()
        self._counts = counts.double()
        self._rounding = self._counts.sum(1) / (12 * steps**2)

    def __call__(self, threshold: Tensor) -> Tensor:
        """E for one threshold per row ``[rows]``."""
        clipped = (self._values - threshold[:, None]).clamp(min=0).square()
        return (clipped * self._counts).sum(1) + self._rounding * threshold.square()

    def minimiser(self) -> Tensor:
        """The θ with the least E for each row, ``[rows]``; zero for rows without a positive activation."""
        return self.updates()[-1]

    def updates(self) -> list[Tensor]:
        """The thresholds that the update visits, from zero to the minimiser, each ``[rows]``.

        The update θ ← θ - E'(θ) / E''(θ) rises from θ = 0, never exceeds the minimum, and reaches it after finitely
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
            # -E'(θ) / 2 is the sum of z - θ over the clipped activations, minus the rounding term.
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
