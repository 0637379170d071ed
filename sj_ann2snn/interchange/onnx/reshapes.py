"""Gives every Reshape a fixed target that holds for any number of samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from .model import Graph, Node, Shape, Sizes, named_shape

__all__ = ["fix_targets", "free_batch"]


def fix_targets(graph: Graph) -> bool:
    """Replace sizes that a graph computes from the shapes of its values, as far as these are known beforehand.

    Args:
        graph: Its nodes Reshape and Expand are changed.

    Returns:
        Whether there were any.
    """
    fixed = False
    for node in graph.nodes:
        if node.operator not in ("Reshape", "Expand") or len(node.inputs) < 2 or node.inputs[1] in graph.constants:
            continue
        before, target = graph.shapes.get(node.inputs[0]), graph.sizes.get(node.inputs[1])
        if node.operator == "Expand":
            sizes = _expansion(node.inputs[0], before, target)
        else:
            after = _full(graph.shapes.get(node.outputs[0])) if target is None else tuple(target)
            sizes = _target(node.inputs[0], before, after)
        if sizes is not None and not (node.attributes.get("allowzero") and 0 in sizes):
            node.attributes.pop("allowzero", None)
            _set_target(graph, node, np.array(sizes))
            fixed = True
    graph.keep_needed()
    return fixed


def _expansion(value: str, before: Shape | None, target: Sizes | None) -> list[int] | None:
    """The target of an Expand, with a one for every size that the input has already; None if it leaves one open."""
    if before is None or target is None:
        return None
    named = (None,) * (len(target) - len(before)) + named_shape(value, before)
    sizes = [1 if size == has else size for size, has in zip(target, named[-len(target) :], strict=True)]
    return sizes if all(isinstance(size, int) for size in sizes) else None


def _full(shape: Shape | None) -> Shape | None:
    """The shape, unless it holds nothing: a target of zero means something else."""
    return None if shape is None or 0 in shape else shape


def _target(value: str, before: Shape | None, after: Shape | None) -> list[int] | None:
    """The target of a Reshape from one shape to another, or to a target; None if they leave it open."""
    if before is None or after is None:
        return None
    named = named_shape(value, before)
    sizes = []
    for index, size in enumerate(after):
        if isinstance(size, int):
            sizes.append(size)
        else:
            sizes.append(0 if size is not None and named[index : index + 1] == (size,) else -1)
    return sizes if sizes.count(-1) < 2 else None


def _set_target(graph: Graph, node: Node, target: np.ndarray[Any, Any]) -> None:
    name = f"target of {node.name}, {node.outputs[0]}"
    graph.constants[name] = target
    node.inputs[1] = name


def fix_resizes(graph: Graph) -> None:
    """Replace sizes of Resize in the same way; no shapes may be inferred afterwards.

    Args:
        graph: Changed in place.
    """
    for node in graph.nodes:
        target = graph.sizes.get(node.inputs[3]) if node.operator == "Resize" and len(node.inputs) > 3 else None
        before = graph.shapes.get(node.inputs[0])
        if target is None or before is None or node.attributes.get("axes") is not None or len(target) != len(before):
            continue
        # Samples and channels stay as they are.
        named = named_shape(node.inputs[0], before)
        if tuple(target[:2]) == named[:2] and all(isinstance(size, int) for size in target[2:]):
            name = f"sizes of {node.name}, {node.outputs[0]}"
            graph.constants[name] = np.array([0, 0, *target[2:]])
            node.inputs[3] = name
    graph.keep_needed()


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
