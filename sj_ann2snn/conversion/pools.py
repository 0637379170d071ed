"""Carries out the replacements that change the ANN itself, before it is calibrated."""

from __future__ import annotations

from torch import fx

from ..contracts.replacements import Average, NeuronAfterPool
from .plan import COMMUTED, Plan

__all__ = ["APPROXIMATED", "substitute"]

APPROXIMATED = "ann2snn_approximated"
"""Key of a node's meta: what the node stands for, where it is another function than the ANN's."""


def substitute(module: fx.GraphModule, plan: Plan) -> bool:
    """Put other pools in place and move pools in front of neurons, as the plan says.

    Returns:
        True if the graph has changed, and with it what its nodes yield.
    """
    changed = False
    for node, decision in plan.decisions.items():
        replacement = decision.replacement
        if isinstance(replacement, Average) and replacement.make is not None:
            layer = replacement.make()
            if node.op == "call_module":
                module.set_submodule(str(node.target), layer)
            else:
                name = f"{decision.site.name}_average"
                module.add_submodule(name, layer)
                node.op, node.target = "call_module", name
            node.args, node.kwargs = (node.all_input_nodes[0],), {}
            if not replacement.exact:
                node.meta[APPROXIMATED] = decision.site.operation_name
            changed = True
        elif isinstance(replacement, NeuronAfterPool):
            _move_behind(module, node.all_input_nodes[0], node)
            changed = True
    if changed:
        module.graph.lint()
        module.recompile()
    return changed


def _move_behind(module: fx.GraphModule, activation: fx.Node, pool: fx.Node) -> None:
    current = activation.all_input_nodes[0]
    pool.replace_all_uses_with(activation)
    pool.replace_input_with(activation, current)
    activation.replace_input_with(current, pool)
    pool.append(activation)
    pool.meta[COMMUTED] = True
