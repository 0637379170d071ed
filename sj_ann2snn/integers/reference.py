"""The reference: an integer network in NumPy, one step after the other, in plain integers.

It shares nothing with the simulator, nor with torch's kernels. Whoever builds hardware reads this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .operations import Gather, Input, Neuron, Operation, Pool, Product, Sum, Weighted

__all__ = ["Reference"]

Array = Any  # of integers: numpy.ndarray


class Reference:
    """The state of an integer network for one sample.

    Args:
        operations: Of the network, in order.
        inputs: Its inputs, one sample each: numbers in the ANN's units.
    """

    def __init__(self, operations: Sequence[Operation], inputs: Sequence[Array]) -> None:
        self.operations = operations
        rounded = (one for one in operations if isinstance(one, Input))
        self.given = [self.round(one, x) for one, x in zip(rounded, inputs, strict=True)]
        self.memory: dict[int, Array] = {}

    @staticmethod
    def round(one: Input, x: Array) -> Array:
        """The input as integers."""
        return np.clip(np.rint(x / x.dtype.type(one.scale)), one.low, one.high).astype(np.int64).ravel()

    def step(self) -> list[Array]:
        """The results of all operations in the next step, each flat."""
        values: list[Array] = []
        given = iter(self.given)
        for number, one in enumerate(self.operations):
            read = [values[source] for source in one.sources]
            values.append(next(given) if isinstance(one, Input) else self.compute(number, one, read))
        return values

    def compute(self, number: int, one: Operation, read: list[Array]) -> Array:
        """The result of an operation."""
        if isinstance(one, Weighted):
            channels = one.weight.shape[1] * one.groups
            seen = _windows(read[0].reshape(channels, -1), one.windows, 0)
            by_group = seen.reshape(one.groups, -1, *seen.shape[1:])
            weight = one.weight.reshape(one.groups, -1, *one.weight.shape[1:])
            sums = np.einsum("goiw,gipw->gop", weight, by_group, optimize=True).reshape(len(one.weight), -1)
            return ((sums << one.shift[:, None]) + one.bias[:, None]).ravel()
        if isinstance(one, Pool):
            return self.pool(number, one, read[0].reshape(one.channels, -1))
        if isinstance(one, Product):
            return read[0] * one.factor + one.bias
        if isinstance(one, Sum):
            return sum((sign * x for sign, x in zip(one.signs, read, strict=True)), np.zeros_like(read[0]))
        if isinstance(one, Gather):
            joined = np.append(np.concatenate(read), 0)
            return joined[one.index]  # the last element, which -1 selects, is a zero
        if isinstance(one, Neuron):
            return self.fire(number, one, read[0])
        return read[0]  # a result

    def pool(self, number: int, one: Pool, x: Array) -> Array:
        """Sums or maxima over windows."""
        if one.reduce == "sum":
            return _windows(x, one.windows, 0).sum(-1).ravel()
        outside = np.iinfo(np.int64).min  # never the largest, whatever the sign of the others
        if one.reduce == "largest":
            return _windows(x, one.windows, outside).max(-1).ravel()
        total = self.memory.get(number, np.zeros_like(x)) + x
        before = _windows(total - x, one.windows, outside).max(-1)
        self.memory[number] = total
        return (_windows(total, one.windows, outside).max(-1) - before).ravel()

    def fire(self, number: int, one: Neuron, x: Array) -> Array:
        """The spikes of a layer, 0 or 1."""
        low, high = -(1 << (one.bits - 1)), (1 << (one.bits - 1)) - 1
        v = np.clip(self.memory.get(number, one.potential) + x, low, high)
        spikes = (v >= one.threshold).astype(np.int64)
        self.memory[number] = v - spikes * one.threshold
        return spikes


def _windows(x: Array, windows: Array, outside: int) -> Array:
    """Elements of ``[channels, positions]`` as ``[channels, results, window]``."""
    padded = np.concatenate([x, np.full((len(x), 1), outside, dtype=np.int64)], axis=1)
    return padded[:, windows]
