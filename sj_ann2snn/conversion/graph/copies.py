"""Copies of a traced network that passes may edit."""

from __future__ import annotations

from torch import fx

__all__ = ["copied_graph"]


def copied_graph(module: fx.GraphModule) -> tuple[fx.GraphModule, dict[fx.Node, fx.Node]]:
    """A copy of `module` with its own graph, and the copy of every node; parameters and layers are shared.

    >>> import torch
    >>> module = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()))
    >>> copy, nodes = copied_graph(module)
    >>> [nodes[node].name for node in module.graph.nodes] == [node.name for node in copy.graph.nodes]
    True
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    return fx.GraphModule(module, graph, type(module).__name__), copies
