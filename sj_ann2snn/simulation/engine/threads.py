"""Runs independent pieces of work in threads, each of which computes on one core."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
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
    ready = threading.Barrier(len(workers) + 1)
    stop = threading.Event()
    failures: list[BaseException] = []

    def work(worker: Callable[[Any], Any]) -> None:
        torch.get_num_threads()  # or torch would set up the thread, with all cores, at its first operation
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
                # What a thread sets is also what threads to come start with.
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
