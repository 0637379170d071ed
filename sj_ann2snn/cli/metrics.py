"""Reads ``--metric``: a name with options, a metric of the user's own, or one for each output."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from ..contracts.metric import Metric
from ..errors import OptionError
from ..evaluation.metrics.measures import is_accumulating, measures_of
from ..evaluation.metrics.names import metric_called
from .arguments import named_value
from .targets import load

__all__ = ["add_metric_argument", "metric_of", "needs_ann"]


def add_metric_argument(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command that measures a network."""
    parser.add_argument(
        "--metric",
        nargs="+",
        action="append",
        metavar=("NAME", "OPTION=VALUE"),
        help="what to measure: top1, top5, mse, mae, r2, iou, dice, with options (iou threshold=0.5); agreement with "
        "the ANN, which needs no targets; MODULE:FUNCTION of (output, target), MODULE:NAME of a torchmetrics.Metric, "
        "or OUTPUT=METRIC for each of several outputs; may be repeated (default: top1)",
    )
    parser.add_argument(
        "--against-ann", action="store_true", help="compare with the ANN's outputs in place of the targets"
    )


def metric_of(given: Sequence[Sequence[str]] | None) -> Any:
    """The metric that ``--metric ...`` means, for `evaluate`; None if it is not given.

    >>> metric_of([["iou", "threshold=0.5"]]).threshold
    0.5
    >>> metric_of([["scores=top1", "boxes=mse"]])["boxes"].name
    'mse'

    Raises:
        OptionError: A metric or an option is unknown, or what is given is no metric.
        InputError: Code of the user's that is named cannot be loaded.
    """
    if given is None:
        return None
    found = [_one(words) for words in given]
    return found[0] if len(found) == 1 else _joined(found)


def needs_ann(metric: Any, against_ann: bool) -> bool:
    """True if the ANN's outputs take the place of the targets.

    Raises:
        OptionError: `metric` is no metric.
    """
    # Any object stands for the ANN here: only whether a metric asks for one counts.
    return against_ann or any(one.against_ann for one in measures_of("top1" if metric is None else metric, object()))


def _one(words: Sequence[str]) -> Any:
    first, *others = words
    if "=" in first:
        outputs = (word.partition("=") for word in words)
        return {name: _named(metric, []) for name, _, metric in outputs}
    return _named(first, others)


def _named(name: str, options: Sequence[str]) -> Any:
    if ":" in name:
        if options:
            raise OptionError(f"--metric {name} {' '.join(options)} is not allowed: only named metrics take options.")
        return _loaded(name)
    try:
        return metric_called(name, dict(named_value(option) for option in options))
    except argparse.ArgumentTypeError as error:
        raise OptionError(f"--metric {name} {' '.join(options)}: {error}.") from error


def _loaded(target: str) -> Any:
    """A metric of the user's: an object, a function of (output, target), or a class or function that makes one."""
    found = load(target, "a function of (output, target), a Metric or a torchmetrics.Metric", call=False)
    made = isinstance(found, (Metric, nn.Module)) or (is_accumulating(found) and not isinstance(found, type))
    if not made and callable(found) and not _required(found):
        return load(target, "a function of (output, target), a Metric or a torchmetrics.Metric")
    return found


def _required(function: Any) -> bool:
    """True if a call needs arguments."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions do not say what they take
        return True
    return any(one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters)


def _joined(found: list[Any]) -> Any:
    if all(isinstance(one, dict) for one in found):
        return {name: metric for one in found for name, metric in one.items()}
    if any(isinstance(one, dict) for one in found):
        raise OptionError("--metric is given with and without names of outputs; name the output of every metric.")
    return found
