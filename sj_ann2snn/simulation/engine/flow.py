"""Finds in a network's graph which values vary over time and which may be overwritten."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from ...compat import MemoryModule, is_plain_if
from ...layers import ChannelAffine, InitialPotential, InPlaceNeuron, Scaler, StepBias, Stepwise
from ...support.structures import is_built

__all__ = ["Flow", "ScaledSum"]

SUMS = (operator.add, torch.add)

OWN_MEMORY = (*SUMS, operator.sub, operator.mul, operator.truediv, torch.sub, torch.cat)
"""Functions whose result has its own memory and is never a view."""


@dataclass(frozen=True)
class ScaledSum:
    """A sum with one scaled operand, as where a residual branch joins: ``total + scale * addend``.

    Attributes:
        total: The operand that is not scaled, exclusive to the sum.
        addend: The operand that is scaled.
        scaled: The node that scales it; the sum is its only reader.
    """

    total: fx.Node
    addend: fx.Node
    scaled: fx.Node


@dataclass(frozen=True)
class Flow:
    """A network's graph, as the simulator sees it.

    Attributes:
        graph: Its nodes, in order of execution.
        modules: The modules that they call, by name.
        varying: The nodes whose value changes from step to step, because a module with memory comes before them.
        meeting: The nodes that do not vary but that a varying node reads, without parameters and buffers.
        exclusive: Varying nodes whose value has its own memory and a single reader, which may overwrite it.
        sums: The sums that are computed in place together with the scaling of an operand, by node.
        any_layout: True if no user-defined module relies on the memory layout of images.
        copyable: True if copies of the modules may run in their place, and tiles side by side: no module has hooks,
            and none is user-defined.
    """

    graph: fx.Graph
    modules: dict[str, nn.Module]
    varying: frozenset[fx.Node]
    meeting: tuple[fx.Node, ...]
    exclusive: frozenset[fx.Node]
    sums: dict[fx.Node, ScaledSum]
    any_layout: bool
    copyable: bool

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
        exclusive = _exclusive(varying, modules)
        any_layout = not any(_is_foreign(module) for module in modules.values())
        watched = _has_hooks(snn)
        return Flow(
            snn.graph,
            modules,
            varying,
            _meeting(varying),
            exclusive,
            {} if watched else _scaled_sums(snn.graph, modules, exclusive),
            any_layout,
            any_layout and not watched,
        )


def _has_memory_inside(module: nn.Module) -> bool:
    """True for a container of neurons, which manages step mode and memory itself."""
    return not isinstance(module, MemoryModule) and any(isinstance(one, MemoryModule) for one in module.modules())


def _varying(graph: fx.Graph, modules: dict[str, nn.Module]) -> frozenset[fx.Node]:
    varying: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "output" or is_built(node):
            continue
        stateful = node.op == "call_module" and isinstance(modules[str(node.target)], MemoryModule)
        if stateful or any(source in varying for source in node.all_input_nodes):
            varying.add(node)
    return frozenset(varying)


def _meeting(varying: frozenset[fx.Node]) -> tuple[fx.Node, ...]:
    sources = dict.fromkeys(source for node in varying for source in node.all_input_nodes)
    return tuple(source for source in sources if source not in varying and source.op != "get_attr")


def _exclusive(varying: frozenset[fx.Node], modules: dict[str, nn.Module]) -> frozenset[fx.Node]:
    def owns_memory(node: fx.Node) -> bool:
        """True for a result that is not a view and that nothing else may read."""
        module = modules[str(node.target)]
        if isinstance(module, InitialPotential):
            # From the second group of steps on it passes its input through, which may be a single step repeated.
            return all(is_exclusive(source) for source in node.all_input_nodes)
        return _makes_memory(module)

    def is_exclusive(node: fx.Node) -> bool:
        return node in varying and node.op == "call_module" and len(node.users) == 1 and owns_memory(node)

    return frozenset(filter(is_exclusive, varying))


def _makes_memory(module: nn.Module) -> bool:
    return (
        isinstance(module, (nn.Linear, _ConvNd, Scaler, ChannelAffine, InPlaceNeuron, StepBias))
        or is_plain_if(module)
        or (isinstance(module, Stepwise) and module.operation in OWN_MEMORY)
    )


def _scaled_sums(
    graph: fx.Graph, modules: dict[str, nn.Module], exclusive: frozenset[fx.Node]
) -> dict[fx.Node, ScaledSum]:
    def is_scaled(node: fx.Node) -> bool:
        return node in exclusive and isinstance(modules[str(node.target)], Scaler)

    found = {}
    for node in graph.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(module, Stepwise) or module.operation not in SUMS or node.kwargs or len(node.args) != 2:
            continue
        for total, scaled in (node.args, reversed(node.args)):
            if total is not scaled and total in exclusive and is_scaled(scaled):
                found[node] = ScaledSum(total, scaled.args[0], scaled)
                break
    return found


def _is_foreign(module: nn.Module) -> bool:
    """True for a user-defined module or function, which may rely on the memory layout (as ``x.view(...)`` does)."""
    operation = module.operation if isinstance(module, Stepwise) else None
    if isinstance(operation, nn.Module):
        return not type(operation).__module__.startswith("torch.nn.")
    home = getattr(operation, "__module__", None) or "torch"
    return home.partition(".")[0] not in ("torch", "_operator", "builtins")


def _has_hooks(snn: nn.Module) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in snn.modules())
