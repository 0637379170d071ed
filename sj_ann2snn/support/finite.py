"""Whether tensors are finite, and which of their samples are not."""

from __future__ import annotations

import cmath
from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["affected_samples", "all_are_finite", "all_finite", "kind_of"]


def all_finite(x: Tensor) -> bool:
    """True if no value is NaN or infinite.

    >>> all_finite(torch.ones(2)), all_finite(torch.tensor([1.0, float("inf")])), all_finite(torch.tensor([3]))
    (True, False, True)
    """
    if not (x.is_floating_point() or x.is_complex()):
        return True
    if cmath.isfinite(_sum(x).item()):
        return True
    return bool(torch.isfinite(x).all())


def all_are_finite(xs: Iterable[Tensor]) -> bool:
    """True if no value of any of the tensors is NaN or infinite.

    >>> all_are_finite([torch.ones(2), torch.tensor([3])]), all_are_finite([torch.ones(2), torch.tensor([torch.nan])])
    (True, False)

    A device is waited for once, not for every tensor.
    """
    elsewhere: list[Tensor] = []
    others: list[Tensor] = []
    for x in xs:
        (elsewhere if x.is_floating_point() and x.device.type != "cpu" else others).append(x)
    if len({x.device for x in elsewhere}) == 1:
        sums = torch.stack([_sum(x).double() for x in elsewhere])
        if bool(torch.isfinite(sums).all()):
            elsewhere = []
    return all(map(all_finite, (*elsewhere, *others)))


def _sum(x: Tensor) -> Tensor:
    """The sum, which is finite only if all values are; it may also have overflowed."""
    return x.sum(dtype=torch.float32 if x.dtype.itemsize < 4 else None)


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
