"""The operations of integer networks as plain data: arrays of integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .windows import Windows

__all__ = ["Gather", "Input", "Neuron", "Operation", "Pool", "Product", "Result", "Sum", "Weighted"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation on samples.

    Attributes:
        name: Qualified name of the layer.
        sources: The operations whose results it reads, by their number.
        shape: Shape of its result.
        varies: True if its result changes from step to step; others are the same at every step.
    """

    kind: ClassVar[str]
    name: str
    sources: tuple[int, ...]
    shape: tuple[int, ...]
    varies: bool

    @property
    def size(self) -> int:
        """Elements of its result."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Input(Operation):
    """The input, ``clamp(round(x / scale), low, high)``; halves go to the even neighbour."""

    kind: ClassVar[str] = "input"
    scale: float
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Weighted(Operation):
    """A linear layer or convolution: ``(sum of weight * input) << shift, plus bias``.

    Attributes:
        weight: ``[out, in / groups, window]``.
        bias: ``[out]``.
        shift: ``[out]``.
        windows: Which positions of the input each position of the result reads.
        groups: Of channels.
    """

    kind: ClassVar[str] = "weighted"
    weight: Array
    bias: Array
    shift: Array
    windows: Windows
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Pool(Operation):
    """A sum or maximum over windows of every channel.

    Attributes:
        windows: Which positions of a channel each result reads; those outside of the image count as nothing.
        channels: Number of channels.
        reduce: "sum", "largest" (of the inputs) or "growth" (of the largest sum over time).
    """

    kind: ClassVar[str] = "pool"
    windows: Windows
    channels: int
    reduce: str


@dataclass(frozen=True, eq=False)
class Product(Operation):
    """Every element times its factor, plus its bias; both are as large as a sample."""

    kind: ClassVar[str] = "product"
    factor: Array
    bias: Array


@dataclass(frozen=True, eq=False)
class Sum(Operation):
    """The sum of its sources, each times 1 or -1."""

    kind: ClassVar[str] = "sum"
    signs: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Gather(Operation):
    """Elements of its sources, flat and joined; -1 stands for a zero."""

    kind: ClassVar[str] = "gather"
    index: Array


@dataclass(frozen=True, eq=False)
class Neuron(Operation):
    """Integrate-and-fire: ``v = clamp(v + x)``, a spike where ``v >= threshold``, which is then subtracted.

    Attributes:
        threshold: As large as a sample.
        potential: The same; the membrane potential after a reset.
        bits: Width of the potential.
    """

    kind: ClassVar[str] = "neuron"
    threshold: Array
    potential: Array
    bits: int


@dataclass(frozen=True, eq=False)
class Result(Operation):
    """An output of the network: integers, each of which is worth its `scale` in the ANN's units."""

    kind: ClassVar[str] = "result"
    scale: Array
