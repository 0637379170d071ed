"""How wide sums and potentials become, from the weights themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .operations import Gather, Input, Neuron, Operation, Pool, Product, Sum, Weighted

__all__ = ["LayerWidths", "signed_bits", "widths_of"]

Array = np.ndarray[Any, Any]


def signed_bits(low: int, high: int) -> int:
    """Bits of the narrowest two's complement that holds both.

    >>> signed_bits(-128, 127), signed_bits(0, 128), signed_bits(0, 0)
    (8, 9, 1)
    """
    return max((~low if low < 0 else low).bit_length(), high.bit_length() if high >= 0 else (~high).bit_length()) + 1


@dataclass(frozen=True)
class LayerWidths:
    """What a layer of an integer network needs.

    Attributes:
        name: Qualified name of the layer.
        kind: "weighted", "pool", "product", "sum" or "neuron".
        weight_bits: Of its weights or factors, before the shift; None if it has none.
        threshold: Smallest and largest of a neuron.
        low: Smallest value that the sum (of a neuron: the potential before it fires) may take.
        high: Largest.
        bits: Of these values in two's complement.
        width: For a neuron, the bits at which its potential saturates.
    """

    name: str
    kind: str
    weight_bits: int | None
    threshold: tuple[int, int] | None
    low: int
    high: int
    bits: int
    width: int | None = None


def widths_of(operations: Sequence[Operation], steps: int) -> tuple[LayerWidths, ...]:
    """The widths of all layers that add something up, whatever the input is.

    A sum lies between that of its negative and that of its positive terms. A potential grows by at most the largest
    sum in a step, less the threshold from the second step on; it falls by at most the smallest sum.

    Args:
        operations: Of the network.
        steps: Number of time steps.
    """
    ranges: list[tuple[Array, Array]] = []
    found = []
    for one in operations:
        low, high = _range(one, [ranges[source] for source in one.sources])
        if isinstance(one, Neuron):
            found.append(_neuron(one, low, high, steps))
            low, high = np.zeros(one.size, dtype=np.int64), np.ones(one.size, dtype=np.int64)
        elif isinstance(one, (Weighted, Pool, Product, Sum)):
            least, most = int(low.min()), int(high.max())
            weights = _weights(one)
            found.append(LayerWidths(one.name, one.kind, weights, None, least, most, signed_bits(least, most)))
        ranges.append((low, high))
    return tuple(found)


def _weights(one: Operation) -> int | None:
    values = one.weight if isinstance(one, Weighted) else one.factor if isinstance(one, Product) else None
    return None if values is None else signed_bits(int(values.min()), int(values.max()))


def _neuron(one: Neuron, low: Array, high: Array, steps: int) -> LayerWidths:
    """The potential after the current of a step has been added, before the neuron fires."""
    threshold, start = one.threshold, one.potential
    most = np.maximum(start, threshold - 1) + np.maximum(high, 0)
    most = most + (steps - 1) * np.maximum(high - threshold, 0)
    least = np.minimum(start, 0) + steps * np.minimum(low, 0)
    limits = (int(threshold.min()), int(threshold.max()))
    ends = int(least.min()), int(most.max())
    return LayerWidths(one.name, one.kind, None, limits, *ends, signed_bits(*ends), one.bits)


def _range(one: Operation, read: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """The smallest and the largest value of every element."""
    if isinstance(one, Input):
        return np.full(one.size, one.low), np.full(one.size, one.high)
    if isinstance(one, Weighted):
        return _weighted(one, int(min(0, read[0][0].min())), int(max(0, read[0][1].max())))
    if isinstance(one, Product):
        ends = [read[0][end] * one.factor + one.bias for end in (0, 1)]
        return np.minimum(*ends), np.maximum(*ends)
    if isinstance(one, Sum):
        pairs = [(low, high) if sign > 0 else (-high, -low) for (low, high), sign in zip(read, one.signs, strict=True)]
        return sum(low for low, _ in pairs), sum(high for _, high in pairs)  # type: ignore[return-value]
    if isinstance(one, Gather):
        low, high = (np.append(np.concatenate([pair[end] for pair in read]), 0)[one.index] for end in (0, 1))
        return low, high
    if isinstance(one, Pool):
        times = one.windows.shape[1] if one.reduce == "sum" else 1
        least, most = (np.full(one.size, end) for end in (read[0][0].min() * times, read[0][1].max() * times))
        return (np.minimum(least, 0), np.maximum(most, 0)) if one.reduce == "sum" else (least, most)
    return read[0]


def _weighted(one: Weighted, low: int, high: int) -> tuple[Array, Array]:
    """The range of sums of inputs from `low` to `high`, which may also be zero, at the border."""
    rows = one.weight.reshape(len(one.weight), -1)
    above, below = np.maximum(rows, 0).sum(1), np.minimum(rows, 0).sum(1)
    least, most = (above * low + below * high << one.shift), (above * high + below * low << one.shift)
    positions = one.size // len(rows)
    return np.repeat(least + one.bias, positions), np.repeat(most + one.bias, positions)
