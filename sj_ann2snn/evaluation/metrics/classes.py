"""Metrics of classes: accuracy, and agreement with the ANN."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...contracts.metric import Metric, number_targets
from ...contracts.option_checks import require_integer, require_number
from ...errors import InputError
from ..labels import IGNORED, class_targets, classes_of_ann, decisions, require_classes
from .regression import R2Score

__all__ = ["Accuracy", "Agreement", "ClassMetric"]


class ClassMetric(Metric):
    """The base of metrics that compare classes: the best of several scores, or with a threshold yes and no.

    Args:
        threshold: As for `Accuracy`.
    """

    is_share = True

    def __init__(self, *, threshold: float | None = None) -> None:
        self.threshold = None if threshold is None else require_number("threshold", threshold)

    @property
    def scale_invariant(self) -> bool:
        return not self.threshold

    def targets(self, found: Any, shape: tuple[int, ...]) -> Tensor:
        if self.threshold is not None:
            return decisions(found, shape)
        require_classes(shape, self.name)
        return class_targets(found, shape)

    def targets_of_ann(self, outputs: Tensor) -> Any:
        return classes_of_ann(outputs, self.threshold, self.name)


class Accuracy(ClassMetric):
    """The share of samples, or of pixels, whose class is among the best.

    >>> import torch
    >>> from sj_ann2snn import Accuracy
    >>> scores, labels = torch.tensor([[[0.1, 0.9], [0.8, 0.2]]]), torch.tensor([1, 1])
    >>> Accuracy().value(Accuracy().contributions(scores, labels).sum(1), samples=2).item()
    0.5

    The output has one score per class, ``[N, classes]``, or per class and position, ``[N, classes, ...]``; targets are
    class indices, ``[N]`` or ``[N, ...]``, or one-hot rows ``[N, classes]``. Among equal scores the first counts as the
    best. Positions with the label -100 are left out, as torch's losses do.

    Args:
        top: How many of the best classes count.
        threshold: Without classes: every element of the output above the threshold means "yes", and the targets are 0
            and 1, in the shape of the output. Use 0 for logits, 0.5 for probabilities.

    Raises:
        OptionError: `top` is not a positive integer, or `threshold` is not a number.
    """

    name = "top1"

    def __init__(self, *, top: int = 1, threshold: float | None = None) -> None:
        super().__init__(threshold=threshold)
        self.top = require_integer("top", top, 1, what="the number of classes that count")

    def targets(self, found: Any, shape: tuple[int, ...]) -> Tensor:
        if self.threshold is None and self.top > 1 and len(shape) > 1 and 1 < shape[1] <= self.top:
            raise InputError(
                f"The best {self.top} of the network's {shape[1]} classes are all there are, so every answer would be "
                "right. Use a smaller number of classes."
            )
        return super().targets(found, shape)

    def contributions(self, answers: Tensor, targets: Tensor) -> Tensor:
        if self.threshold is not None:
            right, counted = (answers > self.threshold) == targets, torch.ones_like(targets)
        else:
            counted = targets != IGNORED
            right = _among_best(answers, targets.clamp(min=0), self.top) & counted
        rights = right.reshape(*right.shape[:2], -1).sum(2)
        return torch.stack([rights, counted.reshape(len(counted), -1).sum(1).expand_as(rights)], 2)

    def value(self, sums: Tensor, samples: int) -> Tensor:
        return sums[:, 0] / sums[:, 1]


class Agreement(Metric):
    """How far the network answers as the ANN does, without any label.

    >>> import torch
    >>> from sj_ann2snn import Agreement
    >>> scores, best = torch.tensor([[[0.1, 0.9], [0.8, 0.2]]]), torch.tensor([1, 1])
    >>> Agreement().value(Agreement().contributions(scores, best).sum(1), samples=2).item()
    0.5

    For an output with several columns, ``[N, classes, ...]``, the share of samples, or of positions, with the same best
    class. For an output without, ``[N]`` or ``[N, 1, ...]``, the coefficient of determination (`R2Score`). Both are 1
    if the answers are the same. Several columns that are no classes, such as coordinates, are better compared by
    ``"r2"``, with `ann=` as well.
    """

    name = "agreement"
    is_share = True
    against_ann = True

    def targets(self, found: Any, shape: tuple[int, ...]) -> Tensor:
        outputs = number_targets(found, shape)
        return outputs.argmax(1) if _has_columns(shape) else outputs

    def contributions(self, answers: Tensor, targets: Tensor) -> Tensor:
        if _has_columns(answers.shape[1:]):
            return Accuracy().contributions(answers, targets)
        return R2Score().contributions(answers, targets)

    def value(self, sums: Tensor, samples: int) -> Tensor:
        columns = sums.shape[1] == 2  # R2Score adds up four numbers
        return (Accuracy() if columns else R2Score()).value(sums, samples)


def _has_columns(shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and shape[1] > 1


def _among_best(scores: Tensor, labels: Tensor, top: int) -> Tensor:
    """``[t, n, ...]``: whether the label's score is among the best; of equal scores, the first classes are better."""
    if top == 1:
        return scores.argmax(2) == labels
    chosen = labels.expand(len(scores), *labels.shape).unsqueeze(2)
    own = scores.gather(2, chosen)
    classes = torch.arange(scores.shape[2], device=scores.device).reshape(-1, *[1] * (scores.dim() - 3))
    better = (scores > own) | ((scores == own) & (classes < chosen))
    return better.sum(2) < top
