"""When floating-point sums are exact, so that the order of summation does not matter."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .shapes import along, spatial_of

__all__ = ["DIGITS", "averaged_by_halves", "exact_grid", "largest_sums"]

DIGITS = {torch.float32: 24, torch.float64: 53}
"""Significant binary digits of a number."""

TINIEST = 2.0**-100
"""Sums below this count as zero."""

MOST_AVERAGED = 64
"""Largest window of an average pool behind which sums are kept exact; it costs the weights as many units."""


def exact_grid(weights: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The finest power of two for each row whose multiples in that row add up exactly, whichever of them are added.

    >>> exact_grid(torch.tensor([[0.75, -0.5]]).double(), torch.zeros(1).double(), torch.float32).log2()
    tensor([-24.], dtype=torch.float64)

    Args:
        weights: ``[rows, numbers]``.
        bias: ``[rows]``, one more number, of either sign.
        dtype: Of the sums.

    Returns:
        ``[rows]``, in double precision; None if a sum is not finite.
    """
    largest = largest_sums(weights) + bias.abs().double()
    if not bool(largest.isfinite().all()):
        return None
    return torch.exp2(torch.ceil(torch.log2(largest.clamp(min=TINIEST))) - DIGITS[dtype])


def largest_sums(weights: Tensor) -> Tensor:
    """The largest magnitude of a sum of some of the numbers in each row ``[rows, numbers]``, in double precision.

    >>> largest_sums(torch.tensor([[0.75, -0.5, 0.25]]))
    tensor([1.], dtype=torch.float64)
    """
    above, below = (weights.clamp(**part).sum(1, dtype=torch.float64) for part in ({"min": 0}, {"max": 0}))
    return torch.maximum(above, -below)


def averaged_by_halves(pool: Any) -> int:
    """How many inputs an average pool takes together, if that is a power of two; 1 for any other module.

    >>> averaged_by_halves(nn.AvgPool2d(2)), averaged_by_halves(nn.AvgPool2d(3)), averaged_by_halves(nn.ReLU())
    (4, 1, 1)

    An average over so many is a division without rounding.
    """
    if not isinstance(pool, (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)) or getattr(pool, "divisor_override", None):
        return 1
    taken = math.prod(along(spatial_of(pool), pool.kernel_size))
    return taken if taken.bit_count() == 1 and taken <= MOST_AVERAGED else 1
