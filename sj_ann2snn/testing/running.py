"""Small networks, and ways of running a spiking module without the simulator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..compat import MemoryModule, reset_net, set_step_mode
from ..simulation.engine import tiling
from ..simulation.engine.runner import select_samples

__all__ = ["at_once", "currents", "dropping_rows", "identity_network", "small_network", "step_by_step", "tiled"]


def small_network() -> nn.Sequential:
    """Convolution, pooling and two linear layers in double precision, for images of 1x8x8."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(36, 16),
        nn.ReLU(),
        nn.Linear(16, 3),
    ).double()


def identity_network(features: int) -> nn.Sequential:
    """A linear layer that passes its input on, and a ReLU: the neuron's current is the input itself."""
    linear = nn.Linear(features, features, bias=False)
    nn.init.eye_(linear.weight)
    return nn.Sequential(linear, nn.ReLU()).double()


def currents(steps: int, *shape: int, spread: float = 1.0) -> Tensor:
    """Random currents ``[steps, *shape]`` of both signs, in eighths: their sums are exact in any order."""
    return torch.randint(-4, 9, (steps, *shape)).double() / 8 * spread


def step_by_step(module: Any, x_seq: Tensor) -> Tensor:
    """The outputs of a spiking module for ``[T, N, ...]``, one step at a time; it is reset before and after."""
    reset_net(module)
    set_step_mode(module, "s")
    with torch.no_grad():
        out = torch.stack([module(x) for x in x_seq])
    reset_net(module)
    return out


def at_once(module: Any, x_seq: Tensor) -> Tensor:
    """The same in step mode "m"."""
    reset_net(module)
    set_step_mode(module, "m")
    with torch.no_grad():
        out: Tensor = module(x_seq)
    reset_net(module)
    set_step_mode(module, "s")
    return out


def dropping_rows(module: nn.Module, x_seq: Tensor, after: int, rows: Tensor) -> Tensor:
    """The outputs for the samples `rows`; the others are dropped from every memory after `after` steps."""
    reset_net(module)
    set_step_mode(module, "s")
    samples = x_seq.shape[1]
    out = []
    with torch.no_grad():
        for step, x in enumerate(x_seq):
            if step == after:
                for one in module.modules():
                    if isinstance(one, MemoryModule):
                        select_samples(one, rows, samples)
            out.append(module(x)[rows] if step < after else module(x[rows]))
    reset_net(module)
    return torch.stack(out)


@contextmanager
def tiled(budget: int, threads: int) -> Iterator[None]:
    """Run `simulate` and `evaluate` in tiles of at most `budget` bytes and in `threads` threads."""
    bytes_before, threads_before = tiling.TILE_BYTES["cpu"], torch.get_num_threads()
    tiling.TILE_BYTES["cpu"] = budget
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        tiling.TILE_BYTES["cpu"] = bytes_before
        torch.set_num_threads(threads_before)
