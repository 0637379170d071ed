"""Spikes for layers, and what IF neurons make of currents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

STEPS, SAMPLES = 3, 2


def random_spikes(channels: int, *places: int, rate: float = 0.2) -> Tensor:
    return (torch.rand(STEPS, SAMPLES, channels, *places) < rate).float()


def fire(currents: Tensor) -> tuple[Tensor, Tensor]:
    """The spikes of IF neurons, and their potentials at the end."""
    v, spikes = torch.zeros_like(currents[0]), []
    for x in currents:
        v = v + x
        spikes.append((v >= 1).float())
        v = v - spikes[-1]
    return torch.stack(spikes), v


class Neuron:
    """What a layer needs of one."""

    v: Any = 0.0
    v_threshold = 1.0
