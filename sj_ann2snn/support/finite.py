"""Whether tensors are finite, and which of their samples are not."""

from __future__ import annotations

import cmath

import torch
from torch import Tensor

__all__ = ["affected_samples", "all_finite", "kind_of"]


def all_finite(x: Tensor) -> bool:
    """True if no value is NaN or infinite.

    >>> all_finite(torch.ones(2)), all_finite(torch.tensor([1.0, float("inf")])), all_finite(torch.tensor([3]))
    (True, False, True)
    """
    if not (x.is_floating_point() or x.is_complex()):
        return True
    # If the sum is finite, so are all values. If it is not, it may also have overflowed, so check the values.
    if cmath.isfinite(x.sum(dtype=torch.float32 if x.dtype.itemsize < 4 else None).item()):
        return True
    return bool(torch.isfinite(x).all())


def kind_of(x: Tensor) -> str:
    """`NaN` or `infinite`, for a tensor that is not finite.

    >>> kind_of(torch.tensor([float("inf"), float("nan")])), kind_of(torch.tensor([float("inf")]))
    ('NaN', 'infinite')
    """
    return "NaN" if bool(torch.isnan(x).any()) else "infinite"


def affected_samples(x: Tensor) -> list[int]:
    """The first few samples of ``[N, ...]`` that are not finite.

    >>> affected_samples(torch.tensor([[1.0], [float("nan")]]))
    [1]
    """
    bad = ~torch.isfinite(x)
    found: list[int] = bad.reshape(len(bad), -1).any(1).nonzero().flatten()[:5].tolist()
    return found
