"""Spikes for layers, and what IF neurons make of currents."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sj_ann2snn.simulation.engine.bits.values import PackedSpikes

STEPS, SAMPLES = 3, 2


def random_spikes(channels: int, *places: int, rate: float = 0.2) -> Tensor:
    return (torch.rand(STEPS, SAMPLES, channels, *places) < rate).float()


def packed(spikes: Tensor) -> PackedSpikes:
    """``[T, N, C, ...]`` in bits."""
    inner = spikes.movedim(2, -1)
    whole = F.pad(inner, (0, -inner.shape[-1] % 8))
    bits = whole.reshape(*inner.shape[:-1], -1, 8).to(torch.uint8) << torch.arange(8, dtype=torch.uint8)
    return PackedSpikes(bits.sum(-1).to(torch.uint8), inner.shape[-1])


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
