"""Quantiles over a whole data set in one pass and constant memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..support.compiled import compiled_loop

__all__ = ["QuantileSketch"]

_MANTISSA_BITS = 23
_CHUNK = 1 << 22
_OVERFLOW = 8


def _count(patterns: Any, counts: Any, shift: int, base: int) -> None:
    """Add the float32 bit patterns ``[rows, n]`` to the counters ``[rows, width]``; a loop to be compiled."""
    width, columns = counts.shape[1], patterns.shape[1]
    fresh = np.empty(width + _OVERFLOW, np.int32)
    for row in range(patterns.shape[0]):
        fresh[:] = 0
        values = patterns[row]
        for column in range(columns):
            index = (values[column] >> shift) - base
            # Whether a value counts is unpredictable, so avoid a branch. Several counters for the rest (zeros, and
            # negative values, whose sign bit is set) spare the processor waiting for the previous addition.
            fresh[np.uint32(index if index >= 0 else width + column % _OVERFLOW)] += 1
        counters = counts[row]
        for index in range(width):
            counters[index] += fresh[index]


class QuantileSketch:
    """Counts values in logarithmic buckets, from which any quantile is known within a relative error.

    >>> import torch
    >>> sketch = QuantileSketch()
    >>> sketch.update(torch.arange(1, 1001.0)[None])
    >>> abs(sketch.quantile(0.5).item() - 500.5) < 500.5 * 2**-13
    True

    The buckets are the leading bits of the float32 pattern: `bits` of the mantissa below each of the
    uppermost `octaves` powers of two. Zeros, negative values and values more than `octaves` powers of two below the
    largest value share one bucket that represents zero. The sketch depends only on the multiset of values, so batch
    size, order and the split over merged sketches do not change a bit of the result.

    Error bound: with M the largest value of all rows, the result is within ``2**-(bits + 1)`` of the quantile that
    `numpy.quantile` gives (linear interpolation between order statistics), relative to that quantile, plus
    ``M * 2**-(octaves - 1)`` if the quantile is that small. Memory: ``rows * octaves * 2**bits`` counters of
    8 bytes.

    Args:
        rows: Independent rows (channels), each with its own quantiles.
        bits: Mantissa bits kept.
        octaves: Powers of two kept below the maximum.
    """

    def __init__(self, rows: int = 1, *, bits: int = 12, octaves: int = 24) -> None:
        self.rows, self.bits, self.octaves = rows, bits, octaves
        self.width = octaves << bits
        self.counts = torch.zeros(rows, self.width, dtype=torch.int64)
        self.totals = torch.zeros(rows, dtype=torch.int64)
        self.maxima = torch.zeros(rows, dtype=torch.float32)
        self._top = 0
        """Biased exponent of the largest value; the window ends just above it."""

    def update(self, x: Tensor) -> None:
        """Count the values of `x`, ``[rows, n]``."""
        x = x.detach().float()
        if self.counts.device != x.device:
            self.counts, self.totals = self.counts.to(x.device), self.totals.to(x.device)
            self.maxima = self.maxima.to(x.device)
        if not x.numel():
            return
        self.maxima = torch.maximum(self.maxima, x.amax(dim=1))
        self.totals += x.shape[1]
        self._raise_window(self._exponent(self.maxima.max()))
        shift, count = _MANTISSA_BITS - self.bits, compiled_loop(_count)
        if count is not None and x.device.type == "cpu":
            count(x.contiguous().view(torch.int32).numpy(), self.counts.numpy(), shift, self._base())
            return
        columns = max(1, _CHUNK // self.rows)
        for part in torch.split(x, columns, dim=1):
            index = part.contiguous().view(torch.int32) >> shift
            index -= self._base()
            index.clamp_(min=-1)  # negative floats have the sign bit set, hence a negative index
            index += 1
            if self.rows > 1:
                index = index.long()
                index += torch.arange(self.rows, device=x.device)[:, None] * (self.width + 1)
            counted = torch.bincount(index.flatten(), minlength=self.rows * (self.width + 1))
            self.counts += counted.view(self.rows, self.width + 1)[:, 1:]

    def merge(self, other: QuantileSketch) -> None:
        """Take in everything that `other` counted.

        Raises:
            InputError: The sketches have different buckets or rows.
        """
        if (self.rows, self.bits, self.octaves) != (other.rows, other.bits, other.octaves):
            given, own = (f"{one.rows} rows, {one.bits} bits and {one.octaves} octaves" for one in (other, self))
            raise InputError(f"A sketch with {given} cannot be merged into one with {own}; they must be equal.")
        device = self.counts.device
        self._raise_window(other._top)
        shift = (self._top - other._top) << self.bits
        counts = other.counts.to(device)
        if shift < self.width:
            self.counts[:, : self.width - shift] += counts[:, shift:]
        self.totals += other.totals.to(device)
        self.maxima = torch.maximum(self.maxima, other.maxima.to(device))

    def collapsed(self) -> QuantileSketch:
        """One row that counts the values of all rows."""
        whole = QuantileSketch(1, bits=self.bits, octaves=self.octaves)
        whole.counts = self.counts.sum(0, keepdim=True)
        whole.totals = self.totals.sum(0, keepdim=True)
        whole.maxima = self.maxima.amax(0, keepdim=True)
        whole._top = self._top
        return whole

    def quantile(self, q: float) -> Tensor:
        """The q-quantile of each row, ``[rows]``, as float64; zero for rows without values."""
        position = (self.totals - 1).clamp(min=0).double() * q
        lower = position.floor()
        low = self._order_statistic(lower.long())
        high = self._order_statistic(position.ceil().long())
        # NumPy interpolates between the two neighbouring order statistics.
        value = low + (high - low) * (position - lower)
        return torch.minimum(value, self.maxima.double())

    def histogram(self) -> tuple[Tensor, Tensor]:
        """The buckets' midpoints ``[width]`` and the number of values of each row in them ``[rows, width]``.

        Midpoints are float64. The bucket of zero is left out.
        """
        first = torch.arange(self.width, device=self.counts.device) + self._base()
        return self._midpoints(first), self.counts

    def _midpoints(self, bucket: Tensor) -> Tensor:
        """Midpoints of buckets, given by their position among all floats."""
        bits = (bucket << (_MANTISSA_BITS - self.bits)).to(torch.int32)
        left = bits.view(torch.float32).double()
        right = (bits + (1 << (_MANTISSA_BITS - self.bits))).view(torch.float32).double()
        return (left + right) / 2

    def _order_statistic(self, rank: Tensor) -> Tensor:
        cumulative = self.counts.cumsum(1)
        below = self.totals - cumulative[:, -1]
        cumulative = cumulative + below[:, None]
        bucket = torch.searchsorted(cumulative, (rank + 1)[:, None]).clamp(max=self.width - 1)[:, 0]
        value = self._midpoints(bucket + self._base())
        value = torch.where(rank + 1 >= self.totals, self.maxima.double(), value)
        return torch.where(rank < below, torch.zeros_like(value), value)

    def _base(self) -> int:
        return ((self._top + 1) << self.bits) - self.width

    @staticmethod
    def _exponent(x: Tensor) -> int:
        return int(x.reshape(1).view(torch.int32).item()) >> _MANTISSA_BITS

    def _raise_window(self, top: int) -> None:
        # The window starts at the smallest normal number or above; everything below counts as zero.
        top = max(top, self.octaves)
        if top <= self._top:
            return
        shift = (top - self._top) << self.bits
        if self._top and shift < self.width:
            kept = self.counts[:, shift:].clone()
            self.counts.zero_()
            self.counts[:, : self.width - shift] = kept
        else:
            self.counts.zero_()
        self._top = top
