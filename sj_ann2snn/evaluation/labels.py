"""Class labels: what a batch gives for them, and whether the outputs of a network are the scores of these classes.

Whatever compares answers with labels (`evaluate`, `accuracy_of`, the command line) reads both through this file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..support.batches import describe_batch
from ..support.wording import described

__all__ = ["ClassLabels", "require_scores"]

ALLOWED = (
    "Allowed are class indices, integers from 0 up, [N] or [N, 1], and one-hot rows [N, classes]. For other targets, "
    "run simulate and compare its answers in the way your task needs."
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
        self._fit: int | None = None  # the number of classes they were found to be among

    def require_classes(self, classes: int) -> None:
        """Check that the labels are among that number of classes.

        Raises:
            InputError: They are not.
        """
        if classes == self._fit:
            return
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
        self._fit = classes

    def _hint(self, label: int, classes: int) -> str:
        if label == IGNORED:
            return f" {IGNORED} marks samples to ignore (torch's ignore_index): leave these samples out of the batch."
        if label < 0:
            return " Leave samples without a class out of the batch."
        if label == classes and int(self.indices.min()) >= 1:
            return " If your labels start at 1, subtract 1."
        return ""


def require_scores(outputs: Any, samples: int, leading: int = 0) -> Tensor:
    """Check that `outputs` are one score per class and sample, ``[N, classes]``, and return them.

    Args:
        outputs: What a network answers.
        samples: Number of samples.
        leading: Number of dimensions in front of the samples.

    Raises:
        InputError: They are anything else, or have one column: its threshold is unknown.
    """
    if not isinstance(outputs, Tensor) or outputs.dim() != leading + 2:
        given = f"shape {tuple(outputs.shape[leading:])}" if isinstance(outputs, Tensor) else describe_batch(outputs)
        raise InputError(
            f"evaluate needs a classifier with one output [N, classes]; this network's output is {given}. "
            "Use simulate and compare the outputs in the way your task needs."
        )
    rows, classes = outputs.shape[leading:]
    if rows != samples:
        raise InputError(
            f"The network answers with {rows} rows for {samples} samples; evaluate needs one row per sample."
        )
    if classes < 2:
        raise InputError(
            f"The network's output has {classes} column{'' if classes else 's'}, and the largest of its scores says "
            "nothing. A single score becomes a class by a threshold, which evaluate does not know: run simulate and "
            "compare its answer with your threshold, (simulate(snn, x, T) > 0), or give the network one output per "
            "class."
        )
    return outputs


def _tensor(found: Any) -> Tensor:
    """What a batch holds for labels as a tensor on the CPU."""
    try:
        # A copy: torch warns of arrays that it may not write to, and refuses those that run backwards.
        labels = torch.as_tensor(found.copy() if isinstance(found, np.ndarray) else found).detach()
        return (labels.to_dense() if labels.layout != torch.strided else labels).cpu()
    except Exception as error:
        raise InputError(
            f"Its labels are no class labels: they are {describe_batch(found)}, which is no tensor of numbers "
            f"({described(error)}). {ALLOWED}"
        ) from error


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
