"""Metrics of numbers: squared error, absolute error, coefficient of determination."""

from __future__ import annotations

import torch
from torch import Tensor

from ...contracts.metric import Metric

__all__ = ["MeanAbsoluteError", "MeanSquaredError", "R2Score"]


class MeanSquaredError(Metric):
    """The mean squared difference, over all elements of all samples.

    >>> import torch
    >>> from sj_ann2snn import MeanSquaredError
    >>> found = MeanSquaredError().contributions(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[1.0, 1.0]]))
    >>> MeanSquaredError().value(found.sum(1), samples=1).item()
    2.0

    Targets have the shape of the output, ``[N, ...]``.
    """

    name = "mse"
    higher_is_better = False

    def contributions(self, answers: Tensor, targets: Tensor) -> Tensor:
        return _with_count(self.distances(answers.double() - targets.double()))

    def distances(self, differences: Tensor) -> Tensor:
        """What an element contributes."""
        return differences.square()

    def value(self, sums: Tensor, samples: int) -> Tensor:
        return sums[:, 0] / sums[:, 1]


class MeanAbsoluteError(MeanSquaredError):
    """The mean absolute difference, over all elements of all samples.

    >>> import torch
    >>> from sj_ann2snn import MeanAbsoluteError
    >>> found = MeanAbsoluteError().contributions(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[1.0, 1.0]]))
    >>> MeanAbsoluteError().value(found.sum(1), samples=1).item()
    1.0

    Targets have the shape of the output, ``[N, ...]``.
    """

    name = "mae"

    def distances(self, differences: Tensor) -> Tensor:
        return differences.abs()


class R2Score(Metric):
    """The coefficient of determination: 1 for perfect answers, 0 for answers as good as the targets' mean.

    >>> import torch
    >>> from sj_ann2snn import R2Score
    >>> found = R2Score().contributions(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[1.0], [5.0]]))
    >>> R2Score().value(found.sum(1), samples=2).item()
    0.5

    Targets have the shape of the output, ``[N, ...]``. The value is the mean over the output's columns (dimension 1) of
    1 - (sum of squared differences) / (sum of squared deviations of the targets from their mean). If the targets of a
    column are all the same, it is undefined, and the value is NaN.
    """

    name = "r2"

    def contributions(self, answers: Tensor, targets: Tensor) -> Tensor:
        y = _columns(targets.double())
        errors = (_columns(answers.double(), 1) - y).square().sum(3)
        steps = len(answers)
        count = torch.full_like(errors[..., :1], y.shape[2])
        return torch.cat([count, errors, _repeated(y.sum(2), steps), _repeated(y.square().sum(2), steps)], 2)

    def value(self, sums: Tensor, samples: int) -> Tensor:
        count, (errors, totals, squares) = sums[:, :1], sums[:, 1:].chunk(3, 1)
        deviations = squares - totals.square() / count
        # A constant column has deviations of zero up to rounding.
        undefined = deviations <= 1e-12 * squares
        return torch.where(undefined, torch.nan, 1 - errors / deviations).mean(1)


def _columns(x: Tensor, leading: int = 0) -> Tensor:
    """``[..., n, columns, positions]``."""
    shape = x.shape[: leading + 1]
    columns = x.shape[leading + 1] if x.dim() > leading + 1 else 1
    return x.reshape(*shape, columns, -1)


def _repeated(x: Tensor, steps: int) -> Tensor:
    return x.expand(steps, *x.shape)


def _with_count(elements: Tensor) -> Tensor:
    """The sum over each sample's elements, and their number."""
    flat = elements.reshape(*elements.shape[:2], -1)
    return torch.stack([flat.sum(2), torch.full(flat.shape[:2], flat.shape[2], device=flat.device).double()], 2)
