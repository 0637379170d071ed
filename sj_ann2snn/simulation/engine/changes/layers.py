"""Layers that read and write changes: neurons that represent a value, cumulative max pools and average pools."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ....compat import memories
from ....errors import PluginError
from ....layers import ChangeLoop, InPlaceNeuron
from ....support.compiled import compiled_loop
from ..compiled.arrays import channels_innermost, flat
from ..compiled.neuron_loops import changes_around, known_loop
from ..packed.modules import is_watched
from ..packed.pools import windows_of
from ..packed.repeated import Repeated
from .values import Changes

__all__ = ["NOBODY", "average_changes", "can_be_changed", "emits_changes", "fire_changes", "pool_changes", "receiving"]

NOBODY: Any = (np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.uint8), np.zeros(1, dtype=np.int32))
"""What a loop gets for a source that there is not."""


def emits_changes(neuron: Any) -> bool:
    """True for a neuron that sends changes.

    Raises:
        PluginError: It lacks a memory that its `ChangeLoop` names.
    """
    if not isinstance(neuron, InPlaceNeuron) or is_watched(neuron) or neuron.initial_potential:
        return False
    described = known_loop(neuron, torch.float32)
    if not isinstance(described, ChangeLoop):
        return False
    missing = [repr(name) for name in described.memories if name not in memories(neuron)]
    if missing:
        raise PluginError(
            f"{described} of {type(neuron).__name__} names {', '.join(missing)}, which it does not remember, so that a "
            "reset does not restore it. Call register_memory(name, value) in its constructor: None for the mean "
            "current and the value, 0 for the number of steps."
        )
    return True


def can_be_changed(currents: Any) -> bool:
    """True for currents ``[T, N, C, ...]`` that `fire_changes` takes: in single precision, on a CPU."""
    x = currents.distinct if isinstance(currents, Repeated) else currents
    return (
        isinstance(x, Tensor) and x.dtype == torch.float32 and x.device.type == "cpu" and x.dim() > 2 and x.numel() > 0
    )


class Receiving(NamedTuple):
    """What a loop needs to let neurons send changes.

    Attributes:
        described: The update.
        total: The sum of the currents so far, ``[N, ..., C]``, like the next two memory that may be written to.
        mean: Their mean, or None if the neuron has only the sum.
        value: What the neurons represent.
        clock: The number of steps before.
    """

    described: ChangeLoop
    total: Tensor
    mean: Tensor | None
    value: Tensor
    clock: int

    def out(self, steps: int) -> Changes:
        """Memory for what the neurons send."""
        samples, *places, channels = self.value.shape
        start = self.value.clone() if self.clock else None
        return Changes.empty((steps, samples, channels, *places), self.clock, start)

    @property
    def constants(self) -> tuple[Any, ...]:
        """The update's, as loops take them."""
        return tuple(map(np.float32, self.described.constants))

    def run(self, loop: Any, *given: Any) -> None:
        """Call a loop with the neurons' update."""
        changes_around(loop, self.described)(*given)

    def leave(self, neuron: Any, steps: int, means: Tensor | None) -> None:
        """Give the neuron its memory after so many steps; `means` if the currents' sum does not hold any more."""
        total = self.total if means is None else means * (self.clock + steps)
        for name, state in ((self.described.total, total), (self.described.value, self.value)):
            setattr(neuron, name, state.movedim(-1, 1))
        setattr(neuron, self.described.mean, None if means is None else means.movedim(-1, 1))
        setattr(neuron, self.described.clock, self.clock + steps)


def receiving(neuron: Any, shape: tuple[int, ...]) -> Receiving | None:
    """What a loop needs for a neuron and currents of the `shape` ``(N, C, ...)``; None if its memory differs."""
    described = known_loop(neuron, torch.float32)
    if not isinstance(described, ChangeLoop):
        return None
    if not isinstance(neuron.v, Tensor) or neuron.v.shape != shape:
        neuron.start(torch.zeros(shape, dtype=torch.float32))
    names = (described.total, described.mean, described.value)
    states = [getattr(neuron, name) for name in names]
    if any(one is not None and (one.shape != shape or one.dtype != torch.float32) for one in states):
        return None
    total, mean, value = (None if one is None else channels_innermost(one, 1) for one in states)
    if total is None or value is None:
        return None
    return Receiving(described, total, mean, value, int(getattr(neuron, described.clock)))


def fire_changes(neuron: Any, currents: Tensor | Repeated, *, constant: bool) -> Changes | None:
    """The changes that a neuron sends for the currents ``[T, N, C, ...]``, which may be the same at every step."""
    from .kernels import NOTHING, charge_changes
    from .kernels import fire_changes as loop

    found = receiving(neuron, tuple(currents.shape[1:]))
    if found is None:
        return None
    steps, samples, channels, *_ = currents.shape
    x_seq, rows = (
        (currents, list(range(steps))) if isinstance(currents, Tensor) else (currents.distinct, currents.rows())
    )
    out = found.out(steps)
    places = found.value[0].numel() // channels
    if constant and (found.mean is not None or not found.clock):
        # The mean of a constant is the constant.
        means = channels_innermost(x_seq[0], 1).clone()
        memory = np.empty(means[0].numel(), dtype=np.float32), np.empty(1, dtype=np.uint8), ()
        sizes = (steps, samples, channels, 1, places, 0, 0)
        charge = charge_changes(NOTHING, NOTHING)
        found.run(
            charge, (NOBODY, NOBODY), flat(means), flat(found.value), out.arguments, found.constants, memory, sizes
        )
        found.leave(neuron, steps, means)
        return out
    if found.mean is not None:
        return None
    x = flat(channels_innermost(x_seq, 2)), np.array(rows, dtype=np.int64)
    line = np.empty(found.value[0].numel(), dtype=np.float32)
    single = np.float32
    clock = single(found.clock), single(1)
    states = flat(found.total), flat(found.value)
    found.run(loop, *x, *states, out.arguments, found.constants, *clock, line, (steps, samples, channels, places))
    found.leave(neuron, steps, None)
    return out


def pool_changes(pool: Any, changes: Changes) -> Changes | None:
    """The output of a cumulative max pool, as changes of the largest values."""
    from .kernels import pool_changes as loop

    steps, samples, channels, *places = changes.shape
    found = windows_of(pool, tuple(places))
    if found is None or len(places) != 2:
        return None
    start = None
    most = torch.zeros(samples, *found.outputs, channels, dtype=torch.float32)
    if changes.start is not None:
        geometry = found.window, found.stride, found.padding, 1, pool.ceil_mode
        start = F.max_pool2d(changes.start.movedim(-1, 1), *geometry).movedim(1, -1).contiguous()
        most = start.clone()
    out = Changes.empty((steps, samples, channels, *found.outputs), changes.before, start)
    dirty = np.empty(math.prod(found.outputs), dtype=np.uint8)
    sizes = (steps, samples, channels, *places, *found.outputs, *found.window, *found.stride, *found.padding)
    compiled: Any = compiled_loop(loop)
    compiled(changes.arguments, flat(changes.values()), flat(most), out.arguments, dirty, sizes)
    return out


def average_changes(pool: Any, changes: Changes) -> Changes | None:
    """The output of an average pool."""
    from .kernels import average_changes as loop

    steps, samples, channels, *places = changes.shape
    found = windows_of(pool, tuple(places))
    if found is None or len(places) != 2:
        return None
    start = None
    if changes.start is not None:
        start = F.avg_pool2d(changes.start.movedim(-1, 1), found.window, found.stride).movedim(1, -1).contiguous()
    out = Changes.empty((steps, samples, channels, *found.outputs), changes.before, start)
    compiled: Any = compiled_loop(loop)
    compiled(
        changes.arguments,
        out.arguments,
        np.float32(1 / math.prod(found.window)),
        (steps, samples, channels, *places, *found.outputs, *found.window, *found.stride),
    )
    return out
