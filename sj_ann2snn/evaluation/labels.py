"""Class labels: what a batch gives for them, and whether the outputs of a network are the scores of these classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..contracts.metric import as_tensor, number_targets
from ..errors import InputError

__all__ = ["IGNORED", "ClassLabels", "class_targets", "classes_of_ann", "decisions", "require_classes"]

ALLOWED = (
    "Allowed are class indices, integers from 0 up, [N] or [N, 1], and one-hot rows [N, classes]. For other targets, "
    "give another metric, such as metric='mse', or a function of (output, target)."
)

IGNORED = -100
"""The label that torch's losses leave out by default (`ignore_index`)."""

INTEGERS = (
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
)


class ClassLabels:
    """The class indices of one batch.

    >>> ClassLabels([2, 0], samples=2).indices
    tensor([2, 0])
    >>> ClassLabels(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), samples=2).indices
    tensor([1, 0])

    Args:
        found: What the batch holds for them.
        samples: Number of samples in the batch.

    Attributes:
        indices: ``[N]``, int64.
        columns: Columns of one-hot rows; None for class indices.

    Raises:
        InputError: They are no class labels, or not one per sample.
    """

    def __init__(self, found: Any, samples: int) -> None:
        labels = _tensor(found)
        if labels.dim() and labels.shape[0] != samples:
            raise InputError(
                f"It holds {samples} samples but {labels.shape[0]} labels; there must be one label per sample."
            )
        if not labels.dim():
            raise _refusal(labels, "a single number, not one label per sample. A DataLoader makes batches of samples")
        self.columns = labels.shape[1] if labels.dim() == 2 and labels.shape[1] != 1 else None
        self.indices = _indices(labels) if self.columns is None else _one_hot_indices(labels)

    def require_classes(self, classes: int) -> None:
        """Check that the labels are among that number of classes.

        Raises:
            InputError: They are not.
        """
        if self.columns not in (None, classes):
            raise InputError(
                f"Its labels are one-hot rows of {self.columns} columns, but the network distinguishes {classes} "
                "classes; there must be one column per class."
            )
        outside = ((self.indices < 0) | (self.indices >= classes)).nonzero().flatten()
        if len(outside):
            sample = int(outside[0])
            label = int(self.indices[sample])
            raise InputError(
                f"The label {label} of sample {sample} is out of range ({len(outside)} of {len(self.indices)} labels "
                f"are): the network distinguishes {classes} classes, so a label is an integer from 0 to {classes - 1}."
                f"{self._hint(label, classes)}"
            )

    def _hint(self, label: int, classes: int) -> str:
        if label == IGNORED:
            return f" {IGNORED} marks samples to ignore (torch's ignore_index): leave these samples out of the batch."
        if label < 0:
            return " Leave samples without a class out of the batch."
        if label == classes and int(self.indices.min()) >= 1:
            return " If your labels start at 1, subtract 1."
        return ""


def class_targets(found: Any, shape: tuple[int, ...]) -> Tensor:
    """Class indices for answers of that shape: ``[N]`` for ``[N, classes]``, ``[N, ...]`` for ``[N, classes, ...]``.

    >>> class_targets([2, 0], (2, 3))
    tensor([2, 0])

    Raises:
        InputError: They are no such labels.
    """
    if len(shape) == 2:
        labels = ClassLabels(found, shape[0])
        labels.require_classes(shape[1])
        return labels.indices
    labels_of_positions = _tensor(found)
    if labels_of_positions.dim() == len(shape) and labels_of_positions.shape[1] == 1:
        labels_of_positions = labels_of_positions.squeeze(1)
    wanted = (shape[0], *shape[2:])
    if tuple(labels_of_positions.shape) != wanted:
        raise InputError(
            f"Its labels have shape {tuple(labels_of_positions.shape)}, but the network's output is shape "
            f"{tuple(shape)}: a score for each of {shape[1]} classes at every position, which needs labels of shape "
            f"{wanted}. For other targets, give a function of (output, target) as metric."
        )
    if labels_of_positions.dtype not in INTEGERS:
        raise _refusal(labels_of_positions, _why_not_integers(labels_of_positions))
    indices = labels_of_positions.to(torch.int64)
    outside = indices[(indices != IGNORED) & ((indices < 0) | (indices >= shape[1]))]
    if len(outside):
        hint = f" Give positions without a class the label {IGNORED}." if outside.min() != shape[1] else ""
        raise InputError(
            f"The label {int(outside[0])} is out of range ({len(outside)} of {indices.numel()} labels are): the "
            f"network distinguishes {shape[1]} classes, so a label is an integer from 0 to {shape[1] - 1}.{hint}"
        )
    return indices


def decisions(found: Any, shape: tuple[int, ...]) -> Tensor:
    """Whether each element belongs to the region: targets of 0 and 1 in the shape of the answers.

    >>> decisions([1, 0], (2, 1))
    tensor([[ True],
            [False]])

    Raises:
        InputError: They are other numbers, or of another shape.
    """
    targets = number_targets(found, shape)
    if not bool(((targets == 0) | (targets == 1)).all()):
        raise InputError(
            "Its targets are other numbers than 0 and 1. With a threshold, every element of the output means yes or no."
        )
    return targets.bool()


def classes_of_ann(outputs: Tensor, threshold: float | None, name: str) -> Tensor:
    """The ANN's decisions, or its best classes.

    Raises:
        InputError: There is no threshold, and they are no scores of classes.
    """
    if threshold is not None:
        return outputs > threshold
    require_classes(tuple(outputs.shape), name)
    return outputs.argmax(1)


def require_classes(shape: tuple[int, ...], metric: str) -> None:
    """Check that answers of that shape are one score per class, ``[N, classes]`` or ``[N, classes, ...]``.

    Raises:
        InputError: They are anything else, or have one column: its threshold is unknown.
    """
    if len(shape) < 2:
        raise InputError(
            f"The metric {metric} needs a classifier with one output [N, classes]; this network's output is shape "
            f"{tuple(shape)}. For numbers, give metric='mse', 'mae' or 'r2', or a function of (output, target)."
        )
    if shape[1] < 2:
        raise InputError(
            f"The network's output has {shape[1]} column{'' if shape[1] else 's'}, and the largest of its scores says "
            "nothing. A single score becomes a class by a threshold, which evaluate does not know: give "
            "metric=Accuracy(threshold=0) for logits, metric=Accuracy(threshold=0.5) for probabilities (or IoU or Dice "
            "with a threshold), 'mse' or 'r2' for numbers, or a function of (output, target)."
        )


def _tensor(found: Any) -> Tensor:
    """What a batch holds for labels as a tensor on the CPU."""
    return as_tensor(found, "Its labels are no class labels", ALLOWED)


def _indices(labels: Tensor) -> Tensor:
    if labels.dim() > 2:
        raise _refusal(labels, "more than one label per sample")
    if labels.dtype == torch.bool:
        raise _refusal(labels, "true or false. If these are the classes 1 and 0, give labels.long()")
    if labels.dtype not in INTEGERS:
        raise _refusal(labels, _why_not_integers(labels))
    return labels.reshape(-1).to(torch.int64)


def _why_not_integers(labels: Tensor) -> str:
    if not labels.dtype.is_floating_point:
        return "no integers"
    values = labels.reshape(-1).double()
    broken = (~values.isfinite() | (values != values.round())).nonzero().flatten()
    if len(broken):
        return f"real numbers, such as {float(values[broken[0]]):g} for sample {int(broken[0])}"
    return "real numbers. If they are class indices, give labels.long()"


def _one_hot_indices(labels: Tensor) -> Tensor:
    if labels.dtype.is_complex:
        raise _refusal(labels, "complex numbers")
    rows = labels.double() if labels.dtype not in (torch.bool, torch.int64) else labels.to(torch.int64)
    broken = (~((rows == 0) | (rows == 1)).all(1) | (rows.sum(1) != 1)).nonzero().flatten()
    if len(broken):
        row = [round(value, 4) for value in rows[broken[0]][:6].tolist()]
        cut = ", ..." if rows.shape[1] > 6 else ""
        raise _refusal(
            labels,
            f"not one-hot: the row of sample {int(broken[0])} is [{', '.join(f'{value:g}' for value in row)}{cut}], "
            "which must be a single 1 among zeros",
        )
    return rows.argmax(1)


def _refusal(labels: Tensor, why: str) -> InputError:
    dtype = str(labels.dtype).removeprefix("torch.")
    return InputError(f"Its labels (shape {tuple(labels.shape)}, {dtype}) are {why}. {ALLOWED}")
