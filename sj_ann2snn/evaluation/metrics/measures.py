"""What the argument `metric` means: one or several metrics, each of the whole output or of one of its parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ...contracts.metric import Metric
from ...errors import InputError, OptionError
from ...simulation.engine.outputs import Constant
from ...support.batches import describe_batch
from ...support.blame import Culprit
from ...support.wording import listed, shortened, shown, with_article
from .names import metric_called

__all__ = ["Key", "Measure", "is_accumulating", "measures_of", "no_answers"]

Key = str | int


@dataclass(frozen=True)
class Measure:
    """A metric, its name in the result, and the part of the output that it measures.

    Attributes:
        name: Its name in the result.
        metric: A `Metric`, an object with `update` and `compute`, or a function.
        path: The keys of the part of the output; empty for the whole output.
        listed_of: If the metrics were given in a list, how many there are.
    """

    name: str
    metric: Any
    path: tuple[Key, ...] = ()
    listed_of: int = 0

    @property
    def who(self) -> Culprit:
        """The metric in messages."""
        return Culprit(f"Metric {shown(self.name)}")

    @property
    def by_sample(self) -> bool:
        """True if it takes samples one by one; otherwise it needs the outputs of a whole batch."""
        return isinstance(self.metric, Metric)

    @property
    def whole(self) -> bool:
        """True if it measures the whole output, whatever the network returns."""
        return not self.path and not self.listed_of

    @property
    def against_ann(self) -> bool:
        return self.by_sample and self.metric.against_ann

    def part_of(self, output: Any) -> Any:
        """The part of an output, or of something of the same structure, that the metric measures.

        Raises:
            InputError: The output has no such part.
        """
        for key in self._keys(output):
            output = self._entry(output, key)
        if not self.by_sample:
            return output
        found = [output] if not isinstance(output, (tuple, list, Mapping)) else _leaves(output)
        if len(found) != 1:
            raise InputError(
                f"The metric {shown(self.name)} needs a network with one output, such as a classifier with one output "
                f"[N, classes]; this network's output is {describe_output(output)}. Name the metric of each output, as "
                f"in metric={_example(output, self.name)}, or give a function of (output, target)."
            )
        return found[0]

    def target_of(self, found: Any, output: Any, samples: int) -> Any:
        """The part of a batch's targets that belongs to the part of the output.

        Args:
            found: What the batch holds behind the inputs: a tuple; or a dict.
            output: The network's output.
            samples: Number of samples.
        """
        keys = self._keys(output)
        if isinstance(found, tuple):
            several = len(found) > 1 and (not self.by_sample or (keys and len(found) == len(_values(output))))
            found = found if several else found[0]
        for key in keys:
            found = _target_at(found, key, output, samples)
            output = self._entry(output, key)
        return found

    def _keys(self, output: Any) -> tuple[Key, ...]:
        """The path, or nothing if it is only a name: for a single tensor, metrics have names of the caller's."""
        if not isinstance(output, (tuple, list, Mapping)):
            return ()
        if self.listed_of and self.listed_of != len(output):
            raise InputError(
                f"metric has {self.listed_of} entries, but the network returns {describe_output(output)}: give one for "
                "each output (None for outputs that are not measured), or a dict."
            )
        named = isinstance(output, Mapping) or self.listed_of or any(isinstance(key, int) for key in self.path)
        if not named and self.path and isinstance(self.path[0], str) and self.path[0].isdigit():
            return tuple(int(key) if isinstance(key, str) and key.isdigit() else key for key in self.path)
        return self.path if named else ()

    def _entry(self, output: Any, key: Key) -> Any:
        if isinstance(output, Mapping) and key in output:
            return output[key]
        if isinstance(key, int) and isinstance(output, (tuple, list, Mapping)) and key < len(output):
            return _values(output)[key]
        raise InputError(
            f"metric names the output {shown(key)}, which the network does not have: it returns "
            f"{describe_output(output)}."
        )


def measures_of(given: Any, ann: object) -> tuple[Measure, ...]:
    """What the argument `metric` means.

    Args:
        given: The argument.
        ann: The argument `ann`.

    Raises:
        OptionError: It is no metric, or needs the ANN.
    """
    if given is None:
        given = "top1" if ann is None else "agreement"
    measures = tuple(_named_apart(list(_measures(given, (), ""))))
    if not measures:
        raise OptionError(f"metric={shown(given)} holds no metric.")
    for one in measures:
        if one.against_ann and ann is None:
            raise OptionError(
                f"The metric {shown(one.name)} compares the network with the ANN that it was converted from: give the "
                "ANN, ann=..."
            )
    return measures


def describe_output(output: Any) -> str:
    """An output in words: its tensors by name."""
    if isinstance(output, Mapping):
        names = listed(shown(key) for key in output)
        return f"a dict with {names or 'nothing'}"
    if isinstance(output, (tuple, list)):
        kinds = [describe_output(one) for one in output]
        return f"{with_article(type(output).__name__)} of {listed(kinds) or 'nothing'}"
    if isinstance(output, (Tensor, str, int, float, bool)) or output is None:
        return describe_batch(output)
    return "a tensor"


def no_answers(measure: Measure, part: Any) -> str:
    """The message about a part of the output without a tensor that has samples."""
    if isinstance(part, Constant):
        return f"The metric {shown(measure.name)} measures an output that depends neither on the input nor on time."
    return (
        f"The metric {shown(measure.name)} needs an output that is a tensor [N, ...]; this network's output is "
        f"{describe_output(part)}."
    )


def _measures(given: Any, path: tuple[Key, ...], name: str) -> Iterator[Measure]:
    if isinstance(given, Mapping):
        for key, one in given.items():
            if not isinstance(key, (str, int)) or isinstance(key, bool):
                raise OptionError(f"metric has the key {shown(key)}; name the outputs by text or by number.")
            yield from _measures(one, (*path, key), f"{name}.{key}" if name else str(key))
    elif isinstance(given, Sequence) and not isinstance(given, str):
        if path:
            raise OptionError(f"metric holds a list under {shown(name)}; name the metrics there: a dict.")
        for index, one in enumerate(given):
            if one is not None:
                for found in _measures(one, (index,), ""):
                    yield replace(found, listed_of=len(given))
    elif given is not None:
        metric = metric_called(given) if isinstance(given, str) else given
        yield Measure(name or _name_of(metric), _checked(metric), path)


def _checked(metric: Any) -> Any:
    if isinstance(metric, type):
        name = shortened(metric.__name__)
        raise OptionError(f"metric={name} is a class; give an instance, metric={name}(...).")
    if isinstance(metric, Metric) or callable(metric) or is_accumulating(metric):
        return metric
    raise OptionError(
        f"metric={shown(metric)} is not allowed: give the name of a metric, a function of (output, target), an "
        "instance of Metric, a torchmetrics.Metric, or a dict or list of these, one for each output."
    )


def is_accumulating(metric: Any) -> bool:
    """True for an object like a `torchmetrics.Metric`: it takes in batches, and then computes its value."""
    return all(callable(getattr(metric, method, None)) for method in ("update", "compute"))


def _name_of(metric: Any) -> str:
    if isinstance(metric, Metric):
        top = getattr(metric, "top", None)
        return metric.name if top is None else f"top{top}"
    return shortened(str(getattr(metric, "__name__", type(metric).__name__)))


def _named_apart(measures: list[Measure]) -> Iterator[Measure]:
    """The same with a number in front of names that occur more than once."""
    count = Counter(one.name for one in measures)
    for index, one in enumerate(measures):
        yield one if count[one.name] == 1 else replace(one, name=f"{index}.{one.name}")


def _values(output: Any) -> list[Any]:
    return list(output.values()) if isinstance(output, Mapping) else list(output)


def _leaves(output: Any) -> list[Any]:
    """Everything that an output holds, except for what is None."""
    if isinstance(output, (tuple, list, Mapping)):
        return [leaf for one in _values(output) for leaf in _leaves(one)]
    return [] if output is None else [output]


def _target_at(found: Any, key: Key, output: Any, samples: int) -> Any:
    if isinstance(found, Mapping):
        if isinstance(key, int) and isinstance(output, Mapping):
            key = list(output)[key]
        if key not in found:
            raise InputError(f"Its targets are {describe_batch(found)}, without one for the output {shown(key)}.")
        return found[key]
    place = key if isinstance(key, int) else list(output).index(key)
    several = isinstance(found, (tuple, list)) and len(found) == len(_values(output))
    return found[place] if several and all(_rows(one) == samples for one in found) else found


def _rows(one: Any) -> int | None:
    try:
        return len(one)
    except TypeError:
        return None


def _example(output: Any, name: str) -> str:
    """How to name the metric of each output."""
    metric = name if name.isidentifier() else "mse"
    if isinstance(output, Mapping):
        return "{" + ", ".join(f"{shown(key)}: {shown(metric)}" for key in list(output)[:2]) + "}"
    return "(" + ", ".join([shown(metric)] * len(output)) + ")"
