"""Frees a graph from the number of samples that it was written for."""

from __future__ import annotations

import numpy as np

from .model import Graph

__all__ = ["free_batch"]


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
    if not stated or not isinstance(stated[0], int):
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
        name = f"{node.inputs[1]} of {node.name}"
        graph.constants[name] = np.concatenate([np.zeros(1, target.dtype), target[1:]])
        node.inputs[1] = name
    return count
