"""What the nodes of a converted network yield for two samples, and which elements an operation only moves."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..layers import call_operation
from ..support.moves import Moves, moved_elements
from ..support.structures import is_built
from ..support.trees import leaves, map_tensors, tensors

__all__ = ["Moves", "Recording", "call_node", "recorded"]

SAMPLES = 2


def call_node(network: fx.GraphModule, node: fx.Node, read: Callable[[fx.Node], Any]) -> Any:
    """The result of a node, with `read` for the values that it reads."""
    args: Any = fx.map_arg(node.args, read)
    kwargs: Any = fx.map_arg(node.kwargs, read)
    if node.op == "get_attr":
        return operator.attrgetter(str(node.target))(network)
    if node.op == "call_module":
        return network.get_submodule(str(node.target))(*args, **kwargs)
    return call_operation(node.target, *args, **kwargs)


class Recording:
    """What every node yields for two samples.

    Args:
        network: The network, reset and in step mode "s".
        values: Its results, by node.
        carrying: The nodes with tensors that depend on the input's values.
    """

    def __init__(self, network: fx.GraphModule, values: dict[fx.Node, Any], carrying: set[fx.Node]) -> None:
        self.network, self.values, self.carrying = network, values, carrying

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Shape of a sample of a node's only result."""
        return tuple(self.values[node].shape[1:])

    def operands(self, node: fx.Node) -> list[fx.Node]:
        """The nodes that `node` reads and that depend on the input's values, as often as it reads them."""
        found = [leaf for leaf in leaves((node.args, node.kwargs)) if isinstance(leaf, fx.Node)]
        return [leaf for leaf in found if leaf in self.carrying]

    def moves(self, node: fx.Node) -> list[Moves] | None:
        """The moves of each result of an operation that only moves, copies or drops elements; None for any other.

        It is run on random numbers, which are all different: what comes out must be among them, or zero.
        """
        operands = list(dict.fromkeys(self.operands(node)))
        if any(not isinstance(self.values[one], Tensor) for one in operands):
            return None
        generator = torch.Generator().manual_seed(0)
        drawn = {  # of both signs and far from zero, so that activations and bounds show
            one: torch.randn(self.values[one].shape, generator=generator, dtype=torch.float64) * 1e9 for one in operands
        }
        if any(len(value) != SAMPLES for value in drawn.values()):
            return None
        try:
            result = call_node(self.network, node, lambda one: drawn.get(one, self.values.get(one)))
        except Exception:  # an operation that does not take these numbers is no such operation
            return None
        given = [torch.cat([drawn[one][index].flatten() for one in operands]).numpy() for index in range(SAMPLES)]
        found: list[Moves] = []
        for one in tensors(result):
            moved = moved_elements(one, given)
            if moved is None:
                return None
            found.append(moved)
        return found


@torch.no_grad()
def recorded(network: fx.GraphModule, inputs: Sequence[Any]) -> Recording:
    """Run `network` on two samples.

    Args:
        network: Reset and in step mode "s"; it is left as it was run, not reset.
        inputs: Two samples, one value per input.
    """
    values: dict[fx.Node, Any] = {}
    carrying: set[fx.Node] = set()
    given = iter(inputs)
    for node in network.graph.nodes:
        if node.op == "output" or is_built(node):
            continue
        if node.op == "placeholder":
            values[node] = next(given, node.args[0] if node.args else None)
        else:
            values[node] = call_node(network, node, values.__getitem__)
        from_input = node.op == "placeholder" or any(one in carrying for one in node.all_input_nodes)
        if from_input and tensors(values[node]):
            carrying.add(node)
    values = {node: map_tensors(value, lambda x: x.detach()) for node, value in values.items()}
    return Recording(network, values, carrying)
