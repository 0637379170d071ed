"""The loops of `gradients.fire` in one pass through memory each, compiled with numba where it is installed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Frame", "frame_of"]

WIDTH = 1024
"""Neurons that a loop takes at a time, about. Its innermost loop should be long, what it keeps stay in the cache."""


@dataclass(frozen=True)
class Frame:
    """How the steps of a tensor ``[T, N, C, ...]`` lie in memory: rows of neurons whose channels repeat alike.

    Attributes:
        rows: Of one step.
        channels: C.
        inner: Neighbours in memory that share a channel.
        repeats: How often all channels follow each other in a row.
    """

    rows: int
    channels: int
    inner: int
    repeats: int

    def spread(self, value: Tensor) -> Any:
        """A vector ``[C]``, repeated for every neuron of a row, as an array."""
        return value.detach().repeat_interleave(self.inner).repeat(self.repeats).numpy()

    def collect(self, sums: Any, like: Tensor) -> Tensor:
        """Sums for every neuron of a row, added up by channel."""
        found = torch.from_numpy(sums).view(self.repeats, self.channels, self.inner)
        return found.sum((0, 2)).to(like)

    def array(self, value: Tensor, steps: int | None = None) -> Any:
        """The memory of a tensor laid out like the steps, as an array ``[T, rows, neurons]``."""
        shape: tuple[int, ...] = (self.rows, self.repeats * self.channels * self.inner)
        if steps is not None:
            shape = (steps, *shape)
        flat = value.detach().as_strided((value.numel(),), (1,))
        if value.dtype == torch.bfloat16:
            flat = flat.view(torch.uint16)
        return flat.numpy().reshape(shape)

    def run(self, loop: Callable[..., None], *arguments: Any, sums: int = 0) -> list[Any]:
        """Run a loop over all rows, in as many threads as torch uses; returns the sums that it adds up for a row."""
        threads = max(1, min(torch.get_num_threads(), self.rows))
        width = self.repeats * self.channels * self.inner
        bounds = [self.rows * thread // threads for thread in range(threads + 1)]
        found = [[np.zeros(width, dtype=np.float32) for _ in range(sums)] for _ in range(threads)]
        jobs = [(*arguments, *found[thread], bounds[thread], bounds[thread + 1]) for thread in range(threads)]
        if threads == 1:
            loop(*jobs[0])
        else:
            list(_pool(threads).map(lambda job: loop(*job), jobs))
        return [np.sum([one[place] for one in found], axis=0) for place in range(sums)]


def frame_of(currents: Tensor) -> Frame | None:
    """The frame of ``currents`` ``[T, N, C, ...]``; None if numba is missing, or no loop fits them."""
    step = currents[0]
    if (
        currents.device.type != "cpu"
        or currents.dtype not in (torch.float32, torch.bfloat16)
        or not currents.numel()
        or (len(currents) > 1 and currents.stride(0) != step.numel())
        or loops() is None
    ):
        return None
    channels, inner = step.shape[1], step[0, 0].numel()
    if step.is_contiguous():
        rows = step.shape[0]
    elif step.dim() > 2 and step.movedim(1, -1).is_contiguous():
        rows, inner = step.shape[0] * inner, 1
    else:
        return None
    repeats = 1
    while repeats * channels * inner < WIDTH and rows % 2 == 0:
        repeats, rows = repeats * 2, rows // 2
    return Frame(rows, channels, inner, repeats)


@functools.cache
def loops() -> Any:
    """The module of the compiled loops; None without numba."""
    try:
        from numba import config
    except ImportError:
        return None
    if config.DISABLE_JIT:
        return None
    from . import compiled_loops

    return compiled_loops


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="sj_ann2snn_calibration")
