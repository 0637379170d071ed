"""The base class of spiking neurons that SpikingJelly lacks."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import PluginError
from .memory import MemoryLayer

__all__ = ["ChangeLoop", "InPlaceNeuron", "NeuronLoop", "active_per_step", "sum_per_step"]


def sum_per_step(values: Tensor) -> Tensor:
    """The sum of ``[T, N, ...]`` at every step, ``[T]``, in int64 on the CPU.

    >>> sum_per_step(torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [2.0, 0.0]]]))
    tensor([3, 2])
    """
    dtype = torch.float64 if values.dtype == torch.float64 else torch.float32
    # The sum per sample is exact in single precision, which is ten times as fast as double.
    per_sample = values.sum(dim=tuple(range(2, values.dim())), dtype=dtype) if values.dim() > 2 else values
    return per_sample.sum(dim=1, dtype=torch.float64).cpu().round_().long()


def active_per_step(values: Tensor) -> Tensor:
    """How many of the values ``[T, N, ...]`` are nonzero at every step, ``[T]``, in int64 on the CPU."""
    # Step by step: counting along dimensions needs a copy as large as the values.
    return torch.stack([one.count_nonzero() for one in values.unbind(0)]).cpu()


@dataclass(frozen=True)
class NeuronLoop:
    """The update of one neuron in one step, as a function that the simulator compiles with numba.

    >>> import math
    >>> def fire(x, v, least, levels):
    ...     v = v + x
    ...     out = min(max(math.floor(v), least), levels)
    ...     return out, v - out
    >>> loop = NeuronLoop(fire, constants=(0, 3))
    >>> loop.update(2.5, 0.0, *loop.constants)
    (2, 0.5)

    On a CPU, all steps of all neurons then take one pass through memory, instead of one for every operation of
    `InPlaceNeuron.step`.

    Attributes:
        update: From the current, the states, the number of the step if there is a `clock`, and the constants, in this
            order, the output and the new states. It computes what `InPlaceNeuron.step` does, to the last bit. All its
            arguments are numbers in the neuron's precision; numbers that are written into it might have another one, so
            they are better among the constants. It is a function of a module, and no closure.
        states: The names of its states, one or two: tensors ``[N, ...]`` of the neuron, made by `InPlaceNeuron.start`.
        constants: Numbers for the update.
        clock: The name of the neuron's memory that counts steps, a whole number.

    Raises:
        PluginError: `update` is a closure, or there are no or more than two states.
    """

    update: Callable[..., tuple[Any, ...]]
    states: tuple[str, ...] = ("v",)
    constants: tuple[float, ...] = ()
    clock: str | None = None

    def __post_init__(self) -> None:
        _require_no_closure(self)
        if len(self.states) not in (1, 2):
            raise PluginError(
                f"{self} is not allowed: a neuron has one or two states there. Leave InPlaceNeuron.loop as it is for "
                "others."
            )

    def __str__(self) -> str:
        return f"NeuronLoop(update={_name(self.update)}, states={self.states!r}, clock={self.clock!r})"


@dataclass(frozen=True)
class ChangeLoop:
    """The update of a neuron that represents a value and sends changes of it, as a function for numba to compile.

    >>> def fire(mean, value, unit):
    ...     return unit * round((max(mean, 0) - value) / unit)
    >>> loop = ChangeLoop(fire, constants=(0.25,))
    >>> loop.update(0.8, 0.5, *loop.constants)
    0.25

    The neuron's output at step t is ``a + t q`` for the value a and its change q at this step, so the mean of its
    outputs is the new value, ``a + q``. A layer's mean current then changes by what the layer makes of q alone. The
    simulator passes on changes instead of outputs, and asks a neuron for its next change only if its mean current has
    changed or it has just sent one. A change counts as one spike, whatever its size.

    Attributes:
        update: From the mean current so far, the value and the constants, the change. It depends on nothing else, so
            that a neuron that has sent none sends none until its mean current changes. It obeys the same rules as in
            `NeuronLoop`.
        constants: Numbers for the update.
        total: The name of the neuron's memory for the sum of the currents so far, ``[N, ...]``.
        value: The same for the value, which is zero at first.
        mean: The same for the mean current, None where the neuron itself works with the sum.
        clock: The same for the number of steps so far.

    Raises:
        PluginError: `update` is a closure.

    Source: Huang et al. 2025, "Differential coding for training-free ANN-to-SNN conversion".
    """

    update: Callable[..., Any]
    constants: tuple[float, ...] = ()
    total: str = "v"
    value: str = "value"
    mean: str = "mean"
    clock: str = "steps"

    def __post_init__(self) -> None:
        _require_no_closure(self)

    @property
    def states(self) -> tuple[str, str]:
        """The states that the neuron itself works with."""
        return self.total, self.value

    @property
    def memories(self) -> tuple[str, ...]:
        """The names of all memories."""
        return *self.states, self.mean, self.clock

    def __str__(self) -> str:
        return f"ChangeLoop(update={_name(self.update)})"


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _require_no_closure(loop: NeuronLoop | ChangeLoop) -> None:
    if getattr(loop.update, "__closure__", None):
        raise PluginError(
            f"{loop} is not allowed: the function encloses {', '.join(loop.update.__code__.co_freevars)}, and what is "
            "compiled is stored by its code alone. Move the function to its module, and hand over such values as "
            "constants."
        )


class InPlaceNeuron(MemoryLayer):
    """A neuron defined by one in-place update, which gives it both step modes and the simulator's fast path.

    >>> import torch
    >>> from sj_ann2snn import InPlaceNeuron
    >>> class Rounding(InPlaceNeuron):
    ...     def step(self, x, out):
    ...         self.v += x
    ...         torch.floor(self.v, out=out)
    ...         self.v -= out
    >>> neuron = Rounding(initial_potential=0.5)
    >>> [neuron(torch.tensor([0.75])).item() for _ in range(4)]
    [1.0, 1.0, 0.0, 1.0]

    The membrane potential `v` is ``[N, ...]``; currents and spikes are in units of one spike. The neuron does not
    propagate gradients. Further state: call ``register_memory(name, None)`` in the constructor, and make the tensor in
    `start`.

    Args:
        initial_potential: Membrane potential after a reset.
    """

    v: Tensor | None
    output_range: tuple[int, int] | None = None
    """The smallest and the largest output of a step, if all outputs are whole numbers; None if they may be others.

    With it, the converter rounds the weights behind the neuron so that sums of its outputs are exact, and the simulator
    keeps them as small integers. The neuron then has a `loop`, and `start` reads no values of its argument.
    """

    def __init__(self, *, initial_potential: float = 0.0) -> None:
        super().__init__()
        self.initial_potential = float(initial_potential)
        self.register_memory("v", None)

    @abc.abstractmethod
    def step(self, x: Tensor, out: Tensor) -> None:
        """Take in the currents of one step and write the spikes to `out`, which may be `x` itself.

        Args:
            x: ``[N, ...]``.
            out: In the same shape.
        """

    def start(self, x: Tensor) -> None:
        """Create the state for currents like `x`; called at the first step after a reset."""
        self.v = torch.full_like(x, self.initial_potential)

    def loop(self, dtype: torch.dtype) -> NeuronLoop | ChangeLoop | None:
        """The same as `step`, for the simulator to compile; None, as by default, if it shall call `step`.

        A class that overrides `step` alone does not inherit the loop.

        Args:
            dtype: The precision of the currents and the states.
        """
        return None

    @torch.no_grad()
    def fire(self, x_seq: Tensor, spikes: Tensor) -> None:
        """Process the currents ``[T, N, ...]`` and write the spikes to `spikes`, which may be `x_seq` itself."""
        if not isinstance(self.v, Tensor) or self.v.shape != x_seq.shape[1:]:
            self.start(x_seq[0])
        for x, out in zip(x_seq.unbind(0), spikes.unbind(0), strict=True):
            self.step(x, out)

    def count_spikes(self, emitted: Tensor) -> int:
        """Number of spikes in `emitted` ``[T, N, ...]``, the output of the last call of `fire`.

        A graded spike counts by its absolute value.
        """
        return int(self.spikes_per_step(emitted).sum())

    def count_emissions(self, emitted: Tensor) -> int:
        """How often a neuron emitted anything, of any value; `emitted` is as for `count_spikes`."""
        return int(self.emissions_per_step(emitted).sum())

    def spikes_per_step(self, emitted: Tensor) -> Tensor:
        """`count_spikes` of every step, ``[T]``; override it if the outputs are not the spikes themselves."""
        return sum_per_step(emitted.abs())

    def emissions_per_step(self, emitted: Tensor) -> Tensor:
        """`count_emissions` of every step, ``[T]``; override it together with `spikes_per_step`."""
        return active_per_step(emitted)

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.multi_step_forward(x.unsqueeze(0)).squeeze(0)

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        spikes = torch.empty_like(x_seq)
        self.fire(x_seq.detach(), spikes)
        return spikes

    def extra_repr(self) -> str:
        return f"initial_potential={self.initial_potential}, step_mode={self.step_mode}"
