"""A neuron with a memory of what it emitted, which takes back what was too much."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sj_ann2snn import InPlaceNeuron, NeuronMaker, NeuronSite, OptionError

__all__ = ["Signed", "SignedNeuron"]


class SignedNeuron(InPlaceNeuron):
    """Integrate-and-fire with soft reset that emits a negative spike when its potential falls below zero.

    >>> neuron = SignedNeuron()
    >>> [neuron(torch.tensor([current])).item() for current in (1.0, -1.0, -1.0, 2.0)]
    [1.0, -1.0, 0.0, 1.0]

    It never takes back more than it emitted, so that the sum of its spikes, like the ReLU, never falls below zero.

    Args:
        levels: Most spikes in a step, of either sign.
        initial_potential: Membrane potential after a reset, as a fraction of the threshold.

    Shapes: currents and spikes ``[N, ...]``, with step mode "m" ``[T, N, ...]``.
    """

    emitted: Tensor | None

    def __init__(self, *, levels: int = 1, initial_potential: float = 0.0) -> None:
        super().__init__(initial_potential=initial_potential)
        self.levels = levels
        self.register_memory("emitted", None)

    def start(self, x: Tensor) -> None:
        super().start(x)
        self.emitted = torch.zeros_like(x)

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        assert self.emitted is not None
        self.v += x
        torch.floor(self.v, out=out)
        out.clamp_(-self.levels, self.levels)
        # The sum so far, kept from falling below zero, says how much of a negative spike may go out.
        self.emitted += out
        short = self.emitted.clamp(max=0)
        out -= short
        self.emitted -= short
        self.v -= out

    def export_options(self) -> dict[str, Any]:
        """What makes it anew."""
        return {"levels": self.levels, "initial_potential": self.initial_potential}

    def extra_repr(self) -> str:
        return f"levels={self.levels}, {super().extra_repr()}"


class Signed(NeuronMaker):
    """A neuron that takes back, by a negative spike, what it fired too early.

    >>> Signed(levels=2).unit(torch.tensor(2.0))
    tensor(1.)

    Spikes arrive unevenly, so that a neuron whose mean current is negative may still fire at first; an IF neuron
    never makes up for that.

    Args:
        levels: Most spikes in a step, of either sign; each is worth λ / levels.
        initial_potential: Membrane potential after a reset, as a fraction of the threshold. One half, the default,
            rounds to the nearest step instead of down.

    Raises:
        OptionError: `levels` is no integer from 1 up, or `initial_potential` lies outside [0, 1).

    Source: Wang et al. 2022, "Signed neuron with memory: towards simple, accurate and high-efficient ANN-SNN
    conversion". The negative threshold is zero here, so the sum of the spikes is the rounded sum of the currents at
    every step as long as λ bounds them.
    """

    name = "signed"
    exports = (SignedNeuron,)

    def __init__(self, *, levels: int = 1, initial_potential: float = 0.5) -> None:
        if isinstance(levels, bool) or not isinstance(levels, int) or levels < 1:
            raise OptionError(f"levels={levels!r} is not allowed: the most spikes in a step are an integer from 1 up.")
        if not 0 <= initial_potential < 1:
            raise OptionError(
                f"initial_potential={initial_potential!r} is not allowed: it is a fraction of the threshold in [0, 1)."
            )
        self.levels, self.initial_potential = levels, float(initial_potential)

    def unit(self, scale: Tensor) -> Tensor:
        return scale / self.levels

    def make(self, site: NeuronSite) -> SignedNeuron:
        return SignedNeuron(levels=self.levels, initial_potential=self.initial_potential)
