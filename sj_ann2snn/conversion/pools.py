"""Exchanges pools in the ANN before it is calibrated, where mappers ask for another way of pooling."""

from __future__ import annotations

from torch import fx, nn

from ..contracts.replacements import Average, NeuronAfterPool
from ..support.blame import blame
from ..support.names import NAME, usable_target
from .draft import APPROXIMATED, COMMUTED, Decision, Draft, Plan
from .graph.copies import copied_graph

__all__ = ["exchange_pools", "exchanged_pools"]


def exchanged_pools(plan: Plan) -> dict[fx.Node, Decision]:
    """The pools that `exchange_pools` replaces or moves."""
    return {
        node: one
        for node, one in plan.decisions.items()
        if isinstance(one.replacement, NeuronAfterPool)
        or (isinstance(one.replacement, Average) and one.replacement.make is not None)
    }


def exchange_pools(draft: Draft) -> Draft:
    """Replace pools, and move pools in front of neurons, as the plan says.

    Returns:
        The draft itself if the plan exchanges nothing; otherwise an unplanned draft with another module.
    """
    pools = exchanged_pools(draft.plan)
    if not pools:
        return draft
    module, copies = copied_graph(draft.module)
    for node, decision in pools.items():
        replacement = decision.replacement
        if not isinstance(replacement, Average):
            continue
        assert replacement.make is not None
        with blame(decision.culprit, f"asked for the module at {decision.site.name}", replacement, "make"):
            made = replacement.make()
        _put_module(module, copies[node], f"{decision.site.name}_average", made)
        if not replacement.exact:
            copies[node].meta[APPROXIMATED] = decision.site.operation_name
    for node, decision in pools.items():
        if isinstance(decision.replacement, NeuronAfterPool):
            _move_in_front(copies[node.all_input_nodes[0]], copies[node])
    module.graph.lint()
    module.recompile()
    return Draft(module, draft.signature, draft.device, draft.samples, draft.more, draft.answer, draft.problems)


def _put_module(module: fx.GraphModule, node: fx.Node, name: str, layer: nn.Module) -> None:
    """Let `node` call `layer` on its first argument."""
    if node.op == "call_module":
        module.set_submodule(str(node.target), layer)
    else:
        target = usable_target(name)
        module.add_submodule(target, layer)
        node.op, node.target = "call_module", target
        if target != name:
            node.meta[NAME] = name
    node.args, node.kwargs = (node.all_input_nodes[0],), {}


def _move_in_front(activation: fx.Node, pool: fx.Node) -> None:
    """Let `pool` act on the current of `activation` instead of its result."""
    current = activation.all_input_nodes[0]
    pool.replace_all_uses_with(activation)
    pool.replace_input_with(activation, current)
    activation.replace_input_with(current, pool)
    pool.append(activation)
    pool.meta[COMMUTED] = True
