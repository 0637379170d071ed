"""Gives every Reshape a fixed target that holds for any number of samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from .model import Graph, Node, Shape

__all__ = ["fix_targets", "free_batch"]


def fix_targets(graph: Graph) -> None:
    """Replace targets that a graph computes from the shapes of its values, as far as these are known beforehand.

    Args:
        graph: Changed in place.
    """
    for node in graph.nodes:
        if node.operator != "Reshape" or len(node.inputs) < 2 or node.inputs[1] in graph.constants:
            continue
        sizes = _target(graph.shapes.get(node.inputs[0]), graph.shapes.get(node.outputs[0]))
        if sizes is not None:
            node.attributes.pop("allowzero", None)
            _set_target(graph, node, np.array(sizes))
    graph.keep_needed()


def _target(before: Shape | None, after: Shape | None) -> list[int] | None:
    """The target of a Reshape between these shapes; None if they leave it open."""
    if before is None or after is None or 0 in after:
        return None
    sizes = []
    for index, size in enumerate(after):
        if isinstance(size, int):
            sizes.append(size)
        else:
            sizes.append(0 if size is not None and before[index : index + 1] == (size,) else -1)
    return sizes if sizes.count(-1) < 2 else None


def _set_target(graph: Graph, node: Node, target: np.ndarray[Any, Any]) -> None:
    name = f"target of {node.name}, {node.outputs[0]}"
    graph.constants[name] = target
    node.inputs[1] = name


def free_batch(graph: Graph) -> int | None:
    """Let every Reshape keep the number of samples of its input, instead of the number that the file states.

    Files that were exported without a dynamic batch size state it in every Reshape.

    Args:
        graph: Changed in place.

    Returns:
        The number of samples that the file states; None if it leaves that open.
    """
    sizes = {graph.shapes.get(name, (None,))[:1] for name in graph.inputs}
    stated = next(iter(sizes)) if len(sizes) == 1 else ()
    if not stated or not isinstance(stated[0], int) or not stated[0]:
        return None
    count = stated[0]
    for node in graph.nodes:
        target = graph.constants.get(node.inputs[1]) if node.operator == "Reshape" and len(node.inputs) > 1 else None
        before = graph.shapes.get(node.inputs[0]) if target is not None else None
        if target is None or not target.size or not before or before[0] != count or target[0] != count:
            continue
        if node.attributes.get("allowzero") and (target == 0).any():
            continue
        node.attributes.pop("allowzero", None)
        _set_target(graph, node, np.concatenate([np.zeros(1, target.dtype), target[1:]]))
    return count
