"""Adds up the answers, spikes and synaptic operations of an evaluation's tiles."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..contracts.exit_rule import ExitRule
from ..errors import PluginError
from ..simulation.answers import ChosenReadout, Decoder
from ..simulation.engine import Call, Collector
from ..simulation.engine.firing import count_emissions, is_spiking
from ..support.batches import describe_batch
from ..support.blame import Culprit, blame
from ..support.untouched import Untouched
from .labels import ClassLabels, require_scores
from .result import EvaluationResult, LayerActivity
from .synapses import Synapses

__all__ = ["ChosenRule", "Tally", "TileTally"]


@dataclass(frozen=True)
class ChosenRule:
    """An exit rule, and its name in messages."""

    rule: ExitRule
    who: Culprit


class Tally:
    """The totals of the finished tiles."""

    def __init__(self, steps: int) -> None:
        self._lock = threading.Lock()
        self._right = torch.zeros(steps, dtype=torch.int64)
        self._steps_taken = self._steps_simulated = 0
        self._seconds = 0.0
        self._spikes: dict[str, int] = {}
        self._emissions: dict[str, int] = {}
        self._neurons: dict[str, int] = {}
        self._synops = 0.0
        self._not_counted: dict[str, None] = {}
        self._connections: dict[Hashable, Tensor] = {}
        self.samples = 0

    @contextmanager
    def timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - start

    def connections(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The connections of a layer, made once."""
        if key not in self._connections:
            self._connections[key] = make()
        return self._connections[key]

    def add(self, tile: TileTally) -> None:
        with self._lock:
            self._right += tile.right()
            self._steps_taken += int(tile.steps_taken.sum())
            self._steps_simulated += tile.steps_simulated
            self.samples += len(tile.labels)
            self._synops += tile.synapses.operations
            self._not_counted.update(tile.synapses.not_counted)
            self._neurons.update(tile.neurons)
            for name, spikes in tile.spikes.items():
                self._spikes[name] = self._spikes.get(name, 0) + spikes
                self._emissions[name] = self._emissions.get(name, 0) + tile.emissions[name]

    def accuracy(self) -> tuple[float, ...]:
        return tuple((self._right.double() / max(1, self.samples)).tolist())

    def result(self) -> EvaluationResult:
        with self._lock:
            return EvaluationResult(
                accuracy=self.accuracy(),
                samples=self.samples,
                steps_per_sample=self._steps_taken / self.samples,
                spikes_per_sample=sum(self._spikes.values()) / self.samples,
                synops_per_sample=self._synops / self.samples,
                seconds=self._seconds,
                layers=tuple(
                    LayerActivity(
                        name,
                        self._neurons[name],
                        spikes / self.samples,
                        spikes / (self._steps_simulated * self._neurons[name]),
                        self._emissions[name] / self.samples,
                    )
                    for name, spikes in self._spikes.items()
                ),
                emissions_per_sample=sum(self._emissions.values()) / self.samples,
                not_counted=tuple(self._not_counted),
            )


class TileTally(Collector):
    """The answers of one tile after every step, and the activity of its layers."""

    def __init__(
        self,
        totals: Tally,
        labels: ClassLabels,
        steps: int,
        readout: ChosenReadout,
        rule: ChosenRule | None,
        samples: slice,
    ) -> None:
        self._classes = labels
        self.labels = labels.indices[samples]
        self.steps_taken = torch.full((len(self.labels),), steps)
        self.spikes: dict[str, int] = {}
        self.emissions: dict[str, int] = {}
        self.neurons: dict[str, int] = {}
        self.synapses = Synapses(totals.connections)
        self.steps_simulated = 0
        self._totals, self._rule = totals, rule
        self._answers = torch.zeros(steps, len(self.labels), dtype=torch.int64)
        self._going_on = torch.arange(len(self.labels))
        self._readout = readout
        self._decoder = Decoder(readout.readout, readout.who)

    def watch(self, call: Call) -> None:
        """Count the spikes and synaptic operations of a layer."""
        module = call.operation
        if not isinstance(module, nn.Module) or not is_spiking(module):
            self.synapses.add(call)
        elif isinstance(call.result, Tensor):
            y = call.result if call.over_time else call.result.unsqueeze(0)
            spikes, emissions = count_emissions(module, y)
            self.spikes[call.name] = self.spikes.get(call.name, 0) + spikes
            self.emissions[call.name] = self.emissions.get(call.name, 0) + emissions
            self.neurons[call.name] = y[0, 0].numel()

    def add(self, outputs: Any) -> Tensor | None:
        scores = require_scores(outputs, len(self._going_on), leading=1)
        self._classes.require_classes(scores.shape[2])
        first = self._decoder.done
        answers = self._decoder.answers(scores)
        if answers.dim() != 3:
            raise PluginError(
                f"{self._readout.who} turned outputs of shape {tuple(scores.shape[1:])} into answers of shape "
                f"{tuple(answers.shape[1:])}; evaluate needs [N, classes]."
            )
        predicted = answers.argmax(2).cpu()
        self.steps_simulated += scores.shape[0] * scores.shape[1]
        self._answers[first : self._decoder.done, self._going_on] = predicted
        return None if self._rule is None else self._drop_settled(self._rule, answers, predicted, first)

    def _drop_settled(self, chosen: ChosenRule, answers: Tensor, predicted: Tensor, first: int) -> Tensor | None:
        """Record the samples that settle from step `first` on; returns the rows of the others, None if none settled."""
        rows = torch.arange(len(self._going_on))
        divisors = self._decoder.divisors(range(first + 1, self._decoder.done + 1))
        for index, (answer, divisor) in enumerate(zip(answers, divisors, strict=True)):
            step = first + index + 1
            settled = self._ask_rule(chosen, answer[rows.to(answer.device)] / divisor, step)
            for row in rows[settled].tolist():
                sample = self._going_on[row]
                self._answers[step:, sample] = predicted[index, row]
                self.steps_taken[sample] = step
            rows = rows[~settled]
            if not len(rows):
                break
        if len(rows) == len(self._going_on):
            return None
        self._decoder.select(rows, len(self._going_on))
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

    def result(self) -> None:
        self._totals.add(self)

    def right(self) -> Tensor:
        """Number of samples classified correctly after every step."""
        return (self._answers == self.labels).sum(1)
