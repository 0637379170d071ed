"""Integrate-and-fire neurons, run step by step and in plain Python."""

from __future__ import annotations

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn


def spikes_in_python(currents: list[float], steps: int, start: float = 0.0) -> list[list[float]]:
    """Integrate, fire at 1, subtract 1: in plain Python."""
    potentials, spikes = [start] * len(currents), []
    for _ in range(steps):
        row = []
        for index, current in enumerate(currents):
            potentials[index] += current
            fired = potentials[index] >= 1.0
            potentials[index] -= 1.0 if fired else 0.0
            row.append(1.0 if fired else 0.0)
        spikes.append(row)
    return spikes


def run(node: nn.Module, currents: Tensor, steps: int) -> Tensor:
    functional.reset_net(node)
    return torch.stack([node(currents) for _ in range(steps)])
