"""Metrics that need a whole batch at a time: functions of (output, target), and objects like a torchmetrics.Metric."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError, OptionError, PluginError
from ...simulation.engine import plain
from ...support.batches import describe_batch, move
from ...support.blame import Culprit, blame, describe_failure, translated
from ...support.trees import leaves, map_leaves, map_tensors, tensors
from ...support.untouched import Untouched
from ...support.wording import shown
from .answers import Answers
from .measures import Measure, is_accumulating, no_answers
from .targets import Targets
from .totals import plain_tensor, tensor_from

__all__ = ["BatchOutputs", "ByBatch", "TileOutputs"]

MOST_BYTES = 1 << 32
"""The largest memory for the outputs of a batch at all steps."""

ANSWER = object()
"""Stands for a tensor of the network's output."""


class ByBatch:
    """The totals of one metric over all batches.

    Args:
        measure: The metric.
        steps: Number of steps.
        restore: Gives an output the classes that the network gives it.
    """

    def __init__(self, measure: Measure, steps: int, restore: Callable[[Any], Any]) -> None:
        self.measure, self.steps, self._restore = measure, steps, restore
        self._state: _Function | _Accumulating
        if is_accumulating(measure.metric):
            self._state = _Accumulating(measure, steps)
        else:
            self._state = _Function(measure, steps)

    def batch(self, targets: Targets) -> BatchOutputs:
        """The outputs of the next batch."""
        return BatchOutputs(self.measure, self.steps, targets)

    def finish(self, batch: BatchOutputs) -> None:
        """Show the metric the outputs of a batch, step by step; a batch that is not complete is left out."""
        self.take(self.part_of(batch))

    def part_of(self, batch: BatchOutputs) -> Any:
        """What a batch adds: of a function its totals, of an object the outputs that it is to be shown."""
        if not batch.is_complete:
            return None
        outputs = (self._restore(output) if self.measure.whole else output for output in batch.outputs())
        return self._state.part_of(outputs, batch.targets, batch.samples)

    def take(self, part: Any) -> None:
        """Add what a batch adds; batches in the same order give the same bits."""
        if part is not None:
            self._state.take(part)

    def values(self) -> dict[str, tuple[float, ...]]:
        """The metric after every step, by its name; one entry for each of several values."""
        return self._state.values()

    def latest(self) -> dict[str, float]:
        """The metric after the last step, for the progress bar; nothing if that would take long."""
        return self._state.latest()

    def state(self) -> dict[str, Any]:
        """The totals as plain data.

        Raises:
            OptionError: They are inside the caller's objects.
        """
        return self._state.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with these totals."""
        self._state.restore(state)


class BatchOutputs:
    """The outputs of one batch at all steps, tile by tile."""

    def __init__(self, measure: Measure, steps: int, given: Targets) -> None:
        self.measure, self.steps, self.samples = measure, steps, given.samples
        self._given = given
        self.ragged = given.ragged
        self._steps: list[Any] = []
        self._lock = threading.Lock()
        self._parts: dict[int, list[Tensor]] = {}
        self._template: Any = None
        self._seen = False
        self.targets: Any = None

    def tile(self, samples: slice) -> TileOutputs:
        return TileOutputs(self, samples)

    def add(self, start: int, outputs: list[Tensor]) -> None:
        with self._lock:
            self._parts[start] = outputs

    def add_step(self, output: Any) -> None:
        """Take in the whole output of the next step."""
        self._steps.append(output)

    @property
    def is_complete(self) -> bool:
        """True if the outputs of all samples at all steps are there."""
        if self.ragged:
            return len(self._steps) == self.steps
        return bool(self._parts) and sum(part[0].shape[1] for part in self._parts.values()) == self.samples

    def outputs(self) -> Iterator[Any]:
        """The measured part of the output of all samples after every step."""
        if self.ragged:
            yield from self._steps
            return
        parts = [self._parts[start] for start in sorted(self._parts)]
        joined = [torch.cat(pieces, 1) for pieces in zip(*parts, strict=True)]
        for step in range(self.steps):
            yield self._filled([one[step] for one in joined])

    def _filled(self, outputs: list[Tensor]) -> Any:
        """The measured part of the output with these tensors."""
        given = iter(outputs)
        return map_leaves(self._template, lambda leaf: next(given) if leaf is ANSWER else leaf)

    def see(self, output: Any) -> None:
        """Choose the targets for such an output, and check that there is room for it.

        Raises:
            InputError: The outputs of all samples at all steps do not fit into memory.
        """
        with self._lock:
            if not self._seen:
                part = self.measure.part_of(output)
                found = _answers(part)
                if not found:
                    raise InputError(no_answers(self.measure, part))
                if not self.ragged:
                    self._require_room(sum(one.undivided[0, 0].numel() * one.undivided.itemsize for one in found))
                self._template = map_leaves(plain(part), lambda leaf: ANSWER if isinstance(leaf, Answers) else leaf)
                if self._given.of_ann:
                    found = self.measure.part_of(self._given.found)
                    self.targets = self._given.restore(found) if self.measure.whole else found
                else:
                    self.targets = self.measure.target_of(self._given.found, output, self.samples)
                self._seen = True

    def _require_room(self, of_sample: int) -> None:
        size = of_sample * self.steps * self.samples
        if size > MOST_BYTES:
            fits = MOST_BYTES // (of_sample * self.steps)
            what = f"Give batches of at most {fits} samples" if fits else "Use fewer steps"
            raise InputError(
                f"The metric {shown(self.measure.name)} takes the outputs of a whole batch, which need {size:,} bytes "
                f"for {self.samples} samples and {self.steps} steps; at most {MOST_BYTES:,} are allowed. {what}, or "
                "write the metric as a subclass of Metric."
            )


class TileOutputs:
    """The outputs of some samples of a batch after every step."""

    def __init__(self, batch: BatchOutputs, samples: slice) -> None:
        self._batch, self._samples = batch, samples
        self._outputs: list[Tensor] = []

    def add(self, first: int, output: Any, going_on: Tensor) -> None:
        """Take in the answers after the next steps; see `BySample`."""
        self._batch.see(output)
        part = self._batch.measure.part_of(plain(output))
        if self._batch.ragged:
            self._batch.add_step(map_leaves(part, lambda leaf: leaf.divided[0].cpu() if _is_answer(leaf) else leaf))
            return
        found = []
        for one in _answers(part):
            one.require_rows(len(going_on))
            found.append(one.divided)
        if not self._outputs:
            shape = (self._batch.steps, self._samples.stop - self._samples.start)
            self._outputs = [torch.zeros(*shape, *one.shape[2:], dtype=one.dtype) for one in found]
        for kept, answer in zip(self._outputs, found, strict=True):
            kept[first : first + len(answer), going_on] = answer.cpu()

    def finish(self, steps_taken: Tensor) -> None:
        """Keep the outputs; a sample that stopped early keeps that of its last step."""
        steps = self._batch.steps
        if self._outputs and int(steps_taken.min()) < steps:
            last = torch.arange(steps)[:, None].minimum(steps_taken - 1)
            self._outputs = [one[last, torch.arange(len(steps_taken))] for one in self._outputs]
        if self._outputs:
            self._batch.add(self._samples.start, self._outputs)


class _Function:
    """The mean of a function over all samples."""

    def __init__(self, measure: Measure, steps: int) -> None:
        self._measure = measure
        self._sums = torch.zeros(steps, dtype=torch.float64)
        self._samples = torch.zeros(steps, dtype=torch.float64)

    def part_of(self, outputs: Iterator[Any], targets: Any, samples: int) -> tuple[list[float], int]:
        """The sum over the samples after every step, and their number."""
        name = getattr(self._measure.metric, "__name__", type(self._measure.metric).__name__)
        sums = []
        for step, output in enumerate(outputs):
            with _asked(self._measure.who, name, step, targets):
                found: Any = self._measure.metric(output, targets)
            sums.append(self._total(found, samples))
        return sums, samples

    def take(self, part: tuple[list[float], int]) -> None:
        sums, samples = part
        self._sums += torch.tensor(sums, dtype=torch.float64)
        self._samples += samples

    def values(self) -> dict[str, tuple[float, ...]]:
        return {self._measure.name: tuple((self._sums / self._samples).tolist())}

    def latest(self) -> dict[str, float]:
        return {self._measure.name: float(self._sums[-1] / self._samples[-1])}

    def state(self) -> dict[str, Any]:
        return {"sums": plain_tensor(self._sums), "samples": plain_tensor(self._samples)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._sums, self._samples = tensor_from(state["sums"]), tensor_from(state["samples"])

    def _total(self, found: Any, samples: int) -> float:
        """The sum over the samples of what the function returned for a batch."""
        values = _numbers(found)
        if values is not None and values.dim() == 0:
            return float(values) * samples
        if values is not None and values.shape == (samples,):
            return float(values.sum())
        raise InputError(
            f"{self._measure.who} returned {describe_batch(found)}; it must return a number, the mean over the batch, "
            f"or one number for each of the {samples} samples, a tensor [N]."
        )


class _Accumulating:
    """A copy of the caller's object for every step."""

    def __init__(self, measure: Measure, steps: int) -> None:
        self._measure = measure
        with blame(measure.who, "copied for every step", measure.metric, "__deepcopy__"):
            self._metrics = [copy.deepcopy(measure.metric) for _ in range(steps)]
        if callable(getattr(measure.metric, "reset", None)):
            with blame(measure.who, "reset", measure.metric, "reset"):
                for one in self._metrics:
                    one.reset()
        for one in self._metrics:
            if hasattr(one, "sync_on_compute"):  # torchmetrics would wait for other processes, which have other steps
                one.sync_on_compute = one._to_sync = False

    def part_of(self, outputs: Iterator[Any], targets: Any, samples: int) -> tuple[list[Any], Any]:
        """The outputs after every step, and the targets."""
        return list(outputs), targets

    def take(self, part: tuple[list[Any], Any]) -> None:
        outputs, targets = part
        for step, output in enumerate(outputs):
            self._show(step, output, targets)

    def _show(self, step: int, output: Any, targets: Any) -> None:
        metric = self._metrics[step]
        device = getattr(metric, "device", None)
        if isinstance(device, torch.device) and device.type != "cpu":
            output, targets = (map_tensors(one, lambda x: move(x, device)) for one in (output, targets))
        with _asked(self._measure.who, f"{type(metric).__name__}.update", step, targets):
            metric.update(output, targets)

    def values(self) -> dict[str, tuple[float, ...]]:
        found: dict[str, list[float]] = {}
        for metric in self._metrics:
            with blame(self._measure.who, "asked for its value", metric, "compute"):
                computed: Any = metric.compute()
            several = computed if isinstance(computed, dict) else {"": computed}
            for key, one in several.items():
                value = _numbers(one)
                if value is None or value.numel() != 1:
                    raise InputError(
                        f"{self._measure.who} computed {describe_batch(one)}; it must compute one number, or a dict of "
                        "numbers. Let it average over the classes, for example."
                    )
                found.setdefault(f"{self._measure.name}.{key}" if key else self._measure.name, []).append(float(value))
        return {name: tuple(values) for name, values in found.items()}

    def latest(self) -> dict[str, float]:
        return {}  # to compute the value may cost as much as the simulation

    def state(self) -> dict[str, Any]:
        raise OptionError(
            f"{self._measure.who} is an object with update() and compute(), whose state a checkpoint cannot hold. Give "
            "a name, a function of (output, target) or a subclass of Metric; or evaluate without checkpoint=..."
        )

    def restore(self, state: Mapping[str, Any]) -> None:
        self.state()


def _numbers(found: Any) -> Tensor | None:
    """What a metric returned as a tensor; None if it is no number."""
    if found is None or isinstance(found, str):
        return None
    try:
        # By NumPy, because torch makes a number of Python's one of single precision.
        values = (found if isinstance(found, Tensor) else torch.as_tensor(np.asarray(found))).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        return None
    return None if values.dtype.is_complex else values.double()


@contextmanager
def _asked(who: Culprit, where: str, step: int, targets: Any) -> Iterator[None]:
    """Say whose code failed, or that it wrote to the targets, which the next step needs."""
    doing = f"given the outputs after step {step + 1}"
    before = Untouched(tensors(targets), exact=step == 0, sums=False)
    with translated(lambda error: PluginError(describe_failure(who, doing, where, error))):
        yield
    if before.changed():
        raise PluginError(
            f"{who}, {doing}, writes to the targets (in {where}), which every step is compared with. Work on a copy "
            f"(target.clone()). {who.advice}"
        )


def _answers(part: Any) -> list[Answers]:
    return [leaf for leaf in leaves(part) if _is_answer(leaf)]


def _is_answer(leaf: Any) -> bool:
    return isinstance(leaf, Answers)
