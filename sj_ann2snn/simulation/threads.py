"""Runs independent pieces of work in threads, each of which computes on one core."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

__all__ = ["in_threads"]


def in_threads(workers: Sequence[Callable[[Any], Any]], pieces: Sequence[Any]) -> list[Any]:
    """The results for `pieces`, in their order; each worker, in a thread of its own, takes the next piece that is left.

    Torch releases Python's lock while it computes, so that each thread fills a core; one operation at a time that
    is shared by all cores leaves them waiting for each other instead.

    Raises:
        Whatever a worker raises first; the others then stop after their present piece.
    """
    results: list[Any] = [None] * len(pieces)
    waiting = iter(range(len(pieces)))
    lock = threading.Lock()
    failures: list[BaseException] = []
    ready = threading.Barrier(len(workers) + 1)
    stop = threading.Event()

    def work(worker: Callable[[Any], Any]) -> None:
        torch.set_num_threads(1)  # of this thread
        ready.wait()
        while not stop.is_set():
            with lock:
                index = next(waiting, None)
            if index is None:
                return
            try:
                results[index] = worker(pieces[index])
            except BaseException as error:
                failures.append(error)
                stop.set()

    threads = [threading.Thread(target=work, args=(worker,), name="sj-ann2snn", daemon=True) for worker in workers]
    before = torch.get_num_threads()
    try:
        for thread in threads:
            thread.start()
        ready.wait()
        # What a thread sets is also what threads to come start with.
        torch.set_num_threads(before)
        for thread in threads:
            thread.join()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    return results
