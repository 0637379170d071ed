"""What a forked process must not share with the one that it comes from."""

from __future__ import annotations

import threading

from tqdm.auto import tqdm
from tqdm.std import tqdm as in_a_terminal

__all__ = ["leave_progress_to_parent"]


def leave_progress_to_parent() -> None:
    """Call it in a forked process: it gets locks of its own for progress bars, and no thread that watches them.

    Forked processes share tqdm's lock, which every bar takes, shown or not. One that is killed while it holds the lock
    would keep all others waiting for ever; so would a thread of the parent that held it in the moment of the fork.
    """
    for cls in (in_a_terminal, tqdm):
        cls.monitor_interval = 0
        cls.monitor = None
        cls.set_lock(threading.RLock())
