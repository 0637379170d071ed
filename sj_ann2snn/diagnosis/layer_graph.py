"""The network as a graph of its inputs, the layers of the diagnosis and its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import fx

from .network import SpikingNetwork
from .observed import GraphNode

__all__ = ["layer_graph"]


def layer_graph(network: SpikingNetwork) -> tuple[GraphNode, ...]:
    """The nodes in order of execution; parts of the network that no input reaches have no source."""
    return tuple(_nodes(network))


def _nodes(network: SpikingNetwork) -> Iterator[GraphNode]:
    names = {layer.node: layer.name for layer in network.layers}
    taken = set(names.values())
    ends: dict[fx.Node, str] = dict(names)
    for node in network.snn.graph.nodes:
        if node.op == "placeholder" and node.users:
            ends[node] = _unlike(str(node.target), taken)
            yield GraphNode(ends[node], "input")
        elif node in names:
            yield GraphNode(names[node], "layer", *_between(node.all_input_nodes, ends, network))
        elif node.op == "output":
            for name, value in _outputs(node.args[0]):
                found: list[fx.Node] = []
                fx.map_arg(value, found.append)
                if found:
                    yield GraphNode(_unlike(name, taken), "output", *_between(found, ends, network))


def _between(
    nearest: list[fx.Node], ends: Mapping[fx.Node, str], network: SpikingNetwork
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The nearest ends in front of some nodes, and the layers with weights on the way, both in order of execution."""
    seen: set[fx.Node] = set()
    waiting = list(nearest)
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += [] if node in ends else node.all_input_nodes
    ordered = [node for node in network.snn.graph.nodes if node in seen]
    sources = dict.fromkeys(ends[node] for node in ordered if node in ends)
    weighted = dict.fromkeys(
        str(node.target)
        for node in ordered
        if node not in ends and node.op == "call_module" and _has_weight(network, str(node.target))
    )
    return tuple(sources), tuple(weighted)


def _has_weight(network: SpikingNetwork, target: str) -> bool:
    return any(parameter.dim() > 1 for parameter in network.modules[target].parameters())


def _outputs(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(name), one) for name, one in value.items())
    elif isinstance(value, (tuple, list)) and len(value) > 1:
        yield from ((f"output {index}", one) for index, one in enumerate(value))
    else:
        yield "output", value


def _unlike(name: str, taken: set[str]) -> str:
    """`name`, or with a sign behind it if a layer is called so; it is then taken."""
    while name in taken:
        name += "′"
    taken.add(name)
    return name
