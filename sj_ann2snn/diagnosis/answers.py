"""How far answers are from the ANN's, and what the metrics say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..support.trees import tensors
from .data import Chunk
from .scores import Scores

__all__ = ["AnswerSums", "real"]


@dataclass
class AnswerSums:
    """Sums over the answers of one way of running a network.

    Attributes:
        scores: The metrics; None if there are none.
        differences: For every output, the sum of its squared differences from the ANN's.
        references: For every output, the sum of the ANN's squares.
        known: The values of the metrics, if another process has computed them.
    """

    scores: Scores | None = None
    differences: list[float] = field(default_factory=list)
    references: list[float] = field(default_factory=list)
    known: dict[str, float] | None = None

    def add(self, answers: Any, wanted: Sequence[Tensor], chunk: Chunk | None = None) -> None:
        """Take in answers ``[N, ...]``, nested as the network returns them.

        Args:
            answers: The answers.
            wanted: The ANN's tensors of real numbers.
            chunk: The samples, for metrics.
        """
        found = real(answers)
        self.differences = self.differences or [0.0] * len(wanted)
        self.references = self.references or [0.0] * len(wanted)
        for index, (answer, reference) in enumerate(zip(found, wanted, strict=True)):
            reference = reference.double()
            self.differences[index] += float((answer.double() - reference).square().sum())
            self.references[index] += float(reference.square().sum())
        if self.scores is not None and chunk is not None and chunk.targets is not None:
            try:
                self.scores.add(answers, chunk.targets, chunk.rows)
            except InputError as error:
                raise InputError(f"Batch {chunk.batch} cannot be diagnosed. {error}") from error

    @property
    def divergence(self) -> float:
        """The norm of the difference relative to the ANN's output; the root mean square over several outputs."""
        ratios = [one / (other or 1.0) for one, other in zip(self.differences, self.references, strict=True)]
        return float((sum(ratios) / max(1, len(ratios))) ** 0.5)

    @property
    def values(self) -> dict[str, float]:
        """Every metric by its name; empty if there are none."""
        if self.known is not None:
            return self.known
        return {} if self.scores is None else self.scores.values()

    def finished(self) -> AnswerSums:
        """The same figures, without the metrics themselves: they can be sent to another process."""
        return AnswerSums(None, self.differences, self.references, self.values)


def real(outputs: Any) -> list[Tensor]:
    """The tensors of real numbers among the outputs of a network."""
    return [value for value in tensors(outputs) if value.is_floating_point()]
