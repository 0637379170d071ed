"""Counts the values that an object keeps, to find observers that hoard the calibration data."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Growth", "kept_values"]

ALLOWED_GROWTH = 1 << 20
"""Values by which an observer may always grow: samples and tables that fill up stay below this."""

ALLOWED_SHARE = 0.5
"""Share of the values shown that an observer may keep beyond that."""

_OPAQUE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, str)


def kept_values(root: object) -> int:
    """Count the numbers that `root` holds in tensors, arrays and collections, at any depth; shared ones count once.

    >>> import torch
    >>> kept_values({"sums": torch.zeros(4), "recent": [1.0, 2.0]})
    6
    """
    seen: set[int] = set()
    # Keep every visited object alive; otherwise its id could be reused.
    alive: list[object] = []
    waiting: list[object] = [root]
    total = 0
    while waiting:
        one = waiting.pop()
        if isinstance(one, (bool, int, float, complex)):
            total += 1
            continue
        if one is None or isinstance(one, _OPAQUE) or id(one) in seen:
            continue
        seen.add(id(one))
        alive.append(one)
        if isinstance(one, Tensor) and one.layout is torch.strided:
            storage = one.untyped_storage()
            if storage.data_ptr() not in seen:
                # A view keeps the whole storage alive.
                total += storage.nbytes() // one.element_size()
                seen.add(storage.data_ptr())
        elif isinstance(one, np.ndarray):
            waiting += [one.base] if isinstance(one.base, np.ndarray) else []
            total += 0 if isinstance(one.base, np.ndarray) else one.size
        elif isinstance(one, (bytes, bytearray)):
            total += len(one) // 8
        else:
            waiting += _contents(one)
    return total


def _contents(one: object) -> Iterator[Any]:
    if isinstance(one, Mapping):
        yield from one.values()
    elif isinstance(one, (list, tuple, set, frozenset)) or type(one).__name__ == "deque":
        yield from one  # type: ignore[misc]
    attributes = getattr(one, "__dict__", None)
    if isinstance(attributes, dict):
        yield from attributes.values()
    for cls in type(one).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(one, name) and name not in ("__dict__", "__weakref__"):
                yield getattr(one, name)


class Growth:
    """Watches whether an object grows with the values that it is shown.

    >>> growth, hoard = Growth(), []
    >>> for _ in range(4):
    ...     hoard.extend(range(1_000_000))
    ...     growth.shown(1_000_000, hoard)
    >>> growth.hoarded(hoard)
    (3000000, 3000000)
    """

    def __init__(self) -> None:
        self._batches = self._values = self._start = self._since = 0

    def shown(self, values: int, to: object) -> None:
        """Note that `to` was shown another `values` values."""
        self._batches += 1
        self._values += values
        if self._batches == 1:
            # An observer sets up its tables by the first batch.
            self._start, self._since = kept_values(to), self._values

    @property
    def due(self) -> bool:
        """True after 2, 4, 8, ... batches: rarely enough to cost nothing, often enough to notice in time."""
        return _is_due(self._batches)

    @property
    def due_next(self) -> bool:
        """True if `due` will be true after the next batch."""
        return _is_due(self._batches + 1)

    @property
    def begun(self) -> bool:
        """True after the first batch."""
        return self._batches > 0

    def hoarded(self, by: object) -> tuple[int, int] | None:
        """If `by` keeps too much: how many values it grew by since the first batch, and how many it was shown since."""
        shown = self._values - self._since
        if shown <= ALLOWED_GROWTH:
            return None
        grown = kept_values(by) - self._start
        return (grown, shown) if grown > max(ALLOWED_GROWTH, ALLOWED_SHARE * shown) else None


def _is_due(batches: int) -> bool:
    return batches > 1 and batches & (batches - 1) == 0
