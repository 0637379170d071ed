"""Adds up what the samples contribute to a `Metric`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...contracts.metric import Metric
from ...errors import InputError, PluginError
from ...support.batches import describe_batch
from ...support.blame import blame
from .answers import Answers
from .measures import Measure, no_answers
from .targets import Targets
from .totals import plain_tensor, tensor_from

__all__ = ["BatchContributions", "BySample", "TileContributions"]


class BySample:
    """The totals of one metric over all batches.

    Args:
        measure: The metric.
        steps: Number of steps.
    """

    def __init__(self, measure: Measure, steps: int) -> None:
        self.measure, self.steps = measure, steps
        self._sums: Tensor | None = None
        self._samples = 0

    def batch(self, targets: Targets) -> BatchContributions:
        """The contributions of the next batch."""
        return BatchContributions(self.measure, self.steps, targets)

    def finish(self, batch: BatchContributions) -> None:
        """Add the tiles of a batch that have been simulated."""
        self.take(self.part_of(batch))

    def part_of(self, batch: BatchContributions) -> tuple[Tensor, int] | None:
        """What a batch adds: the sums over its samples, and their number; None if no tile has been simulated."""
        contributions = batch.contributions()
        return None if contributions is None else (contributions.sum(1), contributions.shape[1])

    def take(self, part: tuple[Tensor, int] | None) -> None:
        """Add what a batch adds; batches in the same order give the same bits."""
        if part is not None:
            sums, samples = part
            self._sums = sums if self._sums is None else self._sums + sums
            self._samples += samples

    def values(self) -> dict[str, tuple[float, ...]]:
        """The metric after every step, by its name."""
        if self._sums is None:
            return {self.measure.name: (0.0,) * self.steps}
        return {self.measure.name: self._value(self._sums)}

    def latest(self) -> dict[str, float]:
        """The metric after the last step, for the progress bar."""
        return {} if self._sums is None else {self.measure.name: self._value(self._sums[-1:])[0]}

    def state(self) -> dict[str, Any]:
        """The totals as plain data."""
        return {"sums": None if self._sums is None else plain_tensor(self._sums), "samples": self._samples}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with these totals."""
        self._sums = None if state["sums"] is None else tensor_from(state["sums"])
        self._samples = state["samples"]

    def _value(self, sums: Tensor) -> tuple[float, ...]:
        metric = self.measure.metric
        with blame(self.measure.who, "asked for its value", metric, "value"):
            found: Any = metric.value(sums, self._samples)
        if not isinstance(found, Tensor) or found.shape != (len(sums),):
            raise PluginError(
                f"{self.measure.who} returned {describe_batch(found)} from value(); it must return a tensor "
                f"[{len(sums)}], one number for each step. {self.measure.who.advice}"
            )
        return tuple(found.double().tolist())


class BatchContributions:
    """The contributions of one batch, tile by tile."""

    def __init__(self, measure: Measure, steps: int, given: Targets) -> None:
        self.measure, self.steps, self.samples = measure, steps, given.samples
        self._given = given
        self._lock = threading.Lock()
        self._targets: Tensor | None = None
        self._parts: dict[int, Tensor] = {}

    def tile(self, samples: slice) -> TileContributions:
        return TileContributions(self, samples)

    def targets(self, output: Any, shape: tuple[int, ...]) -> Tensor:
        """The targets for answers of that shape (of a sample), made once.

        Raises:
            InputError: They do not fit.
        """
        with self._lock:
            if self._targets is None:
                self._targets = self._targets_of(output, (self.samples, *shape))
            return self._targets

    def _targets_of(self, output: Any, shape: tuple[int, ...]) -> Tensor:
        metric: Metric = self.measure.metric
        if self._given.of_ann:
            found = self.measure.part_of(self._given.found)
            if isinstance(found, Tensor):
                with blame(self.measure.who, "given the ANN's outputs", metric, "targets_of_ann"):
                    found = metric.targets_of_ann(found)
        else:
            found = self.measure.target_of(self._given.found, output, self.samples)
        with blame(self.measure.who, "given the targets", metric, "targets"):
            targets: Any = metric.targets(found, shape)
        if not isinstance(targets, Tensor) or targets.shape[:1] != (self.samples,):
            raise PluginError(
                f"{self.measure.who} returned {describe_batch(targets)} from targets(); it must return a tensor with "
                f"one row for each of the {self.samples} samples. {self.measure.who.advice}"
            )
        return targets

    def add(self, start: int, contributions: Tensor) -> None:
        with self._lock:
            self._parts[start] = contributions

    def contributions(self) -> Tensor | None:
        """``[T, n, k]``, of all samples in order, so that their sum does not depend on the tiles."""
        parts = [self._parts[start] for start in sorted(self._parts)]
        return torch.cat(parts, 1) if parts else None


class TileContributions:
    """The contributions of some samples of a batch after every step."""

    def __init__(self, batch: BatchContributions, samples: slice) -> None:
        self._batch, self._samples = batch, samples
        self._rows: Tensor | None = None

    def add(self, first: int, output: Any, going_on: Tensor) -> None:
        """Take in the answers after the next steps.

        Args:
            first: Number of steps before.
            output: The network's output, with `Answers` for its tensors.
            going_on: Which of the tile's samples they belong to.
        """
        measure = self._batch.measure
        metric: Metric = measure.metric
        part = measure.part_of(output)
        if not isinstance(part, Answers):
            raise InputError(no_answers(measure, part))
        part.require_rows(len(going_on))
        answers = part.undivided if metric.scale_invariant else part.divided
        targets = self._batch.targets(output, tuple(answers.shape[2:]))[self._samples][going_on].to(answers.device)
        with blame(measure.who, f"given the answers after step {first + len(answers)}", metric, "contributions"):
            found: Any = metric.contributions(answers, targets)
        if not isinstance(found, Tensor) or found.dim() != 3 or found.shape[:2] != answers.shape[:2]:
            raise PluginError(
                f"{measure.who} returned {describe_batch(found)} from contributions(); it must return a tensor "
                f"[{len(answers)}, {len(going_on)}, k]. {measure.who.advice}"
            )
        if self._rows is None:
            count = self._samples.stop - self._samples.start
            self._rows = torch.zeros(self._batch.steps, count, found.shape[2], dtype=torch.float64)
        self._rows[first : first + len(found), going_on] = found.double().cpu()

    def finish(self, steps_taken: Tensor) -> None:
        """Add what each sample contributes; a sample that stopped early keeps the contribution of its last step."""
        if self._rows is None:
            return
        last = torch.arange(self._batch.steps)[:, None].minimum(steps_taken - 1)
        self._batch.add(self._samples.start, self._rows.gather(0, last[..., None].expand_as(self._rows)))
