"""A neuron that can emit several spikes in one step."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sj_ann2snn import InPlaceNeuron, NeuronLoop, NeuronMaker, NeuronSite, require_integer, require_number

__all__ = ["Burst", "BurstNeuron"]


def fire(x: Any, v: Any, nothing: Any, levels: Any) -> tuple[Any, Any]:
    """`BurstNeuron.step` for one neuron; `nothing` is 0."""
    v = v + x
    spikes = min(max(np.floor(v), nothing), levels)
    return spikes, v - spikes


class BurstNeuron(InPlaceNeuron):
    """Integrate-and-fire with threshold 1 and soft reset; emits as many spikes as its potential allows, up to `levels`.

    >>> neuron = BurstNeuron(levels=3)
    >>> [neuron(torch.tensor([current])).item() for current in (2.5, 0.5, 9.0, -9.0)]
    [2.0, 1.0, 3.0, 0.0]

    Args:
        levels: Maximum number of spikes in a step.
        initial_potential: Membrane potential after a reset, as a fraction of the threshold.

    Shapes: currents and spikes are ``[N, ...]``, in step mode "m" ``[T, N, ...]``.
    """

    def __init__(self, *, levels: int, initial_potential: float = 0.0) -> None:
        super().__init__(initial_potential=initial_potential)
        self.levels = levels
        self.output_range = (0, self.levels)

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v += x
        torch.floor(self.v, out=out)
        out.clamp_(0, self.levels)
        self.v -= out

    def loop(self, dtype: torch.dtype) -> NeuronLoop:
        return NeuronLoop(fire, constants=(0, self.levels))

    def export_options(self) -> dict[str, Any]:
        """The keywords that rebuild it."""
        return {"levels": self.levels, "initial_potential": self.initial_potential}

    def extra_repr(self) -> str:
        return f"levels={self.levels}, {super().extra_repr()}"


class Burst(NeuronMaker):
    """A neuron that emits up to k spikes in a step, each worth λ / k.

    >>> Burst(levels=8).unit(torch.tensor(2.0))
    tensor(0.2500)

    A step then distinguishes k + 1 values instead of two, and a rate over T steps k·T + 1.

    Args:
        levels: k, at least 1; 1 is the plain IF neuron.
        initial_potential: Membrane potential after a reset, as a fraction of the threshold λ / k. The default of one
            half rounds to the nearest level instead of down.

    Raises:
        OptionError: `levels` is not an integer of at least 1, or `initial_potential` is outside [0, 1).

    Source: Li & Zeng 2022, "Efficient and accurate conversion of spiking neural network with burst spikes",
    where a neuron fires again within a step while its potential is above the threshold. There, λ remains the value of a
    spike; here, λ is divided among the spikes, which improves the resolution.
    """

    name = "burst"
    tunable: ClassVar = {"levels": (2, 4, 8)}
    exports = (BurstNeuron,)

    def __init__(self, *, levels: int = 4, initial_potential: float = 0.5) -> None:
        self.levels = require_integer("levels", levels, what="the largest number of spikes in a step")
        self.initial_potential = require_number(
            "initial_potential", initial_potential, least=0, below=1, noun="a fraction of the threshold"
        )

    def unit(self, scale: Tensor) -> Tensor:
        return scale / self.levels

    def make(self, site: NeuronSite) -> BurstNeuron:
        return BurstNeuron(levels=self.levels, initial_potential=self.initial_potential)
