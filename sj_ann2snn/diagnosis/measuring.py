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
from ..simulation.engine.numbers.firing import is_spiking
from ..support.trees import map_tensors, tensors
from .answers import real
from .delay import EarlySums, longest_delay
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

    def merge(self, other: LayerSums) -> None:
        """Take in the figures of other samples."""
        for steps, terms in other.terms.items():
            self.terms.setdefault(steps, TermSums()).merge(terms)
        self.saturated = self.saturated + other.saturated
        self.silent = self.silent + other.silent
        self.active = self.active + other.active
        if other.used is not None:
            same = self.used is not None and self.used.shape == other.used.shape
            self.used = self.used | other.used if self.used is not None and same else other.used
        self.largest = self.largest if other.largest is None else other.largest
        self.spikes += other.spikes
        self.emissions += other.emissions
        self.missing.update(other.missing)


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
        wanted: For every layer, f(x̄) after the last step, in units of a spike and in the network's precision.
        missing: For every layer, f(x̄) − r.
        early: For every output, the sums of some of its elements after the steps that may be left out,
            ``[steps, n, elements]``.
    """

    answer: Any
    sums: list[Any]
    wanted: dict[str, Tensor]
    missing: dict[str, Tensor]
    early: list[Tensor]


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
        self._layers = {layer.target: layer for layer in measured.layers}
        # Only the finished tile adds to the totals: a tile that does not fit into memory is repeated.
        self._sums = {layer.target: LayerSums() for layer in measured.layers}
        self._wanted: dict[str, Tensor] = {}
        self._missing: dict[str, Tensor] = {}
        self._synapses = Operations(measured.connections, measured.checkpoints[-1])
        self._updates: dict[str, float] = {}
        self._seen: dict[str, None] = {}
        self._answers = AnswerAtEnd(readout)
        self._total: list[Tensor] = []
        self._done = 0
        self._totals: list[Any] = []
        self._early = EarlySums(longest_delay(measured.checkpoints[-1]))

    def watch(self, call: Call) -> None:
        """Measure what the probes note, at once, and count the synaptic operations of everything else."""
        self._seen[call.name] = None
        if isinstance(call.operation, SpikingProbe):
            if is_spiking(call.operation.inner):
                self._updates[call.name] = self._updates.get(call.name, 0.0) + call.result.numel()
            layer = self._layers[call.name]
            for steps, (current, emitted) in call.operation.take().items():
                self._measure(layer, call.operation, steps, current, emitted)
            return
        self._synapses.add(call, self._done)

    def add(self, outputs: Any) -> None:
        self._answers.add(outputs)
        found, start = tensors(outputs), 0
        self._early.add(real(outputs))
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
        with self._measured.lock:
            self._measured.samples += self._samples.stop - self._samples.start
            self._measured.not_counted.update(self._synapses.not_counted)
            for target, sums in self._sums.items():
                self._measured.sums[target].merge(sums)
        steps = self._done * (self._samples.stop - self._samples.start)
        self._measured.totals.add(self._synapses, self._updates, self._seen, steps)
        return TileResult(self._answers.result(), self._totals, self._wanted, self._missing, self._early.sums())

    def _measure(self, layer: Layer, probe: SpikingProbe, steps: int, current: Tensor, emitted: Tensor) -> None:
        """Take in the error of a layer after some steps, given the sums of its inputs and outputs."""
        sums = self._sums[layer.target]
        activation = self._activations[layer.target][self._samples].double()
        rate = emitted / steps
        if layer.is_neuron:
            wanted, terms, largest = self._split(layer, probe, activation, current, rate, steps)
        else:
            wanted, terms = self._split_operation(probe, activation, current / steps, rate)
        sums.terms.setdefault(steps, TermSums()).add(activation, rate, terms, layer.unit, layer.axis)
        if steps < self._measured.checkpoints[-1]:
            return
        if layer.is_neuron:
            self._shares(layer, sums, probe, activation, wanted, rate, largest)
        self._wanted[layer.target] = wanted.to(self._dtype)
        self._missing[layer.target] = (wanted - rate).to(self._dtype)

    def _split(
        self, layer: Layer, probe: SpikingProbe, activation: Tensor, current: Tensor, rate: Tensor, steps: int
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        dtype = self._dtype
        potential = None if layer.potential is None else layer.potential.to(current.device)
        mean = current / steps if potential is None else (current - potential) / steps
        wanted = layer.activate(mean)
        largest = largest_output(probe.spare, mean.to(dtype), steps, potential)

        def staircase(drive: Tensor) -> Tensor:
            return mean_output(probe.spare, drive.to(dtype), steps, potential)

        terms = split(activation, wanted, rate, largest, staircase)
        if not is_plain_if(probe.inner) and steps == self._measured.checkpoints[0]:
            again = staircase(wanted.minimum(largest))
            if not torch.equal(again, terms["clipping"].neg() + wanted - terms["rounding"]):
                self._sums[layer.target].missing["rounding"] = (
                    "the neuron answers the same current differently each time, so that it has no staircase; "
                    "unevenness contains its rounding"
                )
        if self._sums[layer.target].missing:
            terms["unevenness"] = terms["unevenness"] + terms["rounding"]
            terms["rounding"] = torch.zeros_like(terms["rounding"])
        return wanted, terms, largest

    def _split_operation(
        self, probe: SpikingProbe, activation: Tensor, mean: Tensor, rate: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The error of an operation that mixes what arrives over time; it neither clips nor rounds."""
        wanted = at_once(probe.spare, mean.to(self._dtype)).double()
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
        sums.saturated, sums.silent, sums.active = saturated, silent, positive.sum(others).cpu()
        sums.used, sums.largest = used, _compact(largest.cpu())
        sums.spikes, sums.emissions = probe.spikes, probe.emissions


def _compact(x: Tensor) -> Tensor:
    """The same values; in the memory of one, if they are all the same."""
    first = x.reshape(-1)[:1].clone()
    same = first.numel() == 1 and bool((x == first).all())
    return first.reshape([1] * x.dim()).expand(x.shape) if same else x


def _like(outputs: Any, values: Sequence[Tensor]) -> Any:
    """`values`, nested as `outputs`."""
    left = iter(values)
    return map_tensors(outputs, lambda _: next(left))
