"""What keeps an integer network from being pure, and what to do about it.

A network is pure if only binary spikes pass between its layers and nothing but its neurons has a memory. Then it is
layers of synapses with integer weights and neurons, which is what a neuromorphic chip has. The input, which is the same
at every step, is a current of the first layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .operations import Gather, Neuron, Operation, Pool, Product, Result, Sum
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
    readers: list[list[int]] = [[] for _ in operations]
    for number, one in enumerate(operations):
        for source in one.sources:
            readers[source].append(number)

    def read_by(number: int) -> Iterator[Operation]:
        """What reads a value, behind whatever only moves its elements."""
        for reader in readers[number]:
            if isinstance(operations[reader], Gather):
                yield from read_by(reader)
            else:
                yield operations[reader]

    found = []
    for number, one in enumerate(operations):
        if not one.varies:
            continue
        if isinstance(one, Product) and not (_is_shift(one) or _is_answer(read_by(number))):
            width = signed_bits(int(one.factor.min()), int(one.factor.max()))
            found.append(
                Obstacle(
                    one.name,
                    f"a shortcut multiplies spikes by {int(np.abs(one.factor).max()):,} ({width} bits)",
                    "Take it as synapses of that width, one for each neuron; or put a 1x1 convolution there and train "
                    "the network with it.",
                )
            )
        if isinstance(one, Pool) and one.reduce == "growth":
            found.append(
                Obstacle(
                    one.name,
                    "a max pool counts the spikes of each of its inputs",
                    "Train with average pools or strided convolutions, or convert with maxpool='avg'.",
                )
            )
        if isinstance(one, Pool) and one.reduce == "largest":
            found.append(
                Obstacle(one.name, "a max pool compares currents", "Train with average pools or strided convolutions.")
            )
        if isinstance(one, Pool) and one.reduce == "sum" and not _only_charges(read_by(number)):
            found.append(
                Obstacle(
                    one.name,
                    f"an average pool passes sums of {one.windows.shape[1]} spikes on",
                    "Convert with avgpool_neuron=True, which puts a neuron behind it; or give the synapses of the next "
                    "layer to all spikes of a window.",
                )
            )
    return tuple(found)


def _is_shift(one: Product) -> bool:
    """True for factors that are powers of two or zero."""
    size = np.abs(one.factor)
    return bool(((size & (size - 1)) == 0).all())


def _is_answer(readers: Iterator[Operation]) -> bool:
    """True if a value is only returned: it is scaled outside of the network."""
    return all(isinstance(one, Result) for one in readers)


def _only_charges(readers: Iterator[Operation]) -> bool:
    """True if a value only becomes the current of neurons: its sum is then one over synapses of weight one."""
    return all(isinstance(one, (Neuron, Sum, Result)) for one in readers)
