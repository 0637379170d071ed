"""When floating-point sums are exact, so that the order of summation does not matter."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .shapes import along, spatial_of

__all__ = [
    "BINARY",
    "DIGITS",
    "MOST_LEVELS",
    "Range",
    "averaged_by_halves",
    "exact_grid",
    "fits_levels",
    "largest_sums",
    "sums_are_exact",
]

DIGITS = {torch.float32: 24, torch.float64: 53}
"""Significant binary digits of a number."""

Range = tuple[int, int]
"""The smallest and the largest of some whole numbers."""

BINARY: Range = (0, 1)
"""Of binary spikes."""

MOST_LEVELS = 64
"""Largest magnitude of graded spikes behind which sums are kept exact; it costs the weights as many units."""

TINIEST = 2.0**-100
"""Sums below this count as zero."""

MOST_AVERAGED = 64
"""Largest window of an average pool behind which sums are kept exact; it costs the weights as many units."""


def exact_grid(weights: Tensor, bias: Tensor, dtype: torch.dtype, factors: Range = BINARY) -> Tensor | None:
    """The finest power of two for each row whose multiples in that row add up exactly, whichever of them are added.

    >>> exact_grid(torch.tensor([[0.75, -0.5]]).double(), torch.zeros(1).double(), torch.float32).log2()
    tensor([-24.], dtype=torch.float64)

    Args:
        weights: ``[rows, numbers]``.
        bias: ``[rows]``, one more number, of either sign.
        dtype: Of the sums.
        factors: How often a weight may be added, at least and at most; whole numbers.

    Returns:
        ``[rows]``, in double precision; None if a sum is not finite.
    """
    largest = largest_sums(weights, factors) + bias.abs().double()
    if not bool(largest.isfinite().all()):
        return None
    return torch.exp2(torch.ceil(torch.log2(largest.clamp(min=TINIEST))) - DIGITS[dtype])


def largest_sums(weights: Tensor, factors: Range = BINARY) -> Tensor:
    """The largest magnitude of a sum of some of the numbers in each row ``[rows, numbers]``, in double precision.

    >>> largest_sums(torch.tensor([[0.75, -0.5, 0.25]]))
    tensor([1.], dtype=torch.float64)
    >>> largest_sums(torch.tensor([[0.75, -0.5, 0.25]]), (-1, 2))
    tensor([2.5000], dtype=torch.float64)

    Args:
        weights: The numbers.
        factors: How often a number may be added, at least and at most.
    """
    low, high = factors
    above, below = (weights.clamp(**part).sum(1, dtype=torch.float64) for part in ({"min": 0}, {"max": 0}))
    return torch.maximum(high * above + low * below, -(low * above + high * below))


def fits_levels(outputs: Range) -> bool:
    """True if sums of weights are kept exact for graded spikes of that range.

    >>> fits_levels((-8, 8)), fits_levels((0, 1000)), fits_levels((2, 1))
    (True, False, False)
    """
    low, high = outputs
    return -MOST_LEVELS <= low <= 0 < high <= MOST_LEVELS


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


def sums_are_exact(weight: Tensor, bias: Tensor, averaged: int = 1) -> bool:
    """True if no sum of a channel's weights and its bias is rounded, so that their order does not matter.

    It holds for multiples of the weights from 0 to 1 by one `averaged`-th, too.

    >>> sums_are_exact(torch.tensor([[0.5, 0.25]]), torch.zeros(1)), sums_are_exact(torch.rand(1, 9), torch.ones(1))
    (True, False)
    """
    rows = weight.flatten(1)
    grid = exact_grid(rows, bias, torch.float32)
    if grid is None:
        return False
    # A division by a power of two is exact in single precision, too.
    multiples = rows / (grid[:, None] * averaged).to(rows), bias / grid.to(bias)
    return all(torch.equal(steps, steps.round()) for steps in multiples)
