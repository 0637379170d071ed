"""Notices code that writes to tensors which it was only shown.

Torch counts the writes to a tensor, but not those through `.data` or a NumPy view, so the sum is compared as well. A
sum does not notice that values have changed places; `exact` compares every value of tensors that are not too large.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["Untouched", "fingerprint"]

MOST_COPIED = 1 << 24


class Untouched:
    """The values of tensors at the time at which this object is made.

    >>> x = torch.arange(3.0)
    >>> before = Untouched([x])
    >>> x.numpy()[0] = 5
    >>> before.changed()
    True

    Args:
        tensors: What is shown.
        exact: Keep a copy of every tensor of up to 16 million values, to notice any change.
        sums: Compare sums where there is no copy; without, only what torch counts is noticed.
    """

    def __init__(self, tensors: Iterable[Tensor], *, exact: bool = False, sums: bool = True) -> None:
        shown = tuple(tensors)
        self._copies = [(one, one.detach().clone()) for one in shown if exact and one.numel() <= MOST_COPIED]
        self._versions = [(one, _version(one)) for one in shown]
        summed = [one for one in shown if not exact or one.numel() > MOST_COPIED] if sums else []
        self._sums = [(one, fingerprint(one)) for one in summed]

    def changed(self) -> bool:
        """True if a tensor has other values now."""
        return (
            any(_version(one) != before for one, before in self._versions)
            or any(fingerprint(one) != before for one, before in self._sums)
            or not all(_same_values(one.detach(), copy) for one, copy in self._copies)
        )


def fingerprint(tensor: Tensor) -> tuple[int, str]:
    """How often torch saw the tensor written to, and its sum, as text because NaN differs from itself."""
    values = tensor.detach()
    if values.is_meta:
        return _version(tensor), ""
    if values.is_complex():
        values = torch.view_as_real(values.resolve_conj())
    half = values.is_floating_point() and values.dtype.itemsize < 4
    return _version(tensor), repr(values.sum(dtype=torch.float32 if half else None).item())


def _version(tensor: Tensor) -> int:
    """How often torch saw the tensor written to; inference tensors do not count."""
    return -1 if tensor.is_inference() else int(tensor._version)


def _same_values(one: Tensor, other: Tensor) -> bool:
    if torch.equal(one, other):
        return True
    # NaN differs from itself.
    return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())
