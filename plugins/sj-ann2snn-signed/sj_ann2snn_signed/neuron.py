"""A neuron that remembers what it emitted and takes back excess spikes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sj_ann2snn import InPlaceNeuron, NeuronLoop, NeuronMaker, NeuronSite, require_integer, require_number

__all__ = ["Signed", "SignedNeuron"]


def fire(x: Any, v: Any, emitted: Any, nothing: Any, levels: Any) -> tuple[Any, Any, Any]:
    """`SignedNeuron.step` for one neuron; `nothing` is 0."""
    v = v + x
    spikes = min(max(np.floor(v), -levels), levels)
    emitted = emitted + spikes
    short = min(emitted, nothing)
    spikes = spikes - short
    return spikes, v - spikes, emitted - short


class SignedNeuron(InPlaceNeuron):
    """Integrate-and-fire with soft reset that emits a negative spike when its potential falls below zero.

    >>> neuron = SignedNeuron()
    >>> [neuron(torch.tensor([current])).item() for current in (1.0, -1.0, -1.0, 2.0)]
    [1.0, -1.0, 0.0, 1.0]

    It never takes back more than it emitted, so the sum of its spikes, like the ReLU, never falls below zero.

    Args:
        levels: Maximum number of spikes in a step, of either sign.
        initial_potential: Membrane potential after a reset, as a fraction of the threshold.

    Shapes: currents and spikes are ``[N, ...]``, in step mode "m" ``[T, N, ...]``.
    """

    emitted: Tensor | None

    def __init__(self, *, levels: int = 1, initial_potential: float = 0.0) -> None:
        super().__init__(initial_potential=initial_potential)
        self.levels = levels
        self.register_memory("emitted", None)
        self.output_range = (-self.levels, self.levels)

    def start(self, x: Tensor) -> None:
        super().start(x)
        self.emitted = torch.zeros_like(x)

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        assert self.emitted is not None
        self.v += x
        torch.floor(self.v, out=out)
        out.clamp_(-self.levels, self.levels)
        # The sum so far must not fall below zero, which limits negative spikes.
        self.emitted += out
        short = self.emitted.clamp(max=0)
        out -= short
        self.emitted -= short
        self.v -= out

    def loop(self, dtype: torch.dtype) -> NeuronLoop:
        return NeuronLoop(fire, states=("v", "emitted"), constants=(0, self.levels))

    def export_options(self) -> dict[str, Any]:
        """The keywords that rebuild it."""
        return {"levels": self.levels, "initial_potential": self.initial_potential}

    def extra_repr(self) -> str:
        return f"levels={self.levels}, {super().extra_repr()}"


class Signed(NeuronMaker):
    """A neuron that takes back spikes that it fired too early, by negative spikes.

    >>> Signed(levels=2).unit(torch.tensor(2.0))
    tensor(1.)

    Spikes arrive unevenly, so a neuron whose mean current is negative may still fire at first. An IF neuron never
    corrects that.

    Args:
        levels: Maximum number of spikes in a step, of either sign; each is worth λ / levels.
        initial_potential: Membrane potential after a reset, as a fraction of the threshold. The default of one half
            rounds to the nearest step instead of down.

    Raises:
        OptionError: `levels` is not an integer of at least 1, or `initial_potential` is outside [0, 1).

    Source: Wang et al. 2022, "Signed neuron with memory: towards simple, accurate and high-efficient ANN-SNN
    conversion". Here the negative threshold is zero, so at every step the sum of the spikes is the rounded sum of the
    currents, as long as λ bounds the currents.
    """

    name = "signed"
    tunable: ClassVar = {"levels": (1, 2, 4, 8)}
    exports = (SignedNeuron,)

    def __init__(self, *, levels: int = 1, initial_potential: float = 0.5) -> None:
        self.levels = require_integer("levels", levels, what="the largest number of spikes in a step")
        self.initial_potential = require_number(
            "initial_potential", initial_potential, least=0, below=1, noun="a fraction of the threshold"
        )

    def unit(self, scale: Tensor) -> Tensor:
        return scale / self.levels

    def make(self, site: NeuronSite) -> SignedNeuron:
        return SignedNeuron(levels=self.levels, initial_potential=self.initial_potential)
