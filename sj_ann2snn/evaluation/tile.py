"""The answers and the activity of one tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..contracts.exit_rule import ExitRule
from ..errors import PluginError
from ..simulation.answers import ChosenReadout, Decoder
from ..simulation.engine import Call, Changes, Collector, Levels, PackedSpikes
from ..simulation.engine.numbers.firing import count_emissions, is_spiking
from ..support.batches import describe_batch
from ..support.blame import Culprit, blame
from ..support.trees import leaves, map_tensors, tensors
from ..support.untouched import Untouched
from .activity import Connections
from .metrics.answers import Answers
from .metrics.by_batch import BatchOutputs
from .metrics.by_sample import BatchContributions
from .synapses import Synapses

__all__ = ["BatchMetric", "ChosenRule", "Tile", "shown_once"]

BatchMetric = BatchContributions | BatchOutputs


@dataclass(frozen=True)
class ChosenRule:
    """An exit rule, and its name in messages."""

    rule: ExitRule
    who: Culprit


class Tile(Collector):
    """Shows the metrics the answers of some samples after every step, and counts the activity of the layers.

    Args:
        metrics: The metrics of the batch.
        steps: Number of steps.
        readout: Turns the outputs into answers.
        rule: Decides which samples stop.
        connections: Keeps the connections of the layers, which are made once.
        finished: Called with this tile at its end.
        samples: The samples of the batch.
    """

    watches_spikes = True
    synapses_type = Synapses
    """What counts the synaptic operations."""

    def __init__(
        self,
        metrics: Sequence[BatchMetric],
        steps: int,
        readout: ChosenReadout,
        rule: ChosenRule | None,
        connections: Callable[[Hashable, Callable[[], Connections]], Connections],
        finished: Callable[[Tile], None],
        samples: slice,
    ) -> None:
        count = samples.stop - samples.start
        self.steps_taken = torch.full((count,), steps)
        self.spikes: dict[str, int] = {}
        self.emissions: dict[str, int] = {}
        self.neurons: dict[str, int] = {}
        self.spikes_over_time = [0] * steps
        self.emissions_over_time = [0] * steps
        self.timed = True
        self.synapses = self.synapses_type(connections, steps)
        self.steps_simulated = 0
        self._rule, self._readout, self._finished = rule, readout, finished
        self.drops_samples = rule is not None
        self._measures = [one.measure for one in metrics]
        self._metrics = [one.tile(samples) for one in metrics]
        self._going_on = torch.arange(count)
        self._decoders: dict[int, Decoder] = {}
        self._done = 0

    def watch(self, call: Call) -> None:
        """Count the spikes and synaptic operations of a layer."""
        module = call.operation
        if not isinstance(module, nn.Module) or not is_spiking(module):
            self.synapses.add(call, self._done)
        elif isinstance(call.result, (PackedSpikes, Levels, Changes)):
            self.add_emissions(call.name, module, call.result)
        elif isinstance(call.result, Tensor):
            self.add_emissions(call.name, module, call.result if call.over_time else call.result.unsqueeze(0))

    def add_emissions(self, name: str, neuron: nn.Module, y: Tensor | PackedSpikes | Levels | Changes) -> None:
        """Count what a neuron emitted, ``[t, n, ...]``."""
        found = count_emissions(neuron, y)
        spikes, emissions = found.spikes.tolist(), found.emissions.tolist()
        self.spikes[name] = self.spikes.get(name, 0) + sum(spikes)
        self.emissions[name] = self.emissions.get(name, 0) + sum(emissions)
        for step in range(y.shape[0]):
            self.spikes_over_time[self._done + step] += spikes[step]
            self.emissions_over_time[self._done + step] += emissions[step]
        self.timed &= found.timed
        self.neurons[name] = math.prod(y.shape[2:])

    def add(self, outputs: Any) -> Tensor | None:
        if not self._done:
            self._decoders = {place: self._decoder() for place in self._measured(outputs)}
        found = tensors(outputs)
        first = self._done
        answers = {place: self._answers(decoder, found[place]) for place, decoder in self._decoders.items()}
        places = iter(range(len(found)))
        tree = map_tensors(outputs, lambda y: answers.get(next(places), y))
        for metric in self._metrics:
            metric.add(first, tree, self._going_on)
        steps = _steps_in(found, answers)
        self._done += steps
        self.steps_simulated += steps * len(self._going_on)
        return None if self._rule is None else self._drop_settled(self._rule, list(answers.values()), steps, first)

    def result(self) -> None:
        for metric in self._metrics:
            metric.finish(self.steps_taken)
        self._finished(self)

    def _decoder(self) -> Decoder:
        return Decoder(self._readout.readout, self._readout.who)

    def _measured(self, outputs: Any) -> list[int]:
        """Which tensors of the output the metrics measure."""
        places = iter(range(len(tensors(outputs))))
        numbered = map_tensors(outputs, lambda _: _Place(next(places)))
        if not self._measures and self._rule is not None:  # all of them say when a sample may stop
            return [leaf.index for leaf in leaves(numbered) if isinstance(leaf, _Place)]
        parts = [leaf for measure in self._measures for leaf in leaves(measure.part_of(numbered))]
        return sorted({leaf.index for leaf in parts if isinstance(leaf, _Place)})

    def _answers(self, decoder: Decoder, outputs: Tensor) -> Answers:
        found = decoder.answers(outputs)
        return Answers(found, decoder.divisors(range(decoder.done - len(outputs) + 1, decoder.done + 1)))

    def _drop_settled(self, chosen: ChosenRule, answers: list[Answers], steps: int, first: int) -> Tensor | None:
        """Record the samples that settle from step `first` on; returns the rows of the others, None if none settled."""
        rows = torch.arange(len(self._going_on))
        for index in range(steps):
            settled = torch.ones(len(rows), dtype=torch.bool)
            for one in answers:
                one.require_rows(len(self._going_on))
                settled &= self._ask_rule(chosen, one.divided[index][rows.to(one.divided.device)], first + index + 1)
            self.steps_taken[self._going_on[rows[settled]]] = first + index + 1
            rows = rows[~settled]
            if not len(rows):
                break
        if len(rows) == len(self._going_on):
            return None
        for decoder in self._decoders.values():
            decoder.select(rows, len(self._going_on))
        self._going_on = self._going_on[rows]
        return rows

    def _ask_rule(self, chosen: ChosenRule, answers: Tensor, step: int) -> Tensor:
        rule, who = chosen.rule, chosen.who
        before = Untouched([answers], exact=step == 1)
        with blame(who, f"asked at step {step}", rule, "settled"):
            settled: Any = rule.settled(answers, step)
        if before.changed():
            raise PluginError(
                f"{who}, asked at step {step}, writes to the answers, in {type(rule).__name__}.settled. Work on a copy "
                f"(answers.clone()). {who.advice}"
            )
        if not isinstance(settled, Tensor) or settled.dtype != torch.bool or settled.shape != answers.shape[:1]:
            raise PluginError(
                f"{who} returned {describe_batch(settled)} at step {step}; it must return a bool "
                f"tensor with one element for each of the {len(answers)} samples."
            )
        return settled.cpu()


def shown_once(metric: BatchMetric, outputs: Any, rows: slice | None = None) -> BatchMetric:
    """Show a metric of a batch the outputs of a network that does not vary over time.

    Args:
        metric: The metric.
        outputs: The outputs.
        rows: The samples of the batch that they belong to; None for all.

    Raises:
        InputError: They do not fit the metric.
    """
    rows = rows or slice(0, metric.samples)
    count = rows.stop - rows.start
    tile = metric.tile(rows)
    tile.add(0, map_tensors(outputs, lambda y: Answers(y.unsqueeze(0), [1])), torch.arange(count))
    tile.finish(torch.ones(count, dtype=torch.int64))
    return metric


def _steps_in(outputs: Sequence[Tensor], answers: Mapping[int, Answers]) -> int:
    return len(next(iter(answers.values())).undivided) if answers else len(outputs[0])


@dataclass(frozen=True)
class _Place:
    """Stands for the tensor of the output with this number."""

    index: int
