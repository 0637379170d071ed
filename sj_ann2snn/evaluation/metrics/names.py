"""The metrics that have a name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ...contracts.metric import Metric
from ...errors import OptionError
from ...support.wording import did_you_mean, listed, shown
from .classes import Accuracy, Agreement
from .regions import Dice, IoU
from .regression import MeanAbsoluteError, MeanSquaredError, R2Score

__all__ = ["metric_called"]

NAMED: dict[str, type[Metric]] = {
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "r2": R2Score,
    "iou": IoU,
    "dice": Dice,
    "agreement": Agreement,
}

KNOWN = ("top1", "top5", *NAMED)


def metric_called(name: str, options: Mapping[str, Any] | None = None) -> Metric:
    """The metric with a name; ``top`` and a number is the accuracy of that many best classes.

    >>> metric_called("top5").top
    5

    Raises:
        OptionError: There is none, or it does not take one of the options.
    """
    options = dict(options or {})
    best = re.fullmatch(r"top([1-9]\d{0,6})", name)
    make: Callable[..., Metric]
    if best:
        make, options = Accuracy, {"top": int(best[1]), **options}
    elif name in NAMED:
        make = NAMED[name]
    else:
        hint = did_you_mean(name, KNOWN)
        raise OptionError(
            f"metric={shown(name)} is not known.{' ' if hint else ''}{hint} Known metrics: {listed(KNOWN)}. A metric "
            "may also be a function of (output, target), an instance of Metric, or a torchmetrics.Metric."
        )
    try:
        return make(**options)
    except TypeError as error:
        given = listed(options)
        raise OptionError(f"The metric {name} does not take these options: {given} ({error}).") from error
