"""Metrics of regions, for segmentation: intersection over union, and the Dice coefficient."""

from __future__ import annotations

import torch
from torch import Tensor

from ..labels import IGNORED
from .classes import ClassMetric

__all__ = ["Dice", "IoU"]


class IoU(ClassMetric):
    """Intersection over union, the mean over the classes: the Jaccard index.

    >>> import torch
    >>> from sj_ann2snn import IoU
    >>> scores = torch.tensor([[[[0.9, 0.8, 0.2], [0.1, 0.2, 0.8]]]])  # one step, one sample, two classes, three pixels
    >>> found = IoU().contributions(scores, torch.tensor([[0, 1, 1]])).sum(1)
    >>> IoU().value(found, samples=1).item()
    0.5

    The output has one score per class and position, ``[N, classes, ...]``, and targets are class indices ``[N, ...]``;
    positions with the label -100 are left out. The pixels of all samples are counted together, and classes that occur
    neither in the targets nor in the answers do not count.

    Args:
        threshold: Without classes: every element of the output above the threshold belongs to the region, and the
            targets are 0 and 1, in the shape of the output. Use 0 for logits, 0.5 for probabilities. The value is that
            of the region alone.

    Raises:
        OptionError: `threshold` is not a number.

    Source: Everingham et al. 2010, "The Pascal visual object classes (VOC) challenge", section 4.1.3.
    """

    name = "iou"

    def contributions(self, answers: Tensor, targets: Tensor) -> Tensor:
        if self.threshold is not None:
            found, classes = (answers > self.threshold).long(), 2
        else:
            found, classes = answers.argmax(2), answers.shape[2]
        found = found.reshape(*found.shape[:2], -1)
        wanted = targets.long().reshape(1, len(targets), -1).expand_as(found)
        counted = wanted != IGNORED
        parts = [_counts(found, counted & (found == wanted), classes)]
        parts += [_counts(found, counted, classes), _counts(wanted.clamp(min=0), counted, classes)]
        if self.threshold is not None:
            parts = [part[..., 1:] for part in parts]
        return torch.cat(parts, 2)

    def value(self, sums: Tensor, samples: int) -> Tensor:
        both, found, wanted = sums.chunk(3, 1)
        # 0 / 0 is a class that occurs nowhere.
        return self.ratio(both, found + wanted).nanmean(1)

    def ratio(self, both: Tensor, sizes: Tensor) -> Tensor:
        """The value of a class from the size of the intersection and the sum of both regions' sizes."""
        return both / (sizes - both)


class Dice(IoU):
    """The Dice coefficient, the mean over the classes: the F1 score of the pixels.

    >>> import torch
    >>> from sj_ann2snn import Dice
    >>> scores = torch.tensor([[[[0.9, 0.8, 0.2], [0.1, 0.2, 0.8]]]])  # one step, one sample, two classes, three pixels
    >>> found = Dice().contributions(scores, torch.tensor([[0, 1, 1]])).sum(1)
    >>> round(Dice().value(found, samples=1).item(), 4)
    0.6667

    Outputs, targets and `threshold` are those of `IoU`.

    Source: Dice 1945, "Measures of the amount of ecologic association between species".
    """

    name = "dice"

    def ratio(self, both: Tensor, sizes: Tensor) -> Tensor:
        return 2 * both / sizes


def _counts(classes: Tensor, counted: Tensor, count: int) -> Tensor:
    """How many positions of each step and sample have each class, ``[t, n, count]``."""
    zeros = torch.zeros(*classes.shape[:2], count, dtype=torch.float64, device=classes.device)
    return zeros.scatter_add_(2, classes, counted.double())
