"""Reads off a network's graph what varies over time and what may be overwritten."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from ..compat import MemoryModule
from ..layers import ChannelAffine, Scaler, Stepwise

__all__ = ["Flow"]

OWN_MEMORY = (operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.cat)
"""Functions whose result is memory of its own, never a view."""


@dataclass(frozen=True)
class Flow:
    """A network's graph, as the simulator sees it.

    Attributes:
        graph: Its nodes, in order of execution.
        modules: The modules that they call, by name.
        varying: The nodes whose value changes from step to step: those behind a module with memory.
        exclusive: Varying nodes whose value is memory of its own with a single reader, which may overwrite it.
        any_layout: No module of a user's own relies on how images lie in memory.
        divisible: Tiles may run side by side: nobody watches the modules or calls one both for what varies and for
            what does not.
    """

    graph: fx.Graph
    modules: dict[str, nn.Module]
    varying: frozenset[fx.Node]
    exclusive: frozenset[fx.Node]
    any_layout: bool
    divisible: bool

    @staticmethod
    def of(snn: nn.Module) -> Flow | None:
        """The flow of a converted network; None for one that can only be run step by step."""
        if not isinstance(snn, fx.GraphModule):
            return None
        modules = {
            str(node.target): snn.get_submodule(str(node.target))
            for node in snn.graph.nodes
            if node.op == "call_module"
        }
        if any(_has_memory_inside(module) for module in modules.values()):
            return None
        varying = _varying(snn.graph, modules)
        if not varying:
            return None
        any_layout = not any(_is_foreign(module) for module in modules.values())
        return Flow(
            snn.graph,
            modules,
            varying,
            varying & _exclusive(snn.graph, modules),
            any_layout,
            any_layout and not _has_hooks(snn) and not _used_both_ways(snn.graph, varying),
        )


def _has_memory_inside(module: nn.Module) -> bool:
    """True for a container of neurons, whose step mode and memory are its own affair."""
    return not isinstance(module, MemoryModule) and any(isinstance(one, MemoryModule) for one in module.modules())


def _varying(graph: fx.Graph, modules: dict[str, nn.Module]) -> frozenset[fx.Node]:
    varying: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "output":
            continue
        stateful = node.op == "call_module" and isinstance(modules[str(node.target)], MemoryModule)
        if stateful or any(source in varying for source in node.all_input_nodes):
            varying.add(node)
    return frozenset(varying)


def _exclusive(graph: fx.Graph, modules: dict[str, nn.Module]) -> frozenset[fx.Node]:
    found = set()
    for node in graph.nodes:
        if node.op != "call_module" or len(node.users) != 1:
            continue
        module = modules[str(node.target)]
        if isinstance(module, (nn.Linear, _ConvNd, Scaler, ChannelAffine)) or (
            isinstance(module, Stepwise) and module.operation in OWN_MEMORY
        ):
            found.add(node)
    return frozenset(found)


def _is_foreign(module: nn.Module) -> bool:
    """True for a user's own module, which may rely on the memory layout (``x.view(...)`` does)."""
    operation = module.operation if isinstance(module, Stepwise) else None
    return isinstance(operation, nn.Module) and not type(operation).__module__.startswith("torch.nn.")


def _has_hooks(snn: nn.Module) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in snn.modules())


def _used_both_ways(graph: fx.Graph, varying: frozenset[fx.Node]) -> bool:
    calls = [node for node in graph.nodes if node.op == "call_module"]
    return bool({n.target for n in calls if n in varying} & {n.target for n in calls if n not in varying})
