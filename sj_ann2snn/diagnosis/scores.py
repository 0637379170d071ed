"""What the metrics say of the answers of one way of running a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..contracts.metric import Metric
from ..errors import InputError, OptionError
from ..evaluation.metrics.direction import higher_is_better
from ..evaluation.metrics.measures import Measure, measures_of, no_answers
from ..evaluation.metrics.targets import Targets
from ..evaluation.tally import metrics_of
from ..evaluation.tile import BatchMetric, shown_once
from ..support.calls import literal
from ..support.wording import listed, shown

__all__ = ["Scores", "Wanted", "directed"]


@dataclass(frozen=True)
class Wanted:
    """What to measure.

    Attributes:
        measures: The metrics; empty for none.
        against_ann: True if the ANN's outputs take the place of the targets.
        required: False if the metric is left out where the data has no targets for it.
        why: The argument that asks for targets, for messages.
        is_default: True if the caller names no metric.
        given: The metric, as the caller gave it.
    """

    measures: tuple[Measure, ...]
    against_ann: bool
    required: bool
    why: str
    is_default: bool = False
    given: Any = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments by which `evaluate` measures the same, as text."""
        metric = "agreement" if self.given is None and self.against_ann else self.given
        text = literal(metric) if _is_text(metric) else "metric"
        return (*([] if metric is None else [f"metric={text}"]), *(["ann=ann"] if self.against_ann else []))

    @classmethod
    def of(cls, metric: Any, labels: bool | None, against_ann: bool) -> Wanted:
        """What the arguments of `diagnose` mean.

        Raises:
            OptionError: They contradict each other, or `metric` is no metric.
        """
        if not isinstance(against_ann, bool):
            raise OptionError(f"against_ann={shown(against_ann)} is not allowed: it must be True or False.")
        if labels is not None and (metric is not None or against_ann):
            other = "against_ann=True" if metric is None else "metric=..."
            raise OptionError(
                f"labels={shown(labels)} and {other} exclude each other: labels= asks for the accuracy, or for none. "
                "Leave it out."
            )
        if labels is False:
            return cls((), False, False, "")
        given = ("agreement" if against_ann else "top1") if metric is None else metric
        measures = measures_of(given, ann=cls)  # whatever stands for the ANN: there always is one
        against_ann = against_ann or any(one.against_ann for one in measures)
        required = bool(labels) or metric is not None or against_ann
        why = "labels=True" if labels else f"the metric {listed(shown(one.name) for one in measures)}"
        return cls(measures, against_ann, required, why, metric is None and not against_ann, metric)

    def fit(self, targets: Sequence[Targets], output: Any) -> bool:
        """True if the default metric can compare the targets with the ANN's output on some samples.

        Raises:
            InputError: It cannot, and the caller asks for it.
        """
        try:
            for one in targets:
                for measure in self.measures:
                    part = measure.part_of(output)
                    if not isinstance(part, Tensor):
                        raise InputError(no_answers(measure, part))
                    shape = part.shape[1:]
                    measure.metric.targets(measure.target_of(one.found, output, one.samples), (one.samples, *shape))
        except InputError as error:
            if self.required:
                raise InputError(
                    f"{self.why} needs a classifier with one output [N, classes], and labels of its classes. {error} "
                    "Leave the argument out: the differences of the outputs need no labels."
                ) from error
            return False
        return True


def _is_text(metric: Any) -> bool:
    """True for the name of a metric, or names for several."""
    if isinstance(metric, Mapping):
        metric = tuple(metric.values())
    return isinstance(metric, str) or (isinstance(metric, (tuple, list)) and all(map(_is_text, metric)))


class Scores:
    """The totals of the metrics over all samples.

    Args:
        measures: The metrics.
        restore: Gives an output the classes that the ANN gives it.
    """

    def __init__(self, measures: Sequence[Measure], restore: Callable[[Any], Any]) -> None:
        self._metrics = metrics_of(measures, 1, restore)
        self._batch: list[BatchMetric] = []
        self._targets: Targets | None = None

    def add(self, answers: Any, targets: Targets, rows: slice) -> None:
        """Take in the answers of some samples of a batch; those of one batch follow each other.

        Raises:
            InputError: The targets do not fit the answers.
        """
        if targets is not self._targets:
            self.finish()
            self._targets, self._batch = targets, [one.batch(targets) for one in self._metrics]
        for one in self._batch:
            shown_once(one, answers, rows)

    def values(self) -> dict[str, float]:
        """Every metric by its name; only once all samples are there."""
        self.finish()
        return {name: values[0] for one in self._metrics for name, values in one.values().items()}

    def finish(self) -> None:
        """Compute what the metrics say of the batch, all of whose samples are there."""
        for metric, batch in zip(self._metrics, self._batch, strict=False):
            metric.finish(batch)  # type: ignore[arg-type]
        self._targets, self._batch = None, []


def directed(measures: Sequence[Measure], name: str) -> tuple[bool | None, bool]:
    """How to read a value of the metrics: whether higher is better (None if the metric does not say), and if at most 1.

    Args:
        measures: The metrics.
        name: The name of the value: that of a metric, or behind it that of one of its values.
    """
    named = [one for one in measures if name == one.name]
    measure = next(iter(named or (one for one in measures if name.startswith(f"{one.name}."))))
    return higher_is_better(measure, name), isinstance(measure.metric, Metric) and measure.metric.is_share
