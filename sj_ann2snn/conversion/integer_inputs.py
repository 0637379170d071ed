"""The range of a network's inputs, and some of them, from the calibration data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import IntegerError
from ..support.batches import Signature, count_samples, move, to_full_precision
from ..support.trees import map_tensors
from .draft import Draft

__all__ = ["InputRange", "Samples", "samples_for"]

INPUT_BITS = 8
"""Width of an input."""

KEPT = 128
"""Samples to keep, by which biases are corrected."""


@dataclass(frozen=True)
class InputRange:
    """How an input is rounded to integers: without a sign if no value of the calibration data has one.

    Attributes:
        smallest: In the calibration data.
        largest: In the calibration data.
    """

    smallest: float
    largest: float

    @property
    def low(self) -> int:
        """The smallest integer."""
        return -self.high if self.smallest < 0 else 0

    @property
    def high(self) -> int:
        """The largest integer, and the largest magnitude."""
        return (1 << (INPUT_BITS - 1)) - 1 if self.smallest < 0 else (1 << INPUT_BITS) - 1

    @property
    def scale(self) -> float:
        """Value of one unit, a number in single precision."""
        most = max(abs(self.smallest), abs(self.largest)) or 1.0
        return float(torch.tensor(most / self.high, dtype=torch.float32))


@dataclass(frozen=True)
class Samples:
    """What the calibration data holds.

    Attributes:
        ranges: Of the inputs.
        kept: A few samples, one value per input.
    """

    ranges: tuple[InputRange, ...]
    kept: tuple[Any, ...]


def samples_for(draft: Draft, data: Iterable[Any], first: Any) -> Samples:
    """Look through the calibration data once more.

    Args:
        draft: Prepared.
        data: The batches.
        first: The first one, for a loader that yields its batches once.

    Raises:
        IntegerError: An input is not a tensor of real numbers.
    """
    signature = draft.signature
    lows: list[float] = []
    highs: list[float] = []
    kept: list[tuple[Any, ...]] = []
    count = 0
    for batch in _batches(data, first):
        inputs = _inputs(signature, batch, draft)
        lows, highs = (
            [pick(old, value) for old, value in zip(known or ends, ends, strict=True)]
            for known, ends, pick in (
                (lows, [float(x.min()) for x in inputs], min),
                (highs, [float(x.max()) for x in inputs], max),
            )
        )
        if count < KEPT:
            kept.append(tuple(x[: KEPT - count] for x in inputs))
            count += count_samples(inputs)
    joined = tuple(torch.cat([one[index] for one in kept]) for index in range(len(lows)))
    return Samples(tuple(map(InputRange, lows, highs)), joined)


def _batches(data: Iterable[Any], first: Any) -> Iterable[Any]:
    found = False
    for batch in data:
        found = True
        yield batch
    if not found:
        yield first


def _inputs(signature: Signature, batch: Any, draft: Draft) -> list[Tensor]:
    inputs = signature.inputs_of(batch)
    for name, value in zip(signature.names, inputs, strict=False):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = f"of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise IntegerError(
                f"The input {name!r} is {kind}; only tensors of real numbers can be rounded to integers "
                "(weights='int...').",
                ((name, "it is not a tensor of real numbers"),),
            )
    return [to_full_precision(map_tensors(move(value, draft.device), lambda x: x.detach())) for value in inputs]
