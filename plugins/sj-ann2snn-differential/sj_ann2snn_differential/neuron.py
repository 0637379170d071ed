"""A neuron whose spikes transmit changes of its rate."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sj_ann2snn import ChangeLoop, InPlaceNeuron, NeuronMaker, NeuronSite, require_integer

__all__ = ["Differential", "DifferentialNeuron"]

BITS = {torch.float32: (torch.int32, 23), torch.float64: (torch.int64, 52)}
"""For each precision, the integer dtype of the same size and the number of mantissa bits."""


MOST_COUNTED = 16
"""Sizes that can be told from the outputs: each output is rounded once, the finest size must not be lost in that."""


def fire(mean: Any, value: Any, nothing: Any, one: Any, kept: Any, finest: Any) -> Any:
    """The spike of one neuron in single precision, without a maximum; see `DifferentialNeuron.nearest` for the
    arithmetic.

    Args:
        mean: The mean current so far.
        value: What the neuron represents.
        nothing: 0.
        one: 1.
        kept: Differences up to it make no spike.
        finest: Smaller spikes, from 0.5 times the finest size, are doubled.
    """
    missing = max(mean, nothing) - value
    spike = missing if abs(missing) > kept else nothing
    bits = (np.float32(spike).view(np.int32) + (1 << 22)) & (-1 << 23)
    spike = np.int32(bits).view(np.float32)
    spike = min(max(spike, -one), one)
    return spike + spike - (spike if abs(spike) > finest else nothing)


class DifferentialNeuron(InPlaceNeuron):
    """Emits at most one spike per step, of size ±1, ±1/2, ±1/4, ..., which changes the value that it represents.

    >>> neuron = DifferentialNeuron(thresholds=4)
    >>> outputs = [neuron(torch.tensor([0.7])) for _ in range(3)]
    >>> [round(sum(x.item() for x in outputs[:t]) / t, 3) for t in (1, 2, 3)]
    [0.5, 0.75, 0.75]

    The neuron represents a value a, initially zero. At every step it compares a with ``relu`` of the mean current so
    far and sends the spike q that brings a closest to it. If no spike brings it closer, none is sent and a stays the
    same, unlike a rate, which falls without spikes. A receiver adds up the spikes. The layers of a converted network
    take the mean over time instead, so the output at step t is ``a + t q``, whose mean over time is a.

    Args:
        thresholds: Number of sizes: 1, 1/2, ..., down to 2 to the power of ``1 - thresholds``.
        maximum: Largest value that the neuron may represent, which broadcasts over the currents; None for no limit.

    Shapes: currents and outputs are ``[N, ...]``, in step mode "m" ``[T, N, ...]``.
    """

    value: Tensor | None
    mean: Tensor | None
    maximum: Tensor | None
    steps: int

    def __init__(self, *, thresholds: int = 8, maximum: Tensor | None = None) -> None:
        super().__init__()
        self.thresholds = thresholds
        self.register_buffer("maximum", maximum)
        self.register_memory("value", None)
        self.register_memory("mean", None)
        self.register_memory("steps", 0)
        self._sent: list[Tensor] = []
        self._sent_until = 0

    def reset(self) -> None:
        super().reset()
        self._sent, self._sent_until = [], 0

    def start(self, x: Tensor) -> None:
        super().start(x)
        self.value = torch.zeros_like(x)

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        assert self.value is not None
        self.v += x
        self.mean = None  # the sum counts
        self.steps += 1
        mean = (self.v / self.steps).clamp_(min=0)
        if self.maximum is not None:
            mean = mean.minimum(self.maximum)
        missing = mean.sub_(self.value)
        spike = self.nearest(missing)
        self._sent.append(spike.count_nonzero())
        self._sent_until = self.steps
        torch.add(self.value, spike, alpha=self.steps, out=out)
        self.value += spike

    def nearest(self, x: Tensor) -> Tensor:
        """The spike nearest to `x`: a power of two with the sign of `x`, or none."""
        if x.dtype not in BITS:
            return self.nearest(x.float()).to(x.dtype)
        kept, finest = self._ends()
        # Keep values above half of the finest size; others are not farther from zero, and a neuron that met one halfway
        # would take it back at the next step, and so on for ever.
        spike = F.hardshrink(x, kept)
        # Adding half of the mantissa's range carries into the exponent from 1.5 times a power of two on, where the next
        # power is nearer. Clearing the mantissa then leaves the power of two below.
        integer, mantissa = BITS[x.dtype]
        spike.view(integer).add_(1 << mantissa - 1).bitwise_and_(-1 << mantissa)
        spike.clamp_(-1, 1)
        # Half of the finest size becomes the finest size; doubling is undone for all other sizes.
        others = F.hardshrink(spike, finest)
        return spike.mul_(2).sub_(others)

    def _ends(self) -> tuple[float, float]:
        """What is too small for a spike, and what lies between the finest size and half of it."""
        finest = 2.0 ** (1 - self.thresholds)
        return finest / 2, 0.75 * finest

    def loop(self, dtype: torch.dtype) -> ChangeLoop | None:
        if dtype != torch.float32 or self.maximum is not None or self.thresholds > MOST_COUNTED:
            return None
        return ChangeLoop(fire, constants=(0, 1, *self._ends()))

    def fire(self, x_seq: Tensor, spikes: Tensor) -> None:
        self._sent = []
        super().fire(x_seq, spikes)

    def spikes_per_step(self, emitted: Tensor) -> Tensor:
        """Number of spikes that were sent at every step; the outputs are derived from their sums."""
        if self._sent_until == self.steps:
            return torch.stack(self._sent).cpu() if self._sent else torch.zeros(0, dtype=torch.int64)
        return self._told_from(emitted)

    def _told_from(self, emitted: Tensor) -> Tensor:
        """The same from the outputs ``[T, N, ...]`` and the value after the last of them, backwards: an output is
        ``a + t q``, after which the value is ``a + q``."""
        assert self.value is not None
        value, counts = self.value.double(), []
        for index in range(len(emitted) - 1, -1, -1):
            step = self.steps - (len(emitted) - 1 - index)
            # An output is rounded once, so the spike is the nearest size.
            spike = self.nearest((emitted[index].double() - value) / (step - 1)) if step > 1 else value
            counts.append(spike.count_nonzero().cpu())
            value = value - spike
        return torch.stack(counts[::-1]) if counts else torch.zeros(0, dtype=torch.int64)

    def emissions_per_step(self, emitted: Tensor) -> Tensor:
        """The same numbers, because a neuron sends at most one spike per step."""
        return self.spikes_per_step(emitted)

    def export_options(self) -> dict[str, Any]:
        """The keywords that rebuild it."""
        return {"thresholds": self.thresholds, "maximum": self.maximum}

    def extra_repr(self) -> str:
        return f"thresholds={self.thresholds}, step_mode={self.step_mode}"


class Differential(NeuronMaker):
    """Differential coding: spikes of several sizes and both signs transmit changes of the activation.

    >>> from sj_ann2snn import Converter, simulate
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x = torch.rand(50, 4)
    >>> snn = Converter([x], neuron="differential", progress=False)(ann)
    >>> bool((simulate(snn, x, T=8) - ann(x)).abs().max() < 0.01)
    True

    With n sizes, an activation of up to λ is reached within λ / 2**n after about n / 2 steps. λ is not a bound: a
    larger value takes one more step for each λ, up to the bound of the activation (ReLU6) if there is one. A neuron
    whose input has settled is silent.

    Args:
        thresholds: Number of spike sizes, from 1 to 24.

    Raises:
        OptionError: `thresholds` is not an integer from 1 to 24.

    Source: Huang et al. 2025, "Differential coding for training-free ANN-to-SNN conversion": neurons with several
    thresholds of both signs transmit changes. Here the sizes are λ, λ / 2, λ / 4 and so on, and the neuron sends the
    spike that leaves the smallest difference between the value sent and the mean current so far.
    """

    name = "differential"
    tunable: ClassVar = {"thresholds": (4, 8, 16)}
    exports = (DifferentialNeuron,)

    def __init__(self, *, thresholds: int = 8) -> None:
        self.thresholds = require_integer("thresholds", thresholds, 1, 24, what="the number of spike sizes")
        # What lies between two values of the finest size stays as it is.
        self.resolution = 2.0**-thresholds

    def make(self, site: NeuronSite) -> DifferentialNeuron:
        if site.maximum is None:
            return DifferentialNeuron(thresholds=self.thresholds)
        maximum = site.along_channels((site.maximum / site.scale).to(site.dtype))
        return DifferentialNeuron(thresholds=self.thresholds, maximum=maximum)
