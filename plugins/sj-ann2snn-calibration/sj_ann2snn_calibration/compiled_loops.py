"""The loops of `gradients.fire`, compiled; imported only where numba is installed.

They do the arithmetic of the torch operations in `gradients` in the same order. Numbers in bfloat16 come as the upper
halves of numbers in single precision, which is what they are calculated in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload

__all__ = ["backward", "forward"]


def _compiled(loop: Callable[..., None]) -> Any:
    """`loop`, stored for this version of numba only: after an update, numba may find a new index with old code."""
    loop.__qualname__ = f"{loop.__name__}_numba_{numba.__version__}_numpy_{np.__version__}".replace(".", "_")
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(loop)
    except RuntimeError:  # numba has no folder to write to
        return numba.njit(nogil=True, error_model="numpy")(loop)


def _single(value: Any) -> Any:
    """A number as it is calculated with."""


def _rounded(value: Any, like: Any) -> Any:
    """A number as it is written into the array `like`."""


@overload(_single)
def _of_single(value):  # type: ignore[no-untyped-def]  # numba compares these signatures
    if value is types.uint16:
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


@overload(_rounded)
def _of_rounded(value, like):  # type: ignore[no-untyped-def]
    if like.dtype is not types.uint16:
        return lambda value, like: value

    def to_nearest_even(value, like):  # type: ignore[no-untyped-def]
        bits = np.float32(value).view(np.uint32)
        return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + (np.uint32(bits >> np.uint32(16)) & np.uint32(1))) >> 16)

    return to_nearest_even


@_compiled
def forward(
    currents: Any, potential: Any, scale: Any, shift: Any, emitted: Any, near: Any, first: int, last: int
) -> None:
    """Spikes times scale, and whether the potential was near the threshold; for the rows from `first` to `last`.

    Args:
        currents: ``[T, rows, neurons]``.
        potential: ``[rows, neurons]``; overwritten.
        scale: ``[neurons]``.
        shift: ``[neurons]``.
        emitted: ``[T, rows, neurons]``, written.
        near: ``[T, rows, neurons]``, written.
        first: The first row.
        last: The row after the last one.
    """
    one, half = np.float32(1), np.float32(0.5)
    for row in range(first, last):
        for step in range(currents.shape[0]):
            for i in range(scale.size):
                v = potential[row, i] + (_single(currents[step, row, i]) + shift[i]) / scale[i]
                fires = v >= one
                near[step, row, i] = abs(v - one) < half
                potential[row, i] = v - one if fires else v
                emitted[step, row, i] = _rounded(scale[i] if fires else np.float32(0), emitted)


@_compiled
def backward(
    gradient: Any,
    currents: Any,
    scale: Any,
    shift: Any,
    emitted: Any,
    near: Any,
    into: Any,
    later: Any,
    to_log: Any,
    to_bias: Any,
    first: int,
    last: int,
) -> None:
    """Gradients for the currents, the first potential, and, added up over rows, for logarithms of scales and biases.

    Args:
        gradient: ``[T, rows, neurons]``.
        currents: ``[T, rows, neurons]``.
        scale: ``[neurons]``.
        shift: ``[neurons]``.
        emitted: ``[T, rows, neurons]``.
        near: ``[T, rows, neurons]``.
        into: ``[T, rows, neurons]``, written.
        later: ``[rows, neurons]``, zeros; written.
        to_log: ``[neurons]``, added to.
        to_bias: ``[neurons]``, added to.
        first: The first row.
        last: The row after the last one.
    """
    for row in range(first, last):
        for back in range(currents.shape[0]):
            step = currents.shape[0] - 1 - back
            for i in range(scale.size):
                g, before = _single(gradient[step, row, i]), later[row, i]
                # A spike adds to the output and, through the reset, lowers the later potential.
                now = before + (g * scale[i] - before) * np.float32(near[step, row, i])
                result = now / scale[i]
                later[row, i] = now
                into[step, row, i] = _rounded(result, into)
                to_bias[i] += result
                driven = _single(currents[step, row, i]) + shift[i]
                to_log[i] += g * _single(emitted[step, row, i]) - result * driven
