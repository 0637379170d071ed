"""Measures firing rates: of one neuron over its input, and of a network's neurons over the ANN's activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..compat import make_if_neuron, reset_net

__all__ = ["ann_inputs", "firing_rates", "neuron_rates"]


def neuron_rates(inputs: Tensor, steps: int) -> Tensor:
    """Spikes per step of one IF neuron for every constant input.

    >>> neuron_rates(torch.tensor([-0.5, 0.0, 0.25, 1.0, 3.0]), steps=4).tolist()
    [0.0, 0.0, 0.25, 1.0, 1.0]
    """
    neuron = make_if_neuron()
    spikes = torch.zeros_like(inputs)
    with torch.no_grad():
        for _ in range(steps):
            spikes += neuron(inputs)
    return spikes / steps


def ann_inputs(ann: nn.Module, layers: Iterable[str], images: Tensor) -> dict[str, Tensor]:
    """The input of every named activation layer of the ANN, with all neurons in one dimension."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_: Any, inputs: tuple[Tensor, ...], __: Any) -> None:
            found[name] = inputs[0].detach().clone().flatten().cpu()

        return hook

    handles = [ann.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        with torch.no_grad():
            ann(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def firing_rates(snn: nn.Module, layers: Iterable[str], images: Tensor, steps: int) -> dict[str, Tensor]:
    """Spikes per step of every neuron of the named layers, with all neurons in one dimension.

    The network is stepped by hand, as in SpikingJelly, and reset before and after.
    """
    spikes: dict[str, Tensor] = {}

    def count(name: str) -> Callable[..., None]:
        def hook(_: Any, __: Any, output: Tensor) -> None:
            spikes[name] = spikes[name] + output if name in spikes else output

        return hook

    handles = [snn.get_submodule(name).register_forward_hook(count(name)) for name in layers]
    reset_net(snn)
    try:
        with torch.no_grad():
            for _ in range(steps):
                snn(images)
    finally:
        for handle in handles:
            handle.remove()
        reset_net(snn)
    return {name: total.flatten().cpu() / steps for name, total in spikes.items()}
