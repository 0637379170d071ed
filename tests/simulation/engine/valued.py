"""Neurons that send changes of the value that they represent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import ChangeLoop, InPlaceNeuron, NeuronMaker, NeuronSite
from sj_ann2snn.layers import Scaler

np = pytest.importorskip("numpy")

UNIT, LARGEST = 1 / 16, 24


def nearest(mean: Any, value: Any, nothing: Any, unit: Any, largest: Any) -> Any:
    return min(max(np.rint((max(mean, nothing) - value) / unit), -largest), largest) * unit


class Valued(InPlaceNeuron):
    """Represents the positive part of its mean current in units, and sends changes of at most `LARGEST` of them."""

    def __init__(self, largest: int = LARGEST) -> None:
        super().__init__()
        self.largest = largest
        self.register_memory("value", None)
        self.register_memory("mean", None)
        self.register_memory("steps", 0)

    def start(self, x: Tensor) -> None:
        super().start(x)
        self.value = torch.zeros_like(x)

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.value is not None
        self.v += x
        self.mean = None
        self.steps += 1
        missing = (self.v / self.steps).clamp_(min=0) - self.value
        change = missing.div_(UNIT).round_().clamp_(-self.largest, self.largest).mul_(UNIT)
        torch.add(self.value, change, alpha=self.steps, out=out)
        self.value += change

    def loop(self, dtype: torch.dtype) -> ChangeLoop:
        return ChangeLoop(nearest, (0, UNIT, self.largest))

    def spikes_per_step(self, emitted: Tensor) -> Tensor:
        """From the outputs, backwards: an output is ``a + t q``, after which the value is ``a + q``."""
        value, found = self.value, []
        for step, out in zip(range(self.steps, 0, -1), reversed(emitted), strict=False):
            before = (step * value - out) / (step - 1) if step > 1 else torch.zeros_like(value)
            found.append((value - before).div(UNIT).round().count_nonzero())
            value = before.div(UNIT).round() * UNIT
        return torch.stack(found[::-1])

    emissions_per_step = spikes_per_step


class Maker(NeuronMaker):
    name = "valued"
    resolution = UNIT / 2

    def make(self, site: NeuronSite) -> nn.Module:
        return Valued()


def exactly(module: Any) -> Any:
    """The module with numbers so short that no sum is rounded."""
    with torch.no_grad():
        for one in module.modules():
            for name in ("weight", "bias", "scale"):
                if isinstance(getattr(one, name, None), Tensor) and isinstance(one, (nn.Conv2d, nn.Linear, Scaler)):
                    number = getattr(one, name)
                    number.copy_((number * 64).round() / 64)
    return module
