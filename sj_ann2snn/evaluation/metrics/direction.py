"""Whether a higher value of a metric is better."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn
from torch.nn.modules.loss import _Loss

from .measures import Measure

__all__ = ["higher_is_better"]


def higher_is_better(measure: Measure, name: str) -> bool | None:
    """True for a score, False for an error, None if the metric does not say.

    >>> import torch.nn.functional as F
    >>> from .measures import measures_of
    >>> [higher_is_better(one, one.name) for one in measures_of(["mse", "iou", F.l1_loss, lambda y, t: 0], None)]
    [False, True, False, None]

    A `Metric` and a torchmetrics.Metric say it as `higher_is_better`, and functions and other objects may; torch's
    losses are errors.

    Args:
        measure: The metric.
        name: Which of its values, if it has several.
    """
    metric: Any = measure.metric
    if isinstance(metric, nn.ModuleDict):  # torchmetrics.MetricCollection
        inner: Any = dict(metric.items()).get(name.removeprefix(f"{measure.name}."))
        metric = metric if inner is None else inner
    while isinstance(metric, functools.partial) and not hasattr(metric, "higher_is_better"):
        metric = metric.func
    declared = getattr(metric, "higher_is_better", None)
    if isinstance(declared, bool):
        return declared
    is_loss = isinstance(metric, _Loss) or getattr(metric, "__module__", "") == "torch.nn.functional"
    return False if is_loss else None
