"""When floating-point sums are exact, so that the order of summation does not matter."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["DIGITS", "exact_grid"]

DIGITS = {torch.float32: 24, torch.float64: 53}
"""Significant binary digits of a number."""

TINIEST = 2.0**-100
"""Sums below this count as zero."""


def exact_grid(weights: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The finest power of two for each row whose multiples in that row add up exactly, whichever of them are added.

    >>> exact_grid(torch.tensor([[0.75, -0.5]]).double(), torch.zeros(1).double(), torch.float32).log2()
    tensor([-24.], dtype=torch.float64)

    Args:
        weights: ``[rows, numbers]``, in double precision.
        bias: ``[rows]``, one more number, of either sign.
        dtype: Of the sums.

    Returns:
        ``[rows]``; None if a sum is not finite.
    """
    largest = torch.maximum(weights.clamp(min=0).sum(1), -weights.clamp(max=0).sum(1)) + bias.abs()
    if not bool(largest.isfinite().all()):
        return None
    return torch.exp2(torch.ceil(torch.log2(largest.clamp(min=TINIEST))) - DIGITS[dtype])
