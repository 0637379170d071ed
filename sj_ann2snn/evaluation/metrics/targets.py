"""What the answers of a batch are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Targets"]


@dataclass(frozen=True)
class Targets:
    """The targets of one batch.

    Attributes:
        found: What the batch holds behind the inputs, a tuple or a dict; or the ANN's output.
        samples: Number of samples in the batch.
        of_ann: Whether `found` is the ANN's output.
        restore: Gives the ANN's output the classes that the ANN gives it.
        ragged: Whether outputs may have other rows than samples, and others after every step: the boxes of a detector.
    """

    found: Any
    samples: int
    of_ann: bool = False
    restore: Callable[[Any], Any] = lambda output: output
    ragged: bool = False
