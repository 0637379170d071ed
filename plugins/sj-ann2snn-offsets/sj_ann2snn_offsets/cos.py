"""Neurons that first find out by how many spikes they are off."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from sj_ann2snn import InPlaceNeuron, NeuronMaker, NeuronSite, require_integer, require_number

__all__ = ["OffsetSpikes", "OffsetSpikesNeuron"]

MARGIN = 1e-3
"""By how much a shift goes beyond the potential that decides over a spike, in thresholds."""


class OffsetSpikesNeuron(InPlaceNeuron):
    """An IF neuron with soft reset that probes for some steps and then starts anew from a shifted potential.

    >>> neuron = OffsetSpikesNeuron(probe_steps=2)
    >>> currents = (1.0, -1.2, 1.0, -1.2)  # the spike of the first step is one too many
    >>> [neuron(torch.tensor([current])).item() for current in currents]
    [1.0, 0.0, 0.0, 0.0]

    During the first `probe_steps` steps after a reset it fires as an IF neuron. Then it looks at its potential v:

    - v < 0 and it has fired: it emitted a spike too many. It starts anew from its initial potential minus
      ``max(1, lowest - 1 + 0.001)``, with the lowest potential from which it fired.
    - v ≥ 1 and there was a step without a spike: it emitted one too few. It starts anew from its initial potential plus
      ``max(1, 1 - highest + 0.001)``, with the highest potential from which it did not fire.
    - Otherwise it starts anew from its initial potential.

    Args:
        probe_steps: ρ, the steps of the probe.
        initial_potential: Membrane potential after a reset and after the probe, as a fraction of the threshold.
    """

    steps: int
    lowest: Any
    highest: Any

    def __init__(self, *, probe_steps: int, initial_potential: float = 0.5) -> None:
        super().__init__(initial_potential=initial_potential)
        self.probe_steps = probe_steps
        self.register_memory("steps", 0)
        self.register_memory("lowest", None)
        self.register_memory("highest", None)

    def start(self, x: Tensor) -> None:
        super().start(x)
        # No infinities: the simulator takes them for an overflow.
        most = torch.finfo(x.dtype).max
        self.lowest, self.highest = torch.full_like(x, most), torch.full_like(x, -most)

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v += x
        if self.steps < self.probe_steps:
            fires = self.v >= 1
            self.lowest = torch.where(fires, self.lowest.minimum(self.v), self.lowest)
            self.highest = torch.where(fires, self.highest, self.highest.maximum(self.v))
        torch.ge(self.v, 1, out=out)
        self.v -= out
        self.steps += 1
        if self.steps == self.probe_steps:
            self._start_anew()

    def _start_anew(self) -> None:
        assert self.v is not None
        most = torch.finfo(self.v.dtype).max
        down = (self.lowest - 1 + MARGIN).clamp_(min=1)
        up = (1 - self.highest + MARGIN).clamp_(min=1)
        anew = torch.full_like(self.v, self.initial_potential)
        anew = torch.where((self.v < 0) & (self.lowest < most), anew - down, anew)
        self.v = torch.where((self.v >= 1) & (self.highest > -most), anew + up, anew)
        self.lowest = self.highest = None

    def export_options(self) -> dict[str, Any]:
        """The keywords that rebuild it."""
        return {"probe_steps": self.probe_steps, "initial_potential": self.initial_potential}

    def extra_repr(self) -> str:
        return f"probe_steps={self.probe_steps}, {super().extra_repr()}"


class OffsetSpikes(NeuronMaker):
    """COS: IF neurons that find out in ρ steps by how many spikes they are off, before the steps that count.

    >>> from sj_ann2snn import Converter, simulate
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x = torch.rand(50, 4)
    >>> snn = Converter([x], mode="99.9%", neuron="cos", probe_steps=4, progress=False)(ann)
    >>> answer = simulate(snn, x, T=12)  # 4 steps of the probe and 8 that count

    After the probe, a neuron whose potential is negative although it has fired starts the other steps a spike lower,
    and one whose potential is still at the threshold or above it a spike higher; see `OffsetSpikesNeuron`. All neurons
    probe in the same ρ steps, so T steps are T steps: ρ for the probe and T - ρ that count. The neurons ask for the
    readout ``Delayed(delay=ρ)``. `evaluate` counts the spikes of the probe as well. With T ≤ ρ, these are IF neurons.

    Args:
        probe_steps: ρ, the number of steps of the probe.
        initial_potential: Membrane potential after a reset and after the probe, as a fraction of the threshold. The
            default of one half rounds to the nearest step.

    Raises:
        OptionError: `probe_steps` is not an integer of at least 1, or `initial_potential` is outside [0, 1).

    Source: Hao et al. 2023, "Bridging the gap between ANNs and SNNs by calibrating offset spikes": the sign of the
    residual potential tells the offset, and the theorem on the optimal shift gives the shifts. There, a layer probes
    on what the layers before it emit after their own probes, which takes ρ steps for each layer where time passes for
    all layers at once; T does not include them.
    """

    name = "cos"
    tunable: ClassVar = {"probe_steps": (2, 4, 8)}
    exports = (OffsetSpikesNeuron,)

    def __init__(self, *, probe_steps: int = 4, initial_potential: float = 0.5) -> None:
        self.probe_steps = require_integer("probe_steps", probe_steps, what="the number of steps of the probe")
        self.initial_potential = require_number(
            "initial_potential", initial_potential, least=0, below=1, noun="a fraction of the threshold"
        )

    def readout(self) -> tuple[str, dict[str, Any]]:
        return "delayed", {"delay": self.probe_steps}

    def make(self, site: NeuronSite) -> OffsetSpikesNeuron:
        return OffsetSpikesNeuron(probe_steps=self.probe_steps, initial_potential=self.initial_potential)
