"""What a node is called with, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from .library import tensor
from .model import Graph, Node
from .operation import VARIES

__all__ = ["Call", "Made", "Varies"]

Made = nn.Module | None
"""The layer that a node becomes; None for nodes that the library reads."""


class Call:
    """What a node is called with."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph, self.node = graph, node
        self.count = len(node.inputs)

    def name(self, position: int) -> str:
        return self.node.inputs[position] if position < self.count else ""

    def constant(self, position: int) -> np.ndarray[Any, Any] | None:
        return self.graph.constants.get(self.name(position))

    def is_given(self, position: int) -> bool:
        return bool(self.name(position))

    def varies(self, position: int) -> bool:
        return self.is_given(position) and self.constant(position) is None

    def argument(self, position: int) -> Any:
        """An argument for `Operation`."""
        value = self.constant(position)
        return tensor(value) if value is not None else VARIES if self.is_given(position) else None

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.node.attributes.get(name, default)

    def ints(self, position: int, attribute: str) -> list[int] | None:
        """Integers that newer files have as an input and older ones as an attribute; None if absent.

        Raises:
            Varies: They are computed from the network's inputs.
        """
        if self.varies(position):
            raise Varies
        value = self.constant(position)
        found = self.attribute(attribute) if value is None else value.reshape(-1).tolist()
        return None if found is None else [int(one) for one in found]

    def axes(self, given: Sequence[int]) -> list[int]:
        """Dimensions of the first input, counted from the front.

        Raises:
            Varies: Some are counted from the end, and the number of dimensions is not known.
        """
        rank = self.graph.rank(self.name(0))
        if rank is None and any(axis < 0 for axis in given):
            raise Varies
        return [axis if axis >= 0 else axis + (rank or 0) for axis in given]

    def shape(self, position: int) -> tuple[int | str | None, ...] | None:
        return self.graph.shapes.get(self.name(position))


class Varies(Exception):  # noqa: N818 - leads to another way of reading the node
    """An argument that torch needs beforehand is computed when the network runs."""
