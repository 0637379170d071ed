"""Runs neurons of plugins in one pass through memory, by the functions that they hand over to be compiled."""

from __future__ import annotations

import functools
import hashlib
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....errors import PluginError
from ....layers import ChangeLoop, InPlaceNeuron, NeuronLoop
from ....support.compiled import compiled_function, compiled_loop
from ....support.wording import shortened
from .arrays import flat_steps, is_dense
from .constants import BLOCK

__all__ = ["Described", "changes_around", "fire_compiled", "known_loop", "loop_around", "neurons"]

Described = NeuronLoop | ChangeLoop


def fire_compiled(neuron: InPlaceNeuron, x_seq: Tensor, spikes: Tensor) -> bool:
    """Write the spikes for the currents ``[T, N, ...]`` to `spikes`; False if the neuron has to do it itself."""
    fits = x_seq.device.type == "cpu" and x_seq.dtype in (torch.float32, torch.float64) and x_seq.numel() > 0
    described = known_loop(neuron, x_seq.dtype) if fits else None
    if described is None:
        return False
    loop: Any = _loop(described.update, _kind(described))
    if not isinstance(neuron.v, Tensor) or neuron.v.shape != x_seq.shape[1:]:
        neuron.start(x_seq[0])
    states = [getattr(neuron, name) for name in described.states]
    steps = len(x_seq)
    layout = spikes.stride()[1:]
    if any(state.stride() != layout or state.dtype != x_seq.dtype for state in states) or not is_dense(spikes[0]):
        return False
    if spikes is not x_seq:
        spikes.copy_(x_seq)
    memory = flat_steps(spikes)
    number = memory.dtype.type
    before = 0 if described.clock is None else int(getattr(neuron, described.clock))
    constants = tuple(map(number, described.constants))
    parts = tuple(flat_steps(state.unsqueeze(0)) for state in states)
    loop(memory, parts, 0, parts[0].shape[0], constants, number(before), number(1), steps, spikes.stride(0))
    if described.clock is not None:
        setattr(neuron, described.clock, before + steps)
    if isinstance(described, ChangeLoop):
        setattr(neuron, described.mean, None)  # as `step` does: the sum counts
    return True


def known_loop(neuron: InPlaceNeuron, dtype: torch.dtype) -> Described | None:
    """The loop of a neuron, if it can be compiled; None if the neuron has none, and without numba.

    Raises:
        PluginError: It cannot be compiled.
    """
    kind: Any = type(neuron)
    described = neuron.loop(dtype) if _is_up_to_date(kind) else None
    if described is None:
        return None
    loop = _loop(described.update, _kind(described))
    if loop is None:
        return None
    _try(loop, described, dtype)
    return described


@functools.cache
def _is_up_to_date(cls: type) -> bool:
    """True if no subclass has changed what a neuron does, but not its loop."""

    def depth(name: str) -> int:
        return next(index for index, one in enumerate(cls.__mro__) if name in vars(one))

    return all(depth("loop") <= depth(name) for name in ("step", "start", "fire"))


def _kind(described: Described) -> str | tuple[int, bool]:
    """Which of the `LOOPS` an update is for."""
    return CHANGES if isinstance(described, ChangeLoop) else (len(described.states), described.clock is not None)


@functools.cache
def _loop(update: Callable[..., Any], kind: str | tuple[int, bool]) -> Callable[..., None] | None:
    """The compiled loop of an update; None without numba."""
    loop, compiled = LOOPS[kind], compiled_function(update)
    if compiled is None:
        return None
    stamp = _stamp(update)
    return compiled_loop(_with(compiled, update, loop, stamp or ""), stored=stamp is not None)


def loop_around(loop: Callable[..., None], described: NeuronLoop) -> Any:
    """Compile a loop that calls `neurons`, with the loop of an update, which `known_loop` knows, in its place."""
    return _around(loop, described.update, LOOPS[_kind(described)], neurons.__name__)


def changes_around(loop: Callable[..., None], described: ChangeLoop) -> Any:
    """The same for `send_changes` in the place of `neurons`."""
    return _around(loop, described.update, send_changes, send_changes.__name__)


@functools.cache
def _around(loop: Callable[..., None], update: Callable[..., Any], around: Callable[..., None], place: str) -> Any:
    compiled, stamp = compiled_function(update), _stamp(update)
    inner = compiled_function(_with(compiled, update, around, stamp or ""))
    found = _with(inner, update, loop, stamp or "", place)
    return compiled_loop(found, stored=stamp is not None)


@functools.cache
def _try(loop: Callable[..., None], described: Described, dtype: torch.dtype) -> None:
    """Compile a loop, and run it for a neuron, whose states are 1.

    Raises:
        PluginError: That fails.
    """
    x, *states = (torch.ones(1, dtype=dtype).numpy() for _ in range(1 + len(described.states)))
    number = x.dtype.type
    try:
        loop(x, tuple(states), 0, 1, tuple(map(number, described.constants)), number(0), number(1), 1, 1)
    except Exception as error:
        text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())  # numba writes in colour
        raise PluginError(
            f"The loop of a neuron, {described}, cannot be compiled for {dtype}: {shortened(text, 600)} Correct the "
            "function, which may only use what numba knows, or let InPlaceNeuron.loop return None."
        ) from error


def _stamp(function: Callable[..., Any]) -> str | None:
    """What tells versions of a function apart; None if it is not in a file, and its globals may be anything."""
    try:
        file = Path(function.__code__.co_filename).stat()
    except OSError:
        return None
    known = (function.__code__.co_code, function.__code__.co_consts, file.st_mtime_ns, file.st_size)
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def _with(
    compiled: Any, function: Callable[..., Any], loop: Callable[..., None], stamp: str, place: str = "update"
) -> Callable[..., None]:
    """A loop that calls what is `compiled` from a neuron's function where it calls `place`.

    It becomes one of the loop's globals, and the function's stamp a part of the loop's name: numba stores what it has
    compiled by the name of a loop and the values that it encloses, and would not know the function again among these.
    """
    assert isinstance(loop, types.FunctionType)
    space = {**loop.__globals__, place: compiled}
    found = types.FunctionType(loop.__code__, space, loop.__name__, None, loop.__closure__)
    found.__qualname__ = f"{loop.__qualname__}.{function.__module__}.{function.__qualname__}.{stamp}"
    found.__module__ = loop.__module__
    return found


def update(*given: Any) -> Any:
    """Stands for a neuron's own function, which `_with` puts in its place."""
    raise NotImplementedError


def neurons(*given: Any) -> None:
    """Stands for the loop of a neuron's own function in loops that `loop_around` compiles."""
    raise NotImplementedError


# All of them overwrite the currents `x` of `steps` steps, a `stride` apart, with the outputs, for `count` neurons from
# the number `begin` on. `clock` and `one` are numbers in the neurons' precision: the steps before, and 1.


def one_state(
    x: Any, states: Any, begin: int, count: int, constants: Any, clock: Any, one: Any, steps: int, stride: int
) -> None:
    for start in range(0, count, BLOCK):
        end = min(start + BLOCK, count)
        first = states[0][begin + start : begin + end]
        for t in range(steps):
            currents = x[t * stride + start : t * stride + end]
            for i in range(first.shape[0]):
                currents[i], first[i] = update(currents[i], first[i], *constants)


def two_states(
    x: Any, states: Any, begin: int, count: int, constants: Any, clock: Any, one: Any, steps: int, stride: int
) -> None:
    for start in range(0, count, BLOCK):
        end = min(start + BLOCK, count)
        first, second = states[0][begin + start : begin + end], states[1][begin + start : begin + end]
        for t in range(steps):
            currents = x[t * stride + start : t * stride + end]
            for i in range(first.shape[0]):
                currents[i], first[i], second[i] = update(currents[i], first[i], second[i], *constants)


def one_state_clocked(
    x: Any, states: Any, begin: int, count: int, constants: Any, clock: Any, one: Any, steps: int, stride: int
) -> None:
    for start in range(0, count, BLOCK):
        end, step = min(start + BLOCK, count), clock
        first = states[0][begin + start : begin + end]
        for t in range(steps):
            step += one
            currents = x[t * stride + start : t * stride + end]
            for i in range(first.shape[0]):
                currents[i], first[i] = update(currents[i], first[i], step, *constants)


def two_states_clocked(
    x: Any, states: Any, begin: int, count: int, constants: Any, clock: Any, one: Any, steps: int, stride: int
) -> None:
    for start in range(0, count, BLOCK):
        end, step = min(start + BLOCK, count), clock
        first, second = states[0][begin + start : begin + end], states[1][begin + start : begin + end]
        for t in range(steps):
            step += one
            currents = x[t * stride + start : t * stride + end]
            for i in range(first.shape[0]):
                currents[i], first[i], second[i] = update(currents[i], first[i], second[i], step, *constants)


def changing(
    x: Any, states: Any, begin: int, count: int, constants: Any, clock: Any, one: Any, steps: int, stride: int
) -> None:
    for start in range(0, count, BLOCK):
        end, step = min(start + BLOCK, count), clock
        total, value = states[0][begin + start : begin + end], states[1][begin + start : begin + end]
        for t in range(steps):
            step += one
            currents = x[t * stride + start : t * stride + end]
            for i in range(total.shape[0]):
                charged = total[i] + currents[i]
                change = update(charged / step, value[i], *constants)
                total[i], currents[i] = charged, value[i] + change * step
                value[i] += change


def send_changes(means: Any, values: Any, sent: Any, constants: Any) -> None:
    """Write the changes of neurons with these mean currents to `sent`, and adjust their values."""
    for i in range(means.shape[0]):
        change = update(means[i], values[i], *constants)
        values[i] += change
        sent[i] = change


CHANGES = "changes"

LOOPS: dict[str | tuple[int, bool], Callable[..., None]] = {
    CHANGES: changing,
    (1, False): one_state,
    (2, False): two_states,
    (1, True): one_state_clocked,
    (2, True): two_states_clocked,
}
"""By the number of states, and whether the steps are counted; one for the neurons of a `ChangeLoop`."""
