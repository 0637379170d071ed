"""Follows the sizes that a graph computes from the shapes of its values."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from .constants import compute
from .model import Graph, Node, Sizes, named_shape

__all__ = ["follow_sizes"]

_MOVING = frozenset({
    "Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators that pass sizes on as they are."""

_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": lambda one, other: int(one / other),
    "Max": max,
    "Min": min,
}

_NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}
"""The second operand that leaves the first as it is."""

_FIRST_CODE = 1 << 40
"""Above all sizes that occur."""


def follow_sizes(graph: Graph) -> dict[str, Sizes]:
    """What is known beforehand of the sizes that a graph computes from shapes, by the names of the values.

    A size that depends on the inputs is a string: the name that the file gives it, or the value and the dimension of
    which it is the size. Equal strings are equal sizes. What turns out to be known becomes a constant of the graph.

    Args:
        graph: Its `constants` are extended.
    """
    found: dict[str, Sizes] = {}
    for node in graph.nodes:
        sizes = _made(graph, node, found)
        if sizes is None:
            continue
        for name, value in sizes.items():
            if all(isinstance(one, int) for one in value.flat):
                graph.constants[name] = value.astype(np.int64)
            else:
                found[name] = value
    return found


def _made(graph: Graph, node: Node, found: dict[str, Sizes]) -> dict[str, Sizes] | None:
    if node.domain or len(node.outputs) == 0:
        return None
    if node.operator == "Shape":
        return _shape(graph, node)
    if not any(name in found for name in node.inputs):
        return None
    given = {name: found.get(name, graph.constants.get(name)) for name in node.inputs if name}
    if any(value is None for value in given.values()):
        return None
    if node.operator in _ARITHMETIC and len(node.inputs) == 2:
        return _calculated(node, [given[name] for name in node.inputs])
    if node.operator == "Cast" and node.attributes.get("to") not in (6, 7):
        return None  # arithmetic with fractions
    if node.operator != "Concat" and any(name in found for name in node.inputs[1:]):
        return None  # unknown sizes as an index or a target
    return _moved(graph, node, given, found) if node.operator in _MOVING else None


def _shape(graph: Graph, node: Node) -> dict[str, Sizes] | None:
    value = node.inputs[0]
    shape = graph.shapes.get(value)
    if shape is None:
        return None
    named = list(named_shape(value, shape))
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return {node.outputs[0]: _array(named[start:end])}


def _calculated(node: Node, operands: list[Any]) -> dict[str, Sizes]:
    first, second = np.broadcast_arrays(*(np.asarray(value, object) for value in operands))
    result = np.empty(first.shape, object)
    for index in np.ndindex(first.shape):
        one, other = first[index], second[index]
        if not isinstance(one, str) and not isinstance(other, str):
            result[index] = _ARITHMETIC[node.operator](int(one), int(other))
        elif not isinstance(other, str) and other == _NEUTRAL.get(node.operator):
            result[index] = one
        else:
            result[index] = f"{list(index)} of {node.outputs[0]}"
    return {node.outputs[0]: result}


def _moved(graph: Graph, node: Node, given: dict[str, Any], found: dict[str, Sizes]) -> dict[str, Sizes] | None:
    """What an operator makes of numbers in place of the unknown sizes."""
    names = sorted({one for name in given if name in found for one in found[name].flat if isinstance(one, str)})
    codes: dict[Any, int] = {name: _FIRST_CODE + index for index, name in enumerate(names)}
    wide = Node(node.name, node.operator, node.domain, node.inputs, node.outputs, node.attributes, node.proto)
    if node.operator == "Cast":
        wide.operator = "Identity"  # codes need 64 bits
    coded = {
        name: np.array([codes.get(one, one) for one in value.flat], np.int64).reshape(value.shape)
        if name in found
        else value
        for name, value in given.items()
    }
    try:
        made = compute(graph, wide, coded)
    except Exception:
        return None  # whoever reads the nodes says what is wrong with it
    back = {code: name for name, code in codes.items()}
    return {
        name: _array([back.get(int(one), int(one)) for one in value.flat]).reshape(value.shape)
        for name, value in made.items()
    }


def _array(values: list[Any]) -> Sizes:
    array = np.empty(len(values), object)
    array[:] = values
    return array
