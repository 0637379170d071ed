"""Compiles inner loops with numba, which is installed wherever it has wheels.

A loop is a plain function of numpy arrays and numbers. It does the same arithmetic in the same order as the torch
operations that it replaces, but in one pass through memory instead of one per operation, and without Python's lock.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
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
        fast: Callable[..., None] = njit(**options, cache=stored)(_named_by_version(loop))
    except RuntimeError:  # numba has no folder to write to
        fast = njit(**options)(loop)
    return fast


def _named_by_version(loop: Callable[..., None]) -> Callable[..., None]:
    """A copy of `loop` under a name that numba stores for this version of numba and numpy only.

    numba writes its index before the code. After an update, a process that starts beside another one could find a new
    index with old code.
    """
    import numba
    import numpy as np

    assert isinstance(loop, FunctionType)
    copied = FunctionType(loop.__code__, loop.__globals__, loop.__name__, loop.__defaults__, loop.__closure__)
    versions = f"numba_{numba.__version__}_numpy_{np.__version__}".replace(".", "_")
    copied.__qualname__ = f"{loop.__qualname__}_{versions}"
    return copied
