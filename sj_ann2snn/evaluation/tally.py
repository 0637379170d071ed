"""Adds up the answers, spikes and synaptic operations of an evaluation's tiles."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..contracts.exit_rule import ExitRule
from ..errors import InputError, PluginError
from ..simulation.answers import ChosenReadout, Decoder
from ..simulation.engine import Collector
from ..simulation.engine.firing import count_emissions, is_spiking
from ..support.batches import describe_batch
from ..support.blame import Culprit, blame
from ..support.untouched import Untouched
from .activity import fan_out, times_active
from .result import EvaluationResult, LayerActivity

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
        self._fan_out: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        self.samples = 0

    @contextmanager
    def timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - start

    def connections(self, name: str, module: nn.Module, x: Tensor) -> Tensor:
        """For every element of one sample's input, the number of outputs that it reaches."""
        key = name, tuple(x.shape[2:])
        if key not in self._fan_out:
            self._fan_out[key] = fan_out(module, x[0, :1])
        return self._fan_out[key]

    def add(self, tile: TileTally) -> None:
        with self._lock:
            self._right += tile.right()
            self._steps_taken += int(tile.steps_taken.sum())
            self._steps_simulated += tile.steps_simulated
            self.samples += len(tile.labels)
            self._synops += tile.synops
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
            )


class TileTally(Collector):
    """The answers of one tile after every step, and the activity of its layers."""

    def __init__(
        self,
        totals: Tally,
        labels: Tensor,
        steps: int,
        readout: ChosenReadout,
        rule: ChosenRule | None,
        samples: slice,
    ) -> None:
        self.labels = labels[samples]
        self.steps_taken = torch.full((len(self.labels),), steps)  # labels may be too narrow a type
        self.spikes: dict[str, int] = {}
        self.emissions: dict[str, int] = {}
        self.neurons: dict[str, int] = {}
        self.synops = 0.0
        self.steps_simulated = 0
        self._totals, self._rule = totals, rule
        self._answers = torch.zeros(steps, len(self.labels), dtype=torch.int64)
        self._going_on = torch.arange(len(self.labels))
        self._readout = readout
        self._decoder = Decoder(readout.readout, readout.who)

    def watch(self, name: str, module: nn.Module, x: Any, y: Any) -> None:
        """Count the spikes and synaptic operations of a layer."""
        if is_spiking(module):
            spikes, emissions = count_emissions(module, y)
            self.spikes[name] = self.spikes.get(name, 0) + spikes
            self.emissions[name] = self.emissions.get(name, 0) + emissions
            self.neurons[name] = y[0, 0].numel()
        elif isinstance(module, (nn.Linear, _ConvNd)):
            self.synops += float((times_active(x) * self._totals.connections(name, module, x)).sum())

    def add(self, outputs: Any) -> Tensor | None:
        if not isinstance(outputs, Tensor) or outputs.dim() != 3:
            given = f"shape {tuple(outputs.shape[1:])}" if isinstance(outputs, Tensor) else type(outputs).__name__
            raise InputError(
                f"evaluate needs a classifier with one output [N, classes]; this network's output is {given}. "
                "Use simulate and compare the outputs in the way your task needs."
            )
        first = self._decoder.done
        answers = self._decoder.answers(outputs)
        if answers.dim() != 3:
            raise PluginError(
                f"{self._readout.who} turned outputs of shape {tuple(outputs.shape[1:])} into answers of shape "
                f"{tuple(answers.shape[1:])}; evaluate needs [N, classes]."
            )
        predicted = answers.argmax(2).cpu()
        self.steps_simulated += outputs.shape[0] * outputs.shape[1]
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
