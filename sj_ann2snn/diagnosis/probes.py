"""Modules that take the place of neurons and activations, and note what passes them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..compat import MemoryModule, reset_net
from ..layers import MemoryLayer
from ..simulation.engine.numbers.firing import can_fire_in_place, count_emissions, fire, is_spiking
from ..simulation.engine.own_copies import own_copies

__all__ = ["ActivationProbe", "SpikingProbe", "at_once", "run_steps"]


class ActivationProbe(nn.Module):
    """Computes an activation in place of a neuron, and keeps the result.

    Args:
        activation: The function.

    Attributes:
        current: What it received last.
        seen: What it returned last.
        forced: What to return instead; None for the activation.
    """

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation
        self.seen: Tensor | None = None
        self.forced: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.activation(x)
        return self.seen if self.forced is None else self.forced


class SpikingProbe(MemoryLayer):
    """Runs a neuron, or another operation of one input over time, and notes its mean input and output.

    Args:
        inner: The neuron or the operation.
        checkpoints: The numbers of steps after which to note both means.

    Attributes:
        seen: After each of those numbers of steps, the sum of the inputs and the sum of the outputs, ``[N, ...]``,
            until `take` is called.
        spare: Another neuron or operation of the same kind, to try currents on while `inner` goes on.
        spikes: Number of spikes since the last reset.
        emissions: How often the neuron emitted anything.
    """

    steps: int
    sums: tuple[Tensor, Tensor] | None
    seen: dict[int, tuple[Tensor, Tensor]]
    spikes: int
    emissions: int

    def __init__(self, inner: nn.Module, checkpoints: Sequence[int]) -> None:
        super().__init__()
        self.inner, self.checkpoints = inner, tuple(checkpoints)
        self.spare = (own_copies({"": inner}) or {"": copy.deepcopy(inner)})[""]
        for name, value in (("steps", 0), ("sums", None), ("seen", {}), ("spikes", 0), ("emissions", 0)):
            self.register_memory(name, value)

    def reset(self) -> None:
        super().reset()
        reset_net(self.inner)

    def take(self) -> dict[int, tuple[Tensor, Tensor]]:
        """What was noted since the last call, which it does not keep."""
        seen, self.seen = self.seen, {}
        if self.steps == self.checkpoints[-1]:
            self.sums = None
        return seen

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.multi_step_forward(x.unsqueeze(0), *args, **kwargs).squeeze(0)

    @torch.no_grad()
    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        outputs = []
        for part in self._stretches(x_seq):
            # In double precision, the mean of a constant current is that current, to the last bit.
            current = part.sum(0, dtype=torch.float64)
            out = run_steps(self.inner, part)
            emitted = out.sum(0, dtype=torch.float64)
            if is_spiking(self.inner):
                found = count_emissions(self.inner, out)
                self.spikes += int(found.spikes.sum())
                self.emissions += int(found.emissions.sum())
            before = self.sums
            self.sums = (current, emitted) if before is None else (before[0] + current, before[1] + emitted)
            self.steps = self.steps + len(part)
            if self.steps in self.checkpoints:
                self.seen[self.steps] = self.sums
            outputs.append(out)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _stretches(self, x_seq: Tensor) -> Iterator[Tensor]:
        """The steps up to the next checkpoint, to the one after that, and so on."""
        start = 0
        for checkpoint in (*self.checkpoints, self.steps + len(x_seq)):
            end = min(checkpoint - self.steps + start, len(x_seq)) if checkpoint > self.steps else start
            if end > start:
                yield x_seq[start:end]
                start = end


def run_steps(module: nn.Module, x_seq: Tensor) -> Tensor:
    """The outputs of a neuron, or of another module, for the inputs ``[T, N, ...]``, which stay as they are."""
    if is_spiking(module) and can_fire_in_place(module, x_seq):
        return fire(module, x_seq, overwrite=False)
    if hasattr(module, "step_mode"):
        module.step_mode = "m"  # type: ignore[assignment]
        result: Tensor = module(x_seq)
        return result
    assert not isinstance(module, MemoryModule)
    merged = module(x_seq.flatten(0, 1))
    return merged.view(*x_seq.shape[:2], *merged.shape[1:])  # type: ignore[no-any-return]


def at_once(module: nn.Module, x: Tensor) -> Tensor:
    """What an operation over time makes of a constant input ``[N, ...]``, which is what the ANN's computes."""
    reset_net(module)
    if hasattr(module, "step_mode"):
        module.step_mode = "s"  # type: ignore[assignment]
    with torch.no_grad():
        result: Tensor = module(x)
    reset_net(module)
    return result
