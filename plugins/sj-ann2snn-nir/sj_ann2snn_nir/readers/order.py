"""The order of the nodes of a graph, which nirtorch 2.6 gets wrong where values branch off."""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import Any

__all__ = ["in_order", "put_in_order"]


def in_order(graph: Any) -> list[str]:
    """The nodes of a graph, each behind those that it reads."""
    sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(sorted(graph.nodes), ()))
    for source, target in graph.edges:
        sorter.add(target, source)
    return list(sorter.static_order())


def put_in_order(model: Any, graph: Any) -> None:
    """Let the model of `nirtorch.load` run a node once all its inputs are there.

    `nirtorch.load` follows the first edge to the output before it takes the second one, so a sum would see one branch.
    """
    places = {name: place for place, name in enumerate(in_order(graph))}
    model.execution_order = sorted(model.execution_order, key=lambda node: places[node.name])
