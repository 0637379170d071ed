"""The values of a network's nodes over a few steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ...support.trees import leaves, map_leaves, map_tensors
from .packed.repeated import Repeated, starts_of_all
from .packed.values import Packed

__all__ = ["Stretch", "UnknownSizeError", "sizes"]

Read = Callable[[fx.Node], Any]


class UnknownSizeError(Exception):
    """Nobody knows how large a value would be for fewer steps."""


class Stretch:
    """The values of nodes over a group of steps.

    Args:
        steps: How many there are.
        constants: The values ``[N, ...]`` of the nodes that do not vary but depend on the input.
        otherwise: The value of a node that is in neither, such as a size, for so many steps.
        call: Computes a varying node from others, which the function reads.

    Attributes:
        values: Those of the varying nodes that are known: ``[T, N, ...]``, packed ones, or trees of them.
    """

    def __init__(
        self,
        steps: int,
        constants: Callable[[fx.Node], Any],
        otherwise: Callable[[fx.Node, int], Any],
        call: Callable[[fx.Node, Read], Any],
    ) -> None:
        self.steps = steps
        self.values: dict[fx.Node, Any] = {}
        self._gone: dict[fx.Node, Any] = {}
        self._sized: dict[fx.Node, Callable[[int], Any]] = {}
        self._unknown: set[fx.Node] = set()
        self._constants, self._otherwise, self._call = constants, otherwise, call

    def forget(self, node: fx.Node) -> None:
        """Let go of a node's value, which nothing will read any more but for its size."""
        self._gone[node] = _each(self.values.pop(node), _Gone.of)

    def read(self, node: fx.Node) -> Any:
        """A node's value in numbers."""
        if node in self.values:
            return _each(self.values[node], _in_numbers)
        return self._fixed(node, self.steps)

    def packed(self, node: fx.Node) -> Any:
        """A node's value as it is."""
        return self.values[node] if node in self.values else self.read(node)

    def sizes_of(self, node: fx.Node) -> Any:
        """The same, for those who read nothing but sizes."""
        return sizes(self.packed(node))

    def repeating(self, nodes: Iterable[fx.Node]) -> tuple[int, ...] | None:
        """The steps at which the values of any of the nodes, which vary, begin to be others; None unless they are
        `Repeated`."""
        found = [
            _repeated(leaf)
            for node in nodes
            if node not in self._sized
            for leaf in _leaves(self.values.get(node))
            if isinstance(leaf, (Tensor, Packed))
        ]
        known = [one for one in found if one is not None]
        if not known or len(known) < len(found):
            return None
        return starts_of_all(known)

    def are_trees(self, nodes: Iterable[fx.Node]) -> bool:
        """True if the values of the nodes, which vary, are tuples or the like, of which a function takes a part."""
        return not any(_is_number(self.values.get(node)) for node in nodes)

    def tell_time(self, nodes: Iterable[fx.Node]) -> bool:
        """True if the value of any of the nodes, which vary, is more than sizes and what comes from them."""
        return any(node not in self._sized and _has_numbers(self.values.get(node)) for node in nodes)

    def note_sized(self, node: fx.Node, value: Any) -> None:
        """Note a value that has been computed from sizes, as coordinates are, if it is the same at every step."""
        if not _has_numbers(value):
            return
        try:
            of_one_step = self._call(node, lambda source: self._size(source, 1))
        except UnknownSizeError:
            of_one_step = None
        some, others = list(leaves(of_one_step)), list(leaves(value))
        repeats = [_repeats(one, other, self.steps) for one, other in zip(some, others, strict=False)]
        if of_one_step is None or len(some) != len(others) or None in repeats:
            self._unknown.add(node)
            return

        def for_steps(steps: int) -> Any:
            found = iter(repeats)
            return map_leaves(of_one_step, lambda leaf: _rows(leaf, steps) if next(found) else leaf)

        self._sized[node] = for_steps

    def at(self, starts: tuple[int, ...]) -> Read:
        """Reads the values at these steps alone, and sizes as if there were no others."""

        def read(node: fx.Node) -> Any:
            value = self.values.get(node)
            if value is None or node in self._sized or not _has_numbers(value):
                return self._size(node, len(starts))
            return _each(value, lambda leaf: _at(leaf, starts))

        return read

    def again(self, result: Any, starts: tuple[int, ...]) -> Any:
        """What has been computed for these steps, as a value of all steps; None if it is no tree of tensors."""
        if not all(isinstance(leaf, Tensor) for leaf in leaves(result)):
            return None
        return map_tensors(result, lambda y: Repeated(y, starts, self.steps))

    def _size(self, node: fx.Node, steps: int) -> Any:
        """A node's value for so many steps, of which nothing but the size is right, unless it comes from sizes."""
        if node in self._sized:
            return self._sized[node](steps)
        if node in self._unknown:
            raise UnknownSizeError
        value = self.values.get(node, self._gone.get(node))
        if value is None:
            return self._fixed(node, steps)
        if _has_numbers(value):
            return _each(value, lambda leaf: _like(leaf, steps))
        return self._call(node, lambda source: self._size(source, steps))

    def _fixed(self, node: fx.Node, steps: int) -> Any:
        constant = self._constants(node)
        if constant is None:
            return self._otherwise(node, steps)
        return map_tensors(constant, lambda x: x.expand(steps, *x.shape))


def sizes(value: Any) -> Any:
    """A value with tensors in the place of packed ones, of which nothing but the size is right."""
    return _each(value, lambda leaf: leaf.stand_in() if isinstance(leaf, Packed) else leaf)


def _rows(value: Tensor, times: int) -> Tensor:
    """A value's rows so many times."""
    return value.repeat(times, *(1 for _ in value.shape[1:]))


def _repeats(of_one_step: Any, value: Any, steps: int) -> bool | None:
    """True if a value has the rows of one step at each step, False if it does not depend on the steps, None
    otherwise."""
    if not isinstance(value, Tensor) or not isinstance(of_one_step, Tensor):
        return False if not _is_number(value) and value == of_one_step else None
    if torch.equal(value, of_one_step):
        return False
    return True if value.dim() and torch.equal(value, _rows(of_one_step, steps)) else None


def _leaves(value: Any) -> Iterable[Any]:
    return (value,) if _is_number(value) else leaves(value)


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value with all its leaves changed; most values are one leaf."""
    return change(value) if _is_number(value) else map_leaves(value, change)


def _like(leaf: Any, steps: int) -> Any:
    """A tensor of a value's size for so many steps, which takes no memory."""
    return torch.empty(()).expand(steps, *leaf.shape[1:]) if _is_number(leaf) else leaf


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, (Tensor, Packed, _Gone))


def _has_numbers(value: Any) -> bool:
    """True for a value that is more than sizes."""
    return _is_number(value) or any(map(_is_number, leaves(value)))


@dataclass(frozen=True)
class _Gone:
    """The shape of a value that has been let go of."""

    shape: tuple[int, ...]

    @staticmethod
    def of(leaf: Any) -> Any:
        return _Gone(tuple(leaf.shape)) if isinstance(leaf, (Tensor, Packed)) else leaf


def _in_numbers(leaf: Any) -> Any:
    return leaf.unpacked() if isinstance(leaf, Packed) else leaf


def _repeated(leaf: Any) -> Repeated | None:
    found: Repeated | None = leaf.repeated() if isinstance(leaf, Packed) else None
    return found


def _at(leaf: Any, starts: tuple[int, ...]) -> Any:
    found = _repeated(leaf)
    return leaf if found is None else found.at(starts)
