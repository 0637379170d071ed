"""Runs independent pieces of work in threads, each on one core."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import torch

__all__ = ["in_threads"]


def in_threads(workers: Sequence[Callable[[Any], Any]], pieces: Sequence[Any]) -> list[Any]:
    """The results for `pieces`, in order; each worker has its own thread and takes the next remaining piece.

    Torch releases Python's lock while it computes, so each thread fills a core. If all cores shared one operation at a
    time, they would wait for each other.

    Raises:
        The first error of a worker; the others then stop after their current piece.
    """
    results: list[Any] = [None] * len(pieces)
    waiting = iter(range(len(pieces)))
    lock = threading.Lock()
    ready = threading.Barrier(len(workers) + 1)
    stop = threading.Event()
    failures: list[BaseException] = []

    def work(worker: Callable[[Any], Any]) -> None:
        torch.get_num_threads()  # otherwise torch would set up the thread, with all cores, at its first operation
        torch.set_num_threads(1)
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

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(len(workers), thread_name_prefix="sj-ann2snn") as pool:
            try:
                running = [pool.submit(work, worker) for worker in workers]
                ready.wait()
                # New threads inherit the number that a thread sets.
                torch.set_num_threads(before)
                wait(running)
            finally:
                stop.set()
                ready.abort()
    finally:
        torch.set_num_threads(before)
    if failures:
        raise failures[0]
    return results
