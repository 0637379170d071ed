"""Decides in which scale every value of the spiking network is carried.

A value with scale s is carried as ``value / s``. A neuron's output has the scale λ of its site, and so must its input.
The network's output has scale one, which means the ANN's units. In between, scales are folded into weights wherever the
graph allows. Where two scales meet that no weights can reconcile, an explicit scaler is planned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, fx

from ..contracts.site import Varies
from .carried_scales import ONE, CarriedScales, is_same
from .draft import Draft
from .scale_rules import RULES
from .shared_scales import shared_lambdas, sharing

__all__ = ["scale_values", "share_scales"]


def scale_values(draft: Draft, unit: Callable[[Draft, fx.Node, Tensor], Tensor]) -> Draft:
    """Plan the scales of all values.

    Args:
        draft: Calibrated: λ of every spiking node is known.
        unit: Returns the value of one spike at a node with a λ.

    Returns:
        The draft with `units` and `scales`, and with the λ that neurons share, if they share any.
    """
    draft = draft.evolve(lambdas=shared_lambdas(draft))
    units = {node: unit(draft, node, scale) for node, scale in draft.lambdas.items()}
    return draft.evolve(units=units, scales=_carried(draft, units).plan())


def share_scales(draft: Draft) -> Draft:
    """Find the neurons that must have the same λ for no scaler to be left between them.

    Args:
        draft: Calibrated.

    Returns:
        The draft with `sharing`; `scale_values` gives these neurons one λ.
    """
    return draft.evolve(sharing=sharing(draft, lambda marks: _carried(draft, marks).met.values()))


def _carried(draft: Draft, units: Mapping[fx.Node, Tensor]) -> CarriedScales:
    """The scales of all values, if the spikes of each node have these values."""
    carried = CarriedScales(draft, units)
    nodes = list(draft.module.graph.nodes)
    for node in reversed(nodes):
        carried.wanted[node] = _wanted_by_users(carried, node)
    for node in nodes:
        _visit(carried, node)
    return carried


def _wanted_by_users(carried: CarriedScales, node: fx.Node) -> Tensor | None:
    wishes = [_wish(carried, user, node) for user in node.users]
    concrete = [wish for wish in wishes if wish is not None]
    # A neuron's wish comes first: a scaler on its current would run at every step.
    return next((wish for wish in concrete if not is_same(wish, ONE)), concrete[0] if concrete else None)


def _wish(carried: CarriedScales, user: fx.Node, node: fx.Node) -> Tensor | None:
    if user.op == "output":
        return ONE
    decision = carried.draft.plan.decisions.get(user)
    if decision is None:
        free = carried.picks(user) or carried.draft.plan.varies[user] is Varies.CONSTANT
        return None if free else ONE
    return RULES[carried.flow(user, decision)].wish(carried, user, node, decision)


def _visit(carried: CarriedScales, node: fx.Node) -> None:
    decision = carried.draft.plan.decisions.get(node)
    if node.op == "output":
        for arg in node.all_input_nodes:
            carried.bring(node, arg, ONE)
    elif decision is not None:
        carried.scales[node] = RULES[carried.flow(node, decision)].carry(carried, node, decision)
    elif carried.picks(node) and carried.draft.plan.varies[node] is not Varies.CONSTANT:
        source, which = node.args
        found = carried.scales[source]  # type: ignore[index]
        # The parts of an input, a list or a dict of tensors, are all in the ANN's units.
        carried.scales[node] = found if isinstance(found, Tensor) else found[which]
    else:
        carried.scales[node] = ONE
