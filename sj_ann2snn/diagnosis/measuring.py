"""Collects, while the network runs, the error of every layer, its spikes, and the answers over time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..compat import is_plain_if
from ..evaluation.activity import Connections
from ..evaluation.costs.operations import Operations, Totals
from ..simulation.answers import AnswerAtEnd, ChosenReadout
from ..simulation.engine import Call, Collector
from ..simulation.engine.firing import is_spiking
from ..support.trees import map_tensors, tensors
from .network import Layer
from .probes import SpikingProbe, at_once
from .split import TermSums, split
from .staircase import largest_output, mean_output

__all__ = ["LayerSums", "Measured", "MeasuringCollector"]

NEARLY = 1 + 1e-6


@dataclass
class LayerSums:
    """The figures of one layer, summed over samples.

    Attributes:
        terms: After every checkpoint, the sums of the terms.
        saturated: Per channel, how often f(x̄) exceeds what the neuron can emit.
        silent: How often a neuron emitted nothing although the activation is positive.
        active: How often the activation is positive.
        used: Neurons that emitted something for a sample.
        largest: The largest mean output, λ in units of a spike.
        spikes, emissions: Of all samples.
        missing: Terms that cannot be told apart, with the reason.
    """

    terms: dict[int, TermSums] = field(default_factory=dict)
    saturated: Tensor | float = 0.0
    silent: Tensor | float = 0.0
    active: Tensor | float = 0.0
    used: Tensor | None = None
    largest: Tensor | None = None
    spikes: int = 0
    emissions: int = 0
    missing: dict[str, str] = field(default_factory=dict)


class Measured:
    """The totals over all tiles; tiles may add to it side by side."""

    def __init__(self, layers: Sequence[Layer], checkpoints: Sequence[int]) -> None:
        self.layers, self.checkpoints = list(layers), tuple(checkpoints)
        self.sums = {layer.target: LayerSums() for layer in layers}
        self.totals = Totals(set())
        self.not_counted: dict[str, None] = {}
        self.samples = 0
        self.lock = threading.Lock()
        self._connections: dict[Any, Connections] = {}

    def connections(self, key: Any, make: Callable[[], Connections]) -> Connections:
        """The connections of a layer, made once."""
        if key not in self._connections:
            self._connections[key] = make()
        return self._connections[key]


@dataclass(frozen=True)
class TileResult:
    """What one tile yields.

    Attributes:
        answer: The answer of the readout after the last step.
        sums: The sums of the outputs after every checkpoint.
        wanted: For every layer, f(x̄) after the last step, in units of a spike.
        missing: For every layer, f(x̄) − r.
    """

    answer: Any
    sums: list[Any]
    wanted: dict[str, Tensor]
    missing: dict[str, Tensor]


class MeasuringCollector(Collector):
    """Measures one tile.

    Args:
        measured: The totals.
        activations: The ANN's activation of every layer, in units of a spike, for the whole batch.
        readout: Makes answers of the outputs.
        samples: The samples of the tile.
    """

    def __init__(
        self, measured: Measured, activations: Mapping[str, Tensor], readout: ChosenReadout, samples: slice
    ) -> None:
        self._measured, self._samples = measured, samples
        self._activations = activations
        self._dtype = next(iter(activations.values())).dtype
        self._probes: dict[str, SpikingProbe] = {}
        self._synapses = Operations(measured.connections, measured.checkpoints[-1])
        self._updates: dict[str, float] = {}
        self._seen: dict[str, None] = {}
        self._answers = AnswerAtEnd(readout)
        self._total: list[Tensor] = []
        self._done = 0
        self._totals: list[Any] = []

    def watch(self, call: Call) -> None:
        """Keep the probes, and count the synaptic operations of everything else."""
        self._seen[call.name] = None
        if isinstance(call.operation, SpikingProbe):
            self._probes[call.name] = call.operation
            if is_spiking(call.operation.inner):
                self._updates[call.name] = self._updates.get(call.name, 0.0) + call.result.numel()
            return
        self._synapses.add(call, self._done)

    def add(self, outputs: Any) -> None:
        self._answers.add(outputs)
        found, start = tensors(outputs), 0
        steps = len(found[0])
        for checkpoint in (*self._measured.checkpoints, self._done + steps):
            end = min(checkpoint - self._done, steps)
            if end <= start:
                continue
            part = [x[start:end].sum(0, dtype=torch.float64) for x in found]
            self._total = [a + b for a, b in zip(self._total, part, strict=True)] if self._total else part
            start = end
            if self._done + end in self._measured.checkpoints:
                self._totals.append(_like(outputs, self._total))
        self._done += steps

    def result(self) -> TileResult:
        found = {layer.target: self._measure(layer) for layer in self._measured.layers}
        wanted = {target: one for target, (one, _) in found.items()}
        missing = {target: one - rate for target, (one, rate) in found.items()}
        with self._measured.lock:
            self._measured.samples += self._samples.stop - self._samples.start
            self._measured.not_counted.update(self._synapses.not_counted)
        steps = self._done * (self._samples.stop - self._samples.start)
        self._measured.totals.add(self._synapses, self._updates, self._seen, steps)
        return TileResult(self._answers.result(), self._totals, wanted, missing)

    def _measure(self, layer: Layer) -> tuple[Tensor, Tensor]:
        """Add the error of a layer to the totals; returns f(x̄) and r."""
        probe, sums = self._probes[layer.target], self._measured.sums[layer.target]
        activation = self._activations[layer.target][self._samples].double()
        seen = {steps: probe.seen[steps] for steps in self._measured.checkpoints}
        wanted = rate = activation
        for steps, (current, emitted) in seen.items():
            rate = emitted / steps
            if layer.is_neuron:
                wanted, terms, largest = self._split(layer, probe, activation, current, rate, steps)
            else:
                wanted, terms = self._split_operation(probe, activation, current / steps, rate)
            with self._measured.lock:
                sums.terms.setdefault(steps, TermSums()).add(activation, rate, terms, layer.unit, layer.axis)
        if layer.is_neuron:
            self._shares(layer, sums, probe, activation, wanted, rate, largest)
        return wanted, rate

    def _split(
        self, layer: Layer, probe: SpikingProbe, activation: Tensor, current: Tensor, rate: Tensor, steps: int
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        dtype = self._dtype
        potential = None if layer.potential is None else layer.potential.to(current.device)
        mean = current / steps if potential is None else (current - potential) / steps
        wanted = layer.activate(mean)
        largest = largest_output(probe.inner, mean.to(dtype), steps, potential)

        def staircase(drive: Tensor) -> Tensor:
            return mean_output(probe.inner, drive.to(dtype), steps, potential)

        terms = split(activation, wanted, rate, largest, staircase)
        if not is_plain_if(probe.inner) and steps == self._measured.checkpoints[0]:
            again = staircase(wanted.minimum(largest))
            if not torch.equal(again, terms["clipping"].neg() + wanted - terms["rounding"]):
                self._measured.sums[layer.target].missing["rounding"] = (
                    "the neuron answers the same current differently each time, so that it has no staircase; "
                    "unevenness contains its rounding"
                )
        if self._measured.sums[layer.target].missing:
            terms["unevenness"] = terms["unevenness"] + terms["rounding"]
            terms["rounding"] = torch.zeros_like(terms["rounding"])
        return wanted, terms, largest

    def _split_operation(
        self, probe: SpikingProbe, activation: Tensor, mean: Tensor, rate: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The error of an operation that mixes what arrives over time; it neither clips nor rounds."""
        wanted = at_once(probe.inner, mean.to(self._dtype)).double()
        zero = torch.zeros_like(rate)
        return wanted, {
            "inherited": activation - wanted,
            "clipping": zero,
            "rounding": zero,
            "unevenness": wanted - rate,
        }

    def _shares(
        self,
        layer: Layer,
        sums: LayerSums,
        probe: SpikingProbe,
        activation: Tensor,
        wanted: Tensor,
        rate: Tensor,
        largest: Tensor,
    ) -> None:
        others = [dim for dim in range(rate.dim()) if layer.axis is None or dim != layer.axis + 1]
        positive = activation > 0
        saturated = (wanted > largest * NEARLY).sum(others).cpu()
        silent = (positive & (rate == 0)).sum(others).cpu()
        used = (rate != 0).any(0).cpu()
        with self._measured.lock:
            sums.saturated = sums.saturated + saturated
            sums.silent = sums.silent + silent
            sums.active = sums.active + positive.sum(others).cpu()
            sums.used = used if sums.used is None or sums.used.shape != used.shape else sums.used | used
            sums.largest = largest.cpu()
            sums.spikes += probe.spikes
            sums.emissions += probe.emissions


def _like(outputs: Any, values: Sequence[Tensor]) -> Any:
    """`values`, nested as `outputs`."""
    left = iter(values)
    return map_tensors(outputs, lambda _: next(left))
