"""Mean and standard deviation in one pass, mergeable and stable."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Moments"]

_CHUNK = 1 << 20
"""Number of values to hold in float64 at a time."""


class Moments:
    """Count, mean and sum of squared deviations of each row, over all values shown.

    >>> import torch
    >>> moments = Moments(rows=1)
    >>> moments.update(torch.tensor([[1.0, 2.0]]))
    >>> moments.update(torch.tensor([[3.0, 4.0]]))
    >>> moments.mean.item(), moments.variance().item()
    (2.5, 1.25)

    Parts are combined by the pairwise update of Chan, Golub and LeVeque 1983, "Algorithms for computing the
    sample variance", in float64. It only subtracts means from means, so it stays precise if the mean is large compared
    with the deviation; the difference of the mean square and the squared mean would not.

    Args:
        rows: Independent rows (channels).
        ignore_zeros: Count positive values only.
    """

    def __init__(self, rows: int = 1, *, ignore_zeros: bool = False) -> None:
        self.ignore_zeros = ignore_zeros
        self.count = torch.zeros(rows, dtype=torch.float64)
        self.mean = torch.zeros(rows, dtype=torch.float64)
        self.squares = torch.zeros(rows, dtype=torch.float64)
        """Sum of the squared deviations from the mean."""

    def update(self, x: Tensor) -> None:
        """Take in the values of `x`, ``[rows, n]``."""
        parts = [part for part in torch.split(x.detach(), max(1, _CHUNK // max(1, x.shape[0])), dim=1) if part.shape[1]]
        if len(parts) < 2:
            for part in parts:
                self._combine(*self._of(part.double()))
            return
        # First the whole of `x`, so that merging moments of single updates gives the bits of the updates themselves.
        whole = Moments(x.shape[0], ignore_zeros=self.ignore_zeros)
        for part in parts:
            whole._combine(*whole._of(part.double()))
        self._combine(whole.count, whole.mean, whole.squares)

    def merge(self, other: Moments) -> None:
        """Take in everything that `other` was shown.

        Raises:
            ValueError: The two have different rows, or count different values.
        """
        if self.count.shape != other.count.shape or self.ignore_zeros != other.ignore_zeros:
            raise ValueError("only moments with the same rows and the same ignore_zeros can be merged")
        device = self.count.device
        self._combine(other.count.to(device), other.mean.to(device), other.squares.to(device))

    def collapsed(self) -> Moments:
        """One row with the values of all rows."""
        whole = Moments(1, ignore_zeros=self.ignore_zeros)
        total = self.count.sum()
        mean = (self.count * self.mean).sum() / total.clamp(min=1)
        spread = (self.squares + self.count * (self.mean - mean).square()).sum()
        whole.count, whole.mean, whole.squares = total[None], mean[None], spread[None]
        return whole

    def variance(self) -> Tensor:
        """Variance of each row, ``[rows]``, divided by the count; zero for rows without values."""
        return self.squares / self.count.clamp(min=1)

    def _of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.ignore_zeros:
            variance, mean = torch.var_mean(x, dim=1, correction=0)
            count = torch.full_like(mean, x.shape[1])
            return count, mean, variance * count
        counted = x > 0
        count = counted.sum(1, dtype=torch.float64)
        mean = (x * counted).sum(1) / count.clamp(min=1)
        squares = ((x - mean[:, None]).square() * counted).sum(1)
        return count, mean, squares

    def _combine(self, count: Tensor, mean: Tensor, squares: Tensor) -> None:
        if self.count.device != count.device:
            device = count.device
            self.count, self.mean, self.squares = self.count.to(device), self.mean.to(device), self.squares.to(device)
        total = self.count + count
        share = count / total.clamp(min=1)
        difference = mean - self.mean
        self.squares = self.squares + squares + difference.square() * self.count * share
        self.mean = self.mean + difference * share
        self.count = total
