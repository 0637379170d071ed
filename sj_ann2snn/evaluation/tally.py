"""Adds up the metrics, spikes and synaptic operations of an evaluation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .activity import Connections
from .metrics.by_batch import ByBatch
from .metrics.by_sample import BySample
from .metrics.measures import Measure
from .metrics.targets import Targets
from .metrics.totals import plain_tensor, tensor_from
from .result import EvaluationResult, LayerActivity
from .tile import BatchMetric, Tile

__all__ = ["BatchFigures", "Counts", "Metrics", "Tally", "metrics_of"]

Metrics = list[BySample | ByBatch]

NUMBERS = ("samples", "steps_taken", "steps_simulated", "spikes", "emissions", "neurons", "timed")
"""The attributes of `Counts` that are plain data."""


def metrics_of(measures: Sequence[Measure], steps: int, restore: Callable[[Any], Any]) -> Metrics:
    """The totals of every metric.

    Args:
        measures: The metrics.
        steps: Number of steps.
        restore: Gives an output the classes that the network gives it.
    """
    return [BySample(one, steps) if one.by_sample else ByBatch(one, steps, restore) for one in measures]


@dataclass
class Counts:
    """Exact sums over the tiles of one batch, or of many: adding them up in any order gives the same.

    Attributes:
        samples: Number of samples.
        steps_taken: Steps until their answers were taken.
        steps_simulated: Steps that were simulated.
        spikes, emissions, neurons: By the name of the layer.
        not_counted: Operations whose synaptic operations are not counted, in the order in which they were met.
        over_time: Spikes, emissions and synaptic operations at every step.
        timed: True if all neurons say when they spike.
    """

    samples: int = 0
    steps_taken: int = 0
    steps_simulated: int = 0
    spikes: dict[str, int] = field(default_factory=dict)
    emissions: dict[str, int] = field(default_factory=dict)
    neurons: dict[str, int] = field(default_factory=dict)
    not_counted: dict[str, None] = field(default_factory=dict)
    over_time: list[Tensor] = field(default_factory=list)
    timed: bool = True

    @classmethod
    def of(cls, tile: Tile) -> Counts:
        """Those of one tile."""
        found = (tile.spikes_over_time, tile.emissions_over_time, tile.synapses.over_time)
        return cls(
            len(tile.steps_taken),
            int(tile.steps_taken.sum()),
            tile.steps_simulated,
            tile.spikes,
            tile.emissions,
            tile.neurons,
            tile.synapses.not_counted,
            [torch.tensor(one, dtype=torch.float64) for one in found],
            tile.timed,
        )

    def state(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return {
            **{name: getattr(self, name) for name in NUMBERS},
            "not_counted": tuple(self.not_counted),
            "over_time": tuple(map(plain_tensor, self.over_time)),
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Counts:
        """The counts whose `state` was this."""
        return cls(
            **{name: state[name] for name in NUMBERS},
            not_counted=dict.fromkeys(state["not_counted"]),
            over_time=[tensor_from(one) for one in state["over_time"]],
        )

    def add(self, other: Counts) -> None:
        """Take in the sums of other samples."""
        self.samples += other.samples
        self.steps_taken += other.steps_taken
        self.steps_simulated += other.steps_simulated
        for own, new in ((self.spikes, other.spikes), (self.emissions, other.emissions)):
            for name, count in new.items():
                own[name] = own.get(name, 0) + count
        self.neurons.update(other.neurons)
        self.not_counted.update(other.not_counted)
        self.over_time = self.over_time or [torch.zeros_like(one) for one in other.over_time]
        for total, values in zip(self.over_time, other.over_time, strict=False):
            total += values
        self.timed &= other.timed


@dataclass(frozen=True)
class BatchFigures:
    """What one batch adds to the totals; it can be sent to another process.

    Attributes:
        counts: The sums over its tiles.
        parts: What it adds to every metric.
    """

    counts: Counts
    parts: list[Any]


class Tally:
    """The totals of the finished batches."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._total = Counts()
        self._batch = Counts()
        self._connections: dict[Hashable, Connections] = {}

    @property
    def samples(self) -> int:
        """The number of samples in the finished batches."""
        return self._total.samples

    @contextmanager
    def timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    def connections(self, key: Hashable, make: Callable[[], Connections]) -> Connections:
        """The connections of a layer, made once."""
        if key not in self._connections:
            self._connections[key] = make()
        return self._connections[key]

    def add(self, tile: Tile) -> None:
        """Add a tile of the current batch; tiles may come side by side."""
        counts = Counts.of(tile)
        with self._lock:
            self._batch.add(counts)

    def batch(self, targets: Targets) -> list[BatchMetric]:
        """Every metric of the next batch."""
        return [one.batch(targets) for one in self.metrics]

    def figures(self, batch: Sequence[BatchMetric]) -> BatchFigures:
        """What the current batch adds, all of whose tiles have been simulated, or the tiles that have been."""
        with self._lock:
            counts, self._batch = self._batch, Counts()
        return BatchFigures(
            counts,
            [metric.part_of(one) for metric, one in zip(self.metrics, batch, strict=True)],  # type: ignore[arg-type]
        )

    def take(self, found: BatchFigures) -> None:
        """Add the figures of a batch."""
        self._total.add(found.counts)
        for metric, part in zip(self.metrics, found.parts, strict=False):
            metric.take(part)

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs, as plain data.

        Raises:
            OptionError: A metric has a state that is no plain data.
        """
        metrics = tuple(one.state() for one in self.metrics)
        return {"counts": self._total.state(), "seconds": self.seconds, "metrics": metrics}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with what `state` has returned."""
        self._total, self.seconds = Counts.restored(state["counts"]), state["seconds"]
        for metric, one in zip(self.metrics, state["metrics"], strict=True):
            metric.restore(one)

    def values(self) -> dict[str, tuple[float, ...]]:
        """Every metric after every step."""
        return {name: values for metric in self.metrics for name, values in metric.values().items()}

    def latest(self) -> dict[str, float]:
        """Every metric after the last step, except for those that take long to compute."""
        return {name: value for metric in self.metrics for name, value in metric.latest().items()}

    def result(self) -> EvaluationResult:
        total, samples = self._total, self.samples
        # Totals of integers are exact; only the last operation rounds.
        spikes, emissions, synops = ((one.cumsum(0) / samples).tolist() for one in total.over_time)
        return EvaluationResult(
            values=self.values(),
            samples=samples,
            steps_per_sample=total.steps_taken / samples,
            spikes_per_sample=spikes[-1],
            synops_per_sample=synops[-1],
            seconds=self.seconds,
            layers=tuple(
                LayerActivity(
                    name,
                    total.neurons[name],
                    count / samples,
                    count / (total.steps_simulated * total.neurons[name]),
                    total.emissions[name] / samples,
                )
                for name, count in total.spikes.items()
            ),
            emissions_per_sample=emissions[-1],
            spikes_over_time=tuple(spikes) if total.timed else (),
            emissions_over_time=tuple(emissions) if total.timed else (),
            synops_over_time=tuple(synops),
            not_counted=tuple(total.not_counted),
        )
