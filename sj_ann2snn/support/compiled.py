"""Compiles inner loops with numba, which is installed wherever it has wheels.

A loop is a plain function of numpy arrays and numbers. It does the same arithmetic in the same order as the torch
operations that it replaces, but in one pass through memory instead of one per operation, and without Python's lock.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["compiled_function", "compiled_loop"]


@functools.cache
def compiled_function(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Compile a function that compiled loops call; None without numba."""
    try:
        from numba import config, njit
    except ImportError:
        return None
    found: Callable[..., Any] | None = None if config.DISABLE_JIT else njit(error_model="numpy")(function)
    return found


@functools.cache
def compiled_loop(loop: Callable[..., None], *, stored: bool = True) -> Callable[..., None] | None:
    """Compile `loop`; None without numba.

    Args:
        loop: The loop.
        stored: Keep the result for other processes.
    """
    try:
        from numba import config, njit
    except ImportError:
        return None
    if config.DISABLE_JIT:
        return None
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        fast: Callable[..., None] = njit(**options, cache=stored)(loop)
    except RuntimeError:  # numba has no folder to write to
        fast = njit(**options)(loop)
    return fast
