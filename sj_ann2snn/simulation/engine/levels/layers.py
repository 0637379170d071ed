"""Layers that read and write graded spikes: neurons whose outputs are whole numbers, and cumulative max pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ....layers import InPlaceNeuron, IntegerIF, NeuronLoop
from ....support.compiled import compiled_loop
from ....support.exact_sums import Range, fits_levels
from ..compiled.arrays import channels_innermost, flat
from ..compiled.constants import BLOCK
from ..compiled.neuron_loops import known_loop, loop_around
from ..packed.modules import is_watched
from ..packed.pools import pooling
from .values import Levels

__all__ = ["Charging", "charging", "emits_levels", "fire_levels", "pool_levels"]

LARGEST = (1 << 15) - 1
"""Cumulative pools add up the spikes of all steps in 16 bits."""


def emits_levels(neuron: nn.Module, steps: int) -> Range | None:
    """The smallest and the largest output of a neuron that `fire_levels` can stand for; None for any other."""
    if not isinstance(neuron, InPlaceNeuron) or isinstance(neuron, IntegerIF) or is_watched(neuron):
        return None
    found = neuron.output_range
    if found is None or not fits_levels(found) or steps * max(map(abs, found)) > LARGEST:
        return None
    return found if isinstance(known_loop(neuron, torch.float32), NeuronLoop) else None


class Charging(NamedTuple):
    """What a loop needs to charge neurons.

    Attributes:
        described: The update.
        states: The neurons' states ``[N, ..., C]``, by name: memory of their own that may be written to.
        clock: The number of steps before.
    """

    described: NeuronLoop
    states: dict[str, Tensor]
    clock: int

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The states, constants, steps before, and 1, as loops take them."""
        single = np.float32
        states, constants = tuple(map(flat, self.states.values())), tuple(map(single, self.described.constants))
        return states, constants, single(self.clock), single(1)

    def loop(self, around: Callable[..., None]) -> Any:
        """A loop that charges the neurons, compiled."""
        return loop_around(around, self.described)

    def leave(self, neuron: InPlaceNeuron, steps: int) -> None:
        """Give the neuron its states after so many steps."""
        for name, state in self.states.items():
            setattr(neuron, name, state.movedim(-1, 1))
        if self.described.clock is not None:
            setattr(neuron, self.described.clock, self.clock + steps)


def charging(neuron: InPlaceNeuron, shape: tuple[int, ...]) -> Charging | None:
    """What a loop needs to charge a neuron by currents of the `shape` ``(N, C, ...)``; None if its states differ."""
    described = known_loop(neuron, torch.float32)
    if not isinstance(described, NeuronLoop):
        return None
    if not isinstance(neuron.v, Tensor) or neuron.v.shape != shape:
        neuron.start(torch.zeros(shape, dtype=torch.float32))
    states = {name: getattr(neuron, name) for name in described.states}
    if any(state.shape != shape or state.dtype != torch.float32 for state in states.values()):
        return None
    own = {name: channels_innermost(state, 1) for name, state in states.items()}
    return Charging(described, own, 0 if described.clock is None else int(getattr(neuron, described.clock)))


def fire_levels(neuron: InPlaceNeuron, x_seq: Tensor) -> Levels | None:
    """The spikes of a neuron for the currents ``[T, N, C, ...]``, which may be one step repeated."""
    from .kernels import fire_levels as loop

    steps, same = x_seq.shape[0], x_seq.stride(0) == 0
    charged = charging(neuron, tuple(x_seq.shape[1:]))
    if charged is None:
        return None
    currents = channels_innermost(x_seq[:1] if same else x_seq, 2)
    codes = torch.empty(steps, *currents.shape[1:], dtype=torch.int16)
    line = np.empty(BLOCK, dtype=np.float32)
    compiled = charged.loop(loop)
    compiled(flat(currents), 0 if same else codes[0].numel(), *charged.arguments, line, flat(codes), steps)
    charged.leave(neuron, steps)
    return Levels(codes)


def pool_levels(pool: Any, levels: Levels) -> Levels | None:
    """The output of a cumulative max pool."""
    from .kernels import pool_levels as loop

    found = pooling(pool, levels.shape)
    if found is None:
        return None
    steps, samples, channels, *_ = levels.shape
    out = torch.empty(steps, samples, *found.places, channels, dtype=torch.int16)
    lowest = np.full(channels, -LARGEST, dtype=np.int16)
    compiled: Any = compiled_loop(loop)
    compiled(*map(flat, (levels.codes, found.total, found.emitted, out)), lowest, found.sizes)
    found.leave(pool)
    return Levels(out)
