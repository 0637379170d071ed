"""Locks for what only one thread may use at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["exclusive"]


class _Locks:
    """One lock per object; it lives as long as the object."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def of(self, thing: Any) -> Any:
        with self._guard:
            lock = self._locks.get(thing)
            if lock is None:
                lock = self._locks[thing] = threading.RLock()
            return lock


_locks = _Locks()


def _start_afresh() -> None:
    global _locks
    _locks = _Locks()


if hasattr(os, "register_at_fork"):
    # Another thread of the parent may hold a lock, and would never release it in the child (a DataLoader's worker).
    os.register_at_fork(after_in_child=_start_afresh)


@contextmanager
def exclusive(*things: Any, also: Iterable[Any] = ()) -> Iterator[None]:
    """While the context is open, no other thread is in a context for any of the same objects.

    >>> with exclusive(ValueError):
    ...     with exclusive(ValueError):  # the same thread may enter again
    ...         pass

    Args:
        things: Modules, classes or functions; all that has an identity and can be referred to weakly.
        also: More of them.
    """
    with ExitStack() as stack:
        # All threads take the locks in the same order, so none waits for one that waits for it.
        for _, thing in sorted({id(one): one for one in (*things, *also)}.items()):
            stack.enter_context(_locks.of(thing))
        yield
