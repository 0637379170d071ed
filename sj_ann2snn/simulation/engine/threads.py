"""Runs independent pieces of work in threads, each on one core."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import torch

from ...support.locks import exclusive

__all__ = ["Stopped", "in_threads"]


class Stopped(BaseException):
    """A worker gives up its piece because another one has failed or Ctrl-C was pressed."""


def in_threads(workers: Sequence[Callable[[Any], Any]], pieces: Sequence[Any], stop: threading.Event) -> list[Any]:
    """The results for `pieces`, in order; each worker has its own thread and takes the next remaining piece.

    Torch releases Python's lock while it computes, so each thread fills a core. If all cores shared one operation at a
    time, they would wait for each other.

    Args:
        workers: Compute the result of a piece.
        pieces: The pieces.
        stop: Set when the results are no longer wanted; a worker may then raise `Stopped`.

    Raises:
        The first error of a worker; the others then stop.
    """
    results: list[Any] = [None] * len(pieces)
    waiting = iter(range(len(pieces)))
    lock = threading.Lock()
    ready = threading.Barrier(len(workers) + 1)
    failures: list[BaseException] = []
    inherited: list[int] = []

    def work(worker: Callable[[Any], Any]) -> None:
        # Otherwise torch would set up the thread, with all cores, at its first operation.
        inherited.append(torch.get_num_threads())
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

    started = False
    pool = ThreadPoolExecutor(len(workers), thread_name_prefix="sj-ann2snn")
    try:
        with exclusive(torch.set_num_threads):
            running = [pool.submit(work, worker) for worker in workers]
            ready.wait()
            _let_new_threads_have(inherited[0])
            started = True
        wait(running)
    finally:
        stop.set()
        if not started:
            ready.abort()
        _shut_down(pool)
        if not started and inherited:
            _let_new_threads_have(inherited[0])
    if failures:
        raise failures[0]
    return results


def _shut_down(pool: ThreadPoolExecutor) -> None:
    try:
        pool.shutdown()
    except BaseException:
        pool.shutdown()  # Ctrl-C must leave no thread behind
        raise


def _let_new_threads_have(count: int) -> None:
    """A new thread inherits the number of threads that a thread has set last, here 1 by a worker."""
    if count == torch.get_num_threads():
        torch.set_num_threads(count)
        return
    # The number of the calling thread is another one, and must not change.
    thread = threading.Thread(target=torch.set_num_threads, args=(count,))
    thread.start()
    thread.join()
