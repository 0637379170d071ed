"""A converted network as a function of its inputs and its states, for torch.export."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..compat import MemoryModule, fresh_memories, memories, reset_memories
from ..errors import InputError
from ..layers import InitialPotential, InPlaceNeuron, MemoryLayer, StepBias
from ..support.neutral import neutrally
from ..support.wording import listed, shown

__all__ = ["FunctionalStep", "functional_step"]

States = dict[str, Tensor]


class FunctionalStep(nn.Module):
    """``(states, *inputs) -> (outputs, states)``, without memory; `functional_step` makes it.

    Args:
        network: A network of its own, reset.
        places: The layer and the attribute that each state stands for, by the name of the state.
    """

    def __init__(self, network: nn.Module, places: Mapping[str, tuple[str, str]]) -> None:
        super().__init__()
        self.network = network
        self._places = dict(places)

    def forward(self, states: States, *inputs: Any) -> tuple[Any, States]:
        """The outputs of one step (in step mode "m", of all steps of the inputs), and the states after it."""
        layers = {name: (self.network.get_submodule(layer), key) for name, (layer, key) in self._places.items()}
        try:
            for name, (layer, key) in layers.items():
                setattr(layer, key, states[name].clone())  # neurons write into it
            outputs = self.network(*inputs)
            return outputs, {name: getattr(layer, key) for name, (layer, key) in layers.items()}
        finally:
            for layer, key in layers.values():
                setattr(layer, key, fresh_memories(layer)[key])


class _PotentialOfFirstStep(MemoryLayer):
    """An `InitialPotential` whose memory is a tensor: 1 before the first step, then 0."""

    waiting: Any

    def __init__(self, potential: Tensor) -> None:
        super().__init__()
        self.register_buffer("potential", potential)
        self.register_memory("waiting", 1.0)

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        waiting = self.waiting
        if not isinstance(waiting, Tensor):
            waiting = x.new_full((len(x), *(1 for _ in x.shape[1:])), waiting)
        self.waiting = torch.zeros_like(waiting)
        out: Tensor = x + waiting * self.potential
        return out


class _StepBiasByCount(MemoryLayer):
    """A `StepBias` whose memory is a tensor with a number for each sample: the steps since the reset."""

    done: Any

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("bias", torch.cat([bias, torch.zeros_like(bias[:1])]))
        self.register_memory("done", 0.0)

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        done = self.done
        if not isinstance(done, Tensor):
            done = x.new_full((len(x), *(1 for _ in x.shape[1:])), done)
        last = len(self.bias) - 1
        self.done = (done + 1).clamp(max=last)
        found = self.bias.index_select(0, done.flatten().long())
        out: Tensor = x + found.reshape(-1, *(1,) * (x.dim() - found.dim()), *found.shape[1:])
        return out


@neutrally
@torch.no_grad()
def functional_step(snn: nn.Module, *inputs: Any) -> tuple[FunctionalStep, States]:
    """A step of a converted network as a function of its inputs and states, and the states before the first step.

    >>> import torch
    >>> from sj_ann2snn import Converter, functional_step
    >>> ann, x = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), torch.rand(64, 4)
    >>> snn = Converter([x], progress=False)(ann)
    >>> step, states = functional_step(snn, x)
    >>> program = torch.export.export(step, (states, x)).module()
    >>> total = 0
    >>> for t in range(20):
    ...     out, states = program(states, x)
    ...     total = total + out
    >>> total.shape, {name: state.shape for name, state in states.items()}
    (torch.Size([64, 3]), {'1.v': torch.Size([64, 3])})

    A converted network remembers potentials in attributes, which `torch.export` does not keep from call to call.
    `torch.compile` does, and needs no functional step.

    Args:
        snn: The network, in step mode "s" or "m", in any state. It is left as it is.
        inputs: Its inputs, ``[N, ...]``, in step mode "m" ``[T, N, ...]``. They give the states their sizes.

    Returns:
        The step, a module with a network of its own, and its first states, tensors ``[N, ...]`` by layer and attribute
        (``"1.v"``). Call it with the states in front, and use the states that it returns in the next call.

    Raises:
        InputError: A layer remembers something else than tensors, such as the number of steps.
    """
    network = copy.deepcopy(snn)
    for name, module in list(network.named_modules()):
        made: MemoryLayer
        if isinstance(module, InitialPotential):
            made = _PotentialOfFirstStep(module.potential)
        elif isinstance(module, StepBias):
            made = _StepBiasByCount(module.bias)
        else:
            continue
        made.step_mode = module.step_mode
        _replace(network, name, made)
    reset_memories(network)
    network(*inputs)
    states: States = {}
    places: dict[str, tuple[str, str]] = {}
    problems = []
    for name, module in network.named_modules():
        if not isinstance(module, MemoryModule):
            continue
        now, before = memories(module), fresh_memories(module)
        if isinstance(module, InPlaceNeuron) and isinstance(module.v, Tensor):
            module.start(torch.empty_like(module.v))
            before = memories(module)
        for key, value in now.items():
            if isinstance(value, Tensor):
                start = before[key]
                states[f"{name}.{key}"] = start.clone() if isinstance(start, Tensor) else torch.full_like(value, start)
                places[f"{name}.{key}"] = (name, key)
            elif value != fresh_memories(module)[key]:
                problems.append(f"{name} ({type(module).__name__}: {key} = {shown(value)})")
    if problems:
        raise InputError(
            f"The network cannot become a function of tensors: {listed(problems)} after a step is no tensor. Convert "
            "with layers that remember tensors only, such as neuron='if'."
        )
    reset_memories(network)
    return FunctionalStep(network, places), states


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)
