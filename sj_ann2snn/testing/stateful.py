"""The contract of every module with memory: neurons, and the modules that replace pools."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..compat import MemoryModule, reset_net, set_step_mode
from .running import at_once, dropping_rows, step_by_step

__all__ = [
    "TOLERANCE",
    "assert_copies_are_independent",
    "assert_leaves_inputs_alone",
    "assert_reset_clears",
    "assert_rows_can_be_dropped",
    "assert_samples_are_apart",
    "assert_state_can_be_loaded",
    "assert_step_modes_agree",
]

Make = Callable[[], nn.Module]

TOLERANCE: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}
"""Tolerance for the order of summation in double precision."""


def assert_step_modes_agree(make: Make, x_seq: Tensor) -> None:
    """Step mode "m" on all steps equals "s" step by step, also when one mode takes over from the other."""
    module: Any = make()
    assert isinstance(module, MemoryModule), f"{module!r} is no MemoryModule of SpikingJelly"
    wanted = step_by_step(module, x_seq)
    torch.testing.assert_close(at_once(module, x_seq), wanted, **TOLERANCE)
    third = len(x_seq) // 3
    with torch.no_grad():
        set_step_mode(module, "m")
        first = module(x_seq[:third])
        set_step_mode(module, "s")
        second = torch.stack([module(x) for x in x_seq[third : 2 * third]])
        set_step_mode(module, "m")
        rest = module(x_seq[2 * third :])
    torch.testing.assert_close(torch.cat([first, second, rest]), wanted, **TOLERANCE)


def assert_reset_clears(make: Make, x_seq: Tensor) -> None:
    """After `reset_net`, a module behaves like a new one, also for a batch of another size."""
    module: Any = make()
    first = step_by_step(module, x_seq)
    for _ in range(2):
        module(x_seq[0])
        torch.testing.assert_close(step_by_step(module, x_seq), first, rtol=0, atol=0)
    fewer = step_by_step(module, x_seq[:, :1])
    torch.testing.assert_close(fewer, step_by_step(make(), x_seq[:, :1]), **TOLERANCE)


def assert_samples_are_apart(make: Make, x_seq: Tensor) -> None:
    """A sample's outputs are the same whatever else is in the batch."""
    module = make()
    whole = step_by_step(module, x_seq)
    alone = [step_by_step(module, x_seq[:, row : row + 1]) for row in range(x_seq.shape[1])]
    torch.testing.assert_close(torch.cat(alone, 1), whole, **TOLERANCE)


def assert_rows_can_be_dropped(make: Make, x_seq: Tensor) -> None:
    """Removing finished samples from every memory does not affect the others."""
    module = make()
    rows = torch.arange(0, x_seq.shape[1], 2)
    dropped = dropping_rows(module, x_seq, len(x_seq) // 2, rows)
    torch.testing.assert_close(dropped, step_by_step(module, x_seq)[:, rows], **TOLERANCE)


def assert_copies_are_independent(make: Make, x_seq: Tensor) -> None:
    """A copy made halfway continues on its own, and modules made for two sites share nothing."""
    one: Any = make()
    other = make()
    wanted = step_by_step(one, x_seq)
    half = len(x_seq) // 2
    set_step_mode(one, "s")
    with torch.no_grad():
        begun = [one(x) for x in x_seq[:half]]
        other(x_seq[1])
        twin: Any = copy.deepcopy(one)
        ended = [one(x) for x in x_seq[half:]]
        again = [twin(x) for x in x_seq[half:]]
    reset_net(other)
    torch.testing.assert_close(torch.stack(begun + ended), wanted, rtol=0, atol=0)
    torch.testing.assert_close(torch.stack(begun + again), wanted, rtol=0, atol=0)


def assert_state_can_be_loaded(make: Make, x_seq: Tensor) -> None:
    """Its `state_dict` fits a new module, even in the middle of a simulation, and never holds membrane potentials."""
    one, other = make(), make()
    wanted = step_by_step(one, x_seq)
    one(x_seq[0])
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(step_by_step(other, x_seq), wanted, rtol=0, atol=0)


def assert_leaves_inputs_alone(make: Make, x_seq: Tensor) -> None:
    """Its inputs may have other readers."""
    for run in (step_by_step, at_once):
        shown = x_seq.clone()
        out = run(make(), shown)
        assert torch.equal(shown, x_seq), "it writes to the currents that it receives"
        assert out.dtype == x_seq.dtype, f"it returns {out.dtype} for {x_seq.dtype}"
