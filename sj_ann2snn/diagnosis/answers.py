"""How far answers are from the ANN's, and how many of them are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..evaluation.labels import ClassLabels
from ..support.trees import tensors

__all__ = ["AnswerSums", "real", "require_classifier"]


@dataclass
class AnswerSums:
    """Sums over the answers of one way of running a network.

    Attributes:
        differences: For every output, the sum of its squared differences from the ANN's.
        references: For every output, the sum of the ANN's squares.
        right: Samples that were classified correctly, if there are labels.
        samples: Number of samples with labels.
    """

    differences: list[float] = field(default_factory=list)
    references: list[float] = field(default_factory=list)
    right: int = 0
    samples: int = 0

    def add(self, answers: Any, wanted: Sequence[Tensor], labels: ClassLabels | None) -> None:
        """Take in answers ``[N, ...]``, nested as the network returns them, and the ANN's."""
        found = real(answers)
        self.differences = self.differences or [0.0] * len(wanted)
        self.references = self.references or [0.0] * len(wanted)
        for index, (answer, reference) in enumerate(zip(found, wanted, strict=True)):
            reference = reference.double()
            self.differences[index] += float((answer.double() - reference).square().sum())
            self.references[index] += float(reference.square().sum())
        if labels is not None:
            self.right += int((found[0].argmax(1).cpu() == labels.indices).sum())
            self.samples += len(labels.indices)

    @property
    def divergence(self) -> float:
        """The norm of the difference relative to the ANN's output; the root mean square over several outputs."""
        ratios = [one / (other or 1.0) for one, other in zip(self.differences, self.references, strict=True)]
        return float((sum(ratios) / max(1, len(ratios))) ** 0.5)

    @property
    def accuracy(self) -> float | None:
        """Share of the samples that are right; None without labels."""
        return self.right / self.samples if self.samples else None


def real(outputs: Any) -> list[Tensor]:
    """The tensors of real numbers among the outputs of a network."""
    return [value for value in tensors(outputs) if value.is_floating_point()]


def require_classifier(outputs: Sequence[Tensor]) -> None:
    """Check that the ANN's output is one score per class and sample.

    Raises:
        InputError: It is not.
    """
    if len(outputs) == 1 and outputs[0].dim() == 2 and outputs[0].shape[1] > 1:
        return
    shapes = ", ".join(str(tuple(value.shape)) for value in outputs)
    raise InputError(
        f"labels=True needs a classifier with one output [N, classes]; this network returns {shapes or 'no tensor'}. "
        "Leave the argument out: the differences of the outputs need no labels."
    )


def is_classifier(outputs: Sequence[Tensor]) -> bool:
    """True if labels can be compared with these outputs."""
    return len(outputs) == 1 and outputs[0].dim() == 2 and outputs[0].shape[1] > 1 and outputs[0].dtype != torch.bool
