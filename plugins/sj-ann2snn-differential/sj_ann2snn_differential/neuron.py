"""A neuron whose spikes say how its rate changes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sj_ann2snn import InPlaceNeuron, NeuronMaker, NeuronSite, OptionError

__all__ = ["Differential", "DifferentialNeuron"]

BITS = {torch.float32: (torch.int32, 23), torch.float64: (torch.int64, 52)}
"""By precision the integer of the same size, and how many of its bits are the mantissa."""


class DifferentialNeuron(InPlaceNeuron):
    """Emits, at most once a step, a spike of the size ±1, ±1/2, ±1/4, ..., which changes what it stands for.

    >>> neuron = DifferentialNeuron(thresholds=4)
    >>> outputs = [neuron(torch.tensor([0.7])) for _ in range(3)]
    >>> [round(sum(x.item() for x in outputs[:t]) / t, 3) for t in (1, 2, 3)]
    [0.5, 0.75, 0.75]

    The neuron stands for a value a, zero at first. At every step it compares a with ``relu`` of the mean current so far
    and sends the spike q that brings a nearest to it; where none does, none is sent and a stays, unlike a rate, which
    falls when no spike comes. Whoever receives the spikes adds them up. The layers of a converted network take the mean
    over time instead, so what is handed on here at step t is ``a + t q``, whose mean over time is a.

    Args:
        thresholds: Number of sizes: 1, 1/2, ..., down to 2 to the power of ``1 - thresholds``.

        maximum: What the neuron stands for at the most, which broadcasts over the currents; None for anything.

    Shapes: currents and outputs ``[N, ...]``, with step mode "m" ``[T, N, ...]``.
    """

    value: Tensor | None
    maximum: Tensor | None
    steps: int

    def __init__(self, *, thresholds: int = 8, maximum: Tensor | None = None) -> None:
        super().__init__()
        self.thresholds = thresholds
        self.register_buffer("maximum", maximum)
        self.register_memory("value", None)
        self.register_memory("steps", 0)
        self._sent = 0

    def start(self, x: Tensor) -> None:
        super().start(x)
        self.value = torch.zeros_like(x)

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        assert self.value is not None
        self.v += x
        self.steps += 1
        mean = (self.v / self.steps).clamp_(min=0)
        if self.maximum is not None:
            mean = mean.minimum(self.maximum)
        missing = mean.sub_(self.value)
        spike = self.nearest(missing)
        self._sent += int(spike.count_nonzero())
        torch.add(self.value, spike, alpha=self.steps, out=out)
        self.value += spike

    def nearest(self, x: Tensor) -> Tensor:
        """The spike nearest to `x`: a power of two with the sign of `x`, or none."""
        if x.dtype not in BITS:
            return self.nearest(x.float()).to(x.dtype)
        finest = 2.0 ** (1 - self.thresholds)
        # Half of the finest size is kept, all below it is nearer to none.
        spike = F.hardshrink(x, finest / 2 * (1 - 2.0**-24))
        # Half of the mantissa's range carries into the exponent from 1.5 times a power of two on, where the next one is
        # nearer; without its mantissa a number is the power of two below it.
        integer, mantissa = BITS[x.dtype]
        spike.view(integer).add_(1 << mantissa - 1).bitwise_and_(-1 << mantissa)
        spike.clamp_(-1, 1)
        # Half of the finest size becomes the finest; all others are taken off again.
        others = F.hardshrink(spike, 0.75 * finest)
        return spike.mul_(2).sub_(others)

    def fire(self, x_seq: Tensor, spikes: Tensor) -> None:
        self._sent = 0
        super().fire(x_seq, spikes)

    def count_spikes(self, emitted: Tensor) -> int:
        """Spikes that were sent; the values handed on are their sums."""
        return self._sent

    def count_emissions(self, emitted: Tensor) -> int:
        """As many: a neuron sends one spike in a step at the most."""
        return self._sent

    def export_options(self) -> dict[str, Any]:
        """What makes it anew."""
        return {"thresholds": self.thresholds, "maximum": self.maximum}

    def extra_repr(self) -> str:
        return f"thresholds={self.thresholds}, step_mode={self.step_mode}"


class Differential(NeuronMaker):
    """Differential coding: spikes of several sizes and both signs say how the activation changes.

    >>> from sj_ann2snn import Converter, simulate
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x = torch.rand(50, 4)
    >>> snn = Converter([x], neuron="differential", progress=False)(ann)
    >>> bool((simulate(snn, x, T=8) - ann(x)).abs().max() < 0.01)
    True

    With n sizes an activation of up to λ is met within λ / 2**n after some n / 2 steps. λ is no bound: a value beyond
    it takes a step more for each λ, up to the bound of the activation (ReLU6) if there is one. A neuron whose input has
    settled is silent.

    Args:
        thresholds: Number of sizes of a spike, from 1 to 24.

    Raises:
        OptionError: `thresholds` is no such number.

    Source: Huang et al. 2025, "Differential coding for training-free ANN-to-SNN conversion": spikes transmit changes,
    by neurons with several thresholds of both signs. Here the sizes are the powers of two below λ, and the spike is the
    one that leaves the least between the value sent and the mean current so far.
    """

    name = "differential"
    exports = (DifferentialNeuron,)

    def __init__(self, *, thresholds: int = 8) -> None:
        if isinstance(thresholds, bool) or not isinstance(thresholds, int) or not 1 <= thresholds <= 24:
            raise OptionError(
                f"thresholds={thresholds!r} is not allowed: the sizes of a spike are from 1 to 24 in number."
            )
        self.thresholds = thresholds

    def make(self, site: NeuronSite) -> DifferentialNeuron:
        if site.maximum is None:
            return DifferentialNeuron(thresholds=self.thresholds)
        maximum = (site.maximum / site.scale).to(site.dtype)
        if maximum.dim():
            maximum = maximum.view(-1, *(1,) * (len(site.shape) - 1))
        return DifferentialNeuron(thresholds=self.thresholds, maximum=maximum)
