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
    # If the sum is finite, so are all values. If it is not, it may also have overflowed, so check the values.
    if cmath.isfinite(x.sum(dtype=torch.float32 if x.dtype.itemsize < 4 else None).item()):
        return True
    return bool(torch.isfinite(x).all())


def all_are_finite(xs: Iterable[Tensor]) -> bool:
    """True if no value of any of the tensors is NaN or infinite.

    >>> all_are_finite([torch.ones(2), torch.tensor([3])]), all_are_finite([torch.ones(2), torch.tensor([torch.nan])])
    (True, False)

    A device is waited for once, not for every tensor.
    """
    all_of_them = list(xs)
    real = [x for x in all_of_them if x.is_floating_point() and x.device.type != "cpu"]
    if len({x.device for x in real}) == 1:
        sums = torch.stack([x.sum(dtype=torch.float32 if x.dtype.itemsize < 4 else None).double() for x in real])
        if bool(torch.isfinite(sums).all()):
            seen = set(map(id, real))
            all_of_them = [x for x in all_of_them if id(x) not in seen]
    return all(map(all_finite, all_of_them))


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
