"""What keeps an integer network from being pure, and what to do about it.

A network is pure if only binary spikes pass between its layers and nothing but its neurons has a memory. Then it is
layers of synapses with integer weights and neurons, which is what a neuromorphic chip has. The input, which is the same
at every step, is a current of the first layer.

A shortcut is a synapse for each neuron if it multiplies spikes by integers no wider than the weights, times a power of
two, as the sums of the layers are shifted. What is only added up to the answer need not be so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .operations import Gather, Neuron, Operation, Pool, Product, Result, Sum, Weighted
from .widths import signed_bits

__all__ = ["Obstacle", "obstacles_in"]


@dataclass(frozen=True)
class Obstacle:
    """Something that keeps a network from being pure.

    >>> print(Obstacle("pool", "it sums over windows of 4 spikes", "Use strided convolutions."))
    pool: it sums over windows of 4 spikes. Use strided convolutions.

    Attributes:
        name: Qualified name of the layer.
        why: What it does.
        remedy: What makes it pure.
    """

    name: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}. {self.remedy}"


def obstacles_in(operations: Sequence[Operation]) -> tuple[Obstacle, ...]:
    """Everything that keeps the network of these operations from being pure, in order."""
    return tuple(_Search(operations).run())


class _Search:
    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = operations
        self.readers: list[list[int]] = [[] for _ in operations]
        for number, one in enumerate(operations):
            for source in one.sources:
                self.readers[source].append(number)
        widths = [signed_bits(int(one.weight.min()), int(one.weight.max())) for one in _weighted(operations)]
        self.width = max(widths, default=2)
        self.most: list[int | None] = []
        """How many spikes a value counts at most; None for sums that are no counts."""
        for one in operations:
            self.most.append(self._counts(one))

    def run(self) -> Iterator[Obstacle]:
        for number, one in enumerate(self.operations):
            if one.varies:
                found = self._obstacle(number, one)
                if found is not None:
                    yield Obstacle(one.name, *found)

    def _counts(self, one: Operation) -> int | None:
        if isinstance(one, Neuron):
            return 1
        counts = [count for source in one.sources if (count := self.most[source]) is not None]
        if not counts or len(counts) < len(one.sources):
            return None
        if isinstance(one, Gather):
            return max(counts)
        if isinstance(one, Sum):
            return sum(counts) if min(one.signs) > 0 else None
        if isinstance(one, Pool):
            return counts[0] * (one.windows.shape[1] if one.reduce == "sum" else 1)
        return None

    def _obstacle(self, number: int, one: Operation) -> tuple[str, str] | None:
        """What is not pure about an operation, and the remedy."""
        if isinstance(one, Product):
            return self._product(number, one)
        if isinstance(one, Pool):
            return self._pool(number, one)
        if isinstance(one, Sum) and self.most[number] is not None and not self._charges(number):
            return (
                f"a sum passes counts of up to {self.most[number]} spikes on",
                "Put an activation behind it; or give the synapses of the next layer to each of its branches.",
            )
        if isinstance(one, Weighted) and self.most[one.sources[0]] is None:
            return "it reads sums, not spikes", "Put an activation in front of it, or make one layer of both."
        return None

    def _product(self, number: int, one: Product) -> tuple[str, str] | None:
        if self._is_narrow(one) or self._is_answer(number):
            return None
        width = signed_bits(int(one.factor.min()), int(one.factor.max()))
        by = f"by {int(np.abs(one.factor).max()):,} ({width} bits)"
        if self.most[one.sources[0]] is None:
            return (
                f"it multiplies sums {by}",
                "Put an activation in front of it. Where two activations read the same sums, convert with "
                "shared_scales=True.",
            )
        return (
            f"a shortcut multiplies spikes {by}",
            "Convert with shared_scales=True, so that both branches have one scale; or take it as synapses of that "
            "width, one for each neuron.",
        )

    def _pool(self, number: int, one: Pool) -> tuple[str, str] | None:
        if one.reduce == "growth":
            return (
                "a max pool counts the spikes of each of its inputs",
                "Train with average pools or strided convolutions, or convert with maxpool='avg'.",
            )
        if one.reduce == "largest":
            return "a max pool compares currents", "Train with average pools or strided convolutions."
        if self._charges(number):
            return None
        return (
            f"an average pool passes sums of {one.windows.shape[1]} spikes on",
            "Convert with avgpool_neuron=True, which puts a neuron behind it; or give the synapses of the next layer "
            "to all spikes of a window.",
        )

    def _is_narrow(self, one: Product) -> bool:
        """True for factors that are no wider than weights, but for a shift: a synapse for each neuron."""
        factor = one.factor[one.factor != 0]
        odd = factor // (factor & -factor)
        return not len(odd) or signed_bits(int(odd.min()), int(odd.max())) <= max(2, self.width)

    def _read_by(self, number: int) -> Iterator[int]:
        """What reads a value, behind whatever only moves its elements."""
        for reader in self.readers[number]:
            if isinstance(self.operations[reader], Gather):
                yield from self._read_by(reader)
            else:
                yield reader

    def _is_answer(self, number: int) -> bool:
        """True for a value that is only added up to the answer: that is scaled outside of the network."""
        return all(
            isinstance(self.operations[reader], Result)
            or (isinstance(self.operations[reader], (Sum, Product, Pool)) and self._is_answer(reader))
            for reader in self._read_by(number)
        )

    def _charges(self, number: int) -> bool:
        """True for a sum that only becomes the current of neurons, or an answer: it is then one over their synapses."""
        return all(
            isinstance(self.operations[reader], (Neuron, Result))
            or (isinstance(self.operations[reader], (Sum, Product)) and self._charges(reader))
            for reader in self._read_by(number)
        )


def _weighted(operations: Sequence[Operation]) -> Iterator[Weighted]:
    return (one for one in operations if isinstance(one, Weighted))
