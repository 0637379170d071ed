"""Which elements an operation moves where, seen from its results on numbers that are all different."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Moves", "moved_elements"]

Moves = np.ndarray[Any, np.dtype[np.int64]]
"""For every element of a result, the element of the operands, joined and flat, that it is; -1 for a zero."""


def moved_elements(result: Tensor, given: Sequence[np.ndarray[Any, Any]]) -> Moves | None:
    """For every element of a result, which of the given numbers it is; -1 for a zero; None if it is something else.

    >>> given = [np.array([5.0, 7.0]), np.array([-3.0, 2.0])]
    >>> moved_elements(torch.tensor([[7.0, 0.0, 5.0], [2.0, 0.0, -3.0]]).double(), given)
    array([ 1, -1,  0])
    >>> moved_elements(torch.tensor([[7.0, 5.0], [-3.0, 2.0]]).double(), given)  # in another order for each sample
    >>> moved_elements(torch.tensor([[12.0], [-1.0]]).double(), given)  # a sum

    Args:
        result: What an operation yields for two samples, ``[2, ...]``, in double precision.
        given: What it was given for each of them, all different and flat.
    """
    if not result.dim() or len(result) != len(given) or result.dtype != torch.float64:
        return None
    first, second = (one.numpy().ravel() for one in result.detach())
    order = np.argsort(given[0])
    index = order[np.searchsorted(given[0], first, sorter=order).clip(max=len(order) - 1)]
    index = np.where(first == 0, -1, index)
    for wanted, numbers in ((first, given[0]), (second, given[1])):
        if not np.array_equal(np.where(index < 0, 0, numbers[index]), wanted):
            return None
    return index.reshape(tuple(result.shape[1:]))
