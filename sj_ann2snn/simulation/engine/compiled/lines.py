"""Loops over a line of numbers that several kernels have, for numba."""

from __future__ import annotations

from typing import Any

from numba.extending import register_jitable

__all__ = ["copy", "count_nonzero"]


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def copy(source: Any, target: Any) -> None:
    """Copy numbers; numba's own assignment to a slice is several times as slow."""
    for i in range(target.shape[0]):
        target[i] = source[i]


@register_jitable  # type: ignore[untyped-decorator]  # numba is untyped
def count_nonzero(values: Any) -> int:
    """How many values are not zero."""
    found = 0
    for i in range(values.shape[0]):
        found += values[i] != 0
    return found
