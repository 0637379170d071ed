"""Adds up the metrics, spikes and synaptic operations of an evaluation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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

__all__ = ["Tally", "metrics_of"]

Metrics = list[BySample | ByBatch]

COUNTS = ("steps_taken", "steps_simulated", "seconds", "spikes", "emissions", "neurons", "timed")
"""The totals that are numbers, by the names of the attributes."""


def metrics_of(measures: Sequence[Measure], steps: int, restore: Callable[[Any], Any]) -> Metrics:
    """The totals of every metric.

    Args:
        measures: The metrics.
        steps: Number of steps.
        restore: Gives an output the classes that the network gives it.
    """
    return [BySample(one, steps) if one.by_sample else ByBatch(one, steps, restore) for one in measures]


class Tally:
    """The totals of the finished tiles."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._lock = threading.Lock()
        self._steps_taken = self._steps_simulated = 0
        self._seconds = 0.0
        self._spikes: dict[str, int] = {}
        self._emissions: dict[str, int] = {}
        self._neurons: dict[str, int] = {}
        self._not_counted: dict[str, None] = {}
        self._connections: dict[Hashable, Connections] = {}
        self._over_time: list[Tensor] = []
        self._timed = True
        self.samples = 0

    @contextmanager
    def timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - start

    def connections(self, key: Hashable, make: Callable[[], Connections]) -> Connections:
        """The connections of a layer, made once."""
        if key not in self._connections:
            self._connections[key] = make()
        return self._connections[key]

    def add(self, tile: Tile) -> None:
        with self._lock:
            self._steps_taken += int(tile.steps_taken.sum())
            self._steps_simulated += tile.steps_simulated
            self.samples += len(tile.steps_taken)
            self._add_over_time(tile)
            self._not_counted.update(tile.synapses.not_counted)
            self._neurons.update(tile.neurons)
            for name, spikes in tile.spikes.items():
                self._spikes[name] = self._spikes.get(name, 0) + spikes
                self._emissions[name] = self._emissions.get(name, 0) + tile.emissions[name]

    def _add_over_time(self, tile: Tile) -> None:
        found = (tile.spikes_over_time, tile.emissions_over_time, tile.synapses.over_time)
        counts = [torch.tensor(one, dtype=torch.float64) for one in found]
        self._over_time = self._over_time or [torch.zeros_like(one) for one in counts]
        for total, count in zip(self._over_time, counts, strict=True):
            total += count
        self._timed &= tile.timed

    def batch(self, targets: Targets) -> list[BatchMetric]:
        """Every metric of the next batch."""
        return [one.batch(targets) for one in self.metrics]

    def finish(self, batch: Sequence[BatchMetric]) -> None:
        """Add the metrics of a batch, all of whose tiles have been simulated, or of the tiles that have been."""
        for metric, one in zip(self.metrics, batch, strict=True):
            metric.finish(one)  # type: ignore[arg-type]

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs, as plain data.

        Raises:
            OptionError: A metric has a state that is no plain data.
        """
        with self._lock:
            return {
                **{name: getattr(self, f"_{name}") for name in COUNTS},
                "samples": self.samples,
                "not_counted": tuple(self._not_counted),
                "over_time": tuple(map(plain_tensor, self._over_time)),
                "metrics": tuple(one.state() for one in self.metrics),
            }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with what `state` has returned."""
        for name in COUNTS:
            setattr(self, f"_{name}", state[name])
        self.samples = state["samples"]
        self._not_counted = dict.fromkeys(state["not_counted"])
        self._over_time = [tensor_from(one) for one in state["over_time"]]
        for metric, one in zip(self.metrics, state["metrics"], strict=True):
            metric.restore(one)

    def values(self) -> dict[str, tuple[float, ...]]:
        """Every metric after every step."""
        return {name: values for metric in self.metrics for name, values in metric.values().items()}

    def latest(self) -> dict[str, float]:
        """Every metric after the last step, except for those that take long to compute."""
        return {name: value for metric in self.metrics for name, value in metric.latest().items()}

    def result(self) -> EvaluationResult:
        with self._lock:
            # Totals of integers are exact; only the last operation rounds.
            spikes, emissions, synops = ((one.cumsum(0) / self.samples).tolist() for one in self._over_time)
            return EvaluationResult(
                values=self.values(),
                samples=self.samples,
                steps_per_sample=self._steps_taken / self.samples,
                spikes_per_sample=spikes[-1],
                synops_per_sample=synops[-1],
                seconds=self._seconds,
                layers=tuple(
                    LayerActivity(
                        name,
                        self._neurons[name],
                        count / self.samples,
                        count / (self._steps_simulated * self._neurons[name]),
                        self._emissions[name] / self.samples,
                    )
                    for name, count in self._spikes.items()
                ),
                emissions_per_sample=emissions[-1],
                spikes_over_time=tuple(spikes) if self._timed else (),
                emissions_over_time=tuple(emissions) if self._timed else (),
                synops_over_time=tuple(synops),
                not_counted=tuple(self._not_counted),
            )
