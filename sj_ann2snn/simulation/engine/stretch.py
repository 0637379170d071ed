"""The values of a network's nodes over a few steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, fx

from ...support.trees import leaves, map_leaves, map_tensors
from .packed.repeated import Repeated, starts_of_all
from .packed.values import Packed

__all__ = ["Stretch", "sizes"]


class Stretch:
    """The values of nodes over a group of steps.

    Args:
        steps: How many there are.
        constants: The values ``[N, ...]`` of the nodes that do not vary but depend on the input.
        otherwise: The value of a node that is in neither, such as a size, for so many steps.

    Attributes:
        values: Those of the varying nodes that are known: ``[T, N, ...]``, packed ones, or trees of them.
    """

    def __init__(
        self, steps: int, constants: Callable[[fx.Node], Any], otherwise: Callable[[fx.Node, int], Any]
    ) -> None:
        self.steps = steps
        self.values: dict[fx.Node, Any] = {}
        self._constants, self._otherwise = constants, otherwise

    def read(self, node: fx.Node) -> Any:
        """A node's value in numbers."""
        if node in self.values:
            return map_leaves(self.values[node], _in_numbers)
        return self._fixed(node, self.steps)

    def packed(self, node: fx.Node) -> Any:
        """A node's value as it is."""
        return self.values[node] if node in self.values else self.read(node)

    def sizes_of(self, node: fx.Node) -> Any:
        """The same, for those who read nothing but sizes."""
        return sizes(self.packed(node))

    def repeating(self, nodes: Iterable[fx.Node]) -> tuple[int, ...] | None:
        """The steps at which the values of any of the nodes, which vary, begin to be others; None unless they are
        `Repeated` and have some steps in common."""
        found = [_repeated(leaf) for node in nodes for leaf in leaves(self.values.get(node))]
        known = [one for one in found if one is not None]
        if not known or len(known) < len(found):
            return None
        starts = starts_of_all(known)
        return starts if len(starts) < self.steps else None

    def at(self, starts: tuple[int, ...]) -> Callable[[fx.Node], Any]:
        """Reads the values at these steps alone."""

        def read(node: fx.Node) -> Any:
            if node not in self.values:
                return self._fixed(node, len(starts))
            return map_leaves(self.values[node], lambda leaf: _known(leaf).at(starts))

        return read

    def again(self, result: Any, starts: tuple[int, ...]) -> Any:
        """What has been computed for these steps, as a value of all steps; None if it is no tree of tensors."""
        if not all(isinstance(leaf, Tensor) for leaf in leaves(result)):
            return None
        return map_tensors(result, lambda y: Repeated(y, starts, self.steps))

    def _fixed(self, node: fx.Node, steps: int) -> Any:
        constant = self._constants(node)
        if constant is None:
            return self._otherwise(node, steps)
        return map_tensors(constant, lambda x: x.expand(steps, *x.shape))


def sizes(value: Any) -> Any:
    """A value with tensors in the place of packed ones, of which nothing but the size is right."""
    return map_leaves(value, lambda leaf: leaf.stand_in() if isinstance(leaf, Packed) else leaf)


def _in_numbers(leaf: Any) -> Any:
    return leaf.unpacked() if isinstance(leaf, Packed) else leaf


def _repeated(leaf: Any) -> Repeated | None:
    found: Repeated | None = leaf.repeated() if isinstance(leaf, Packed) else None
    return found


def _known(leaf: Any) -> Repeated:
    found = _repeated(leaf)
    assert found is not None
    return found
