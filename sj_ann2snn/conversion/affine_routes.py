"""Where an affine map per channel gets to: through the operations behind it, into layers that take it up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, fx

from ..contracts.replacements import Weighted
from ..contracts.site import Varies
from ..layers import ChannelAffine
from .affine_maps import Affine, Passage
from .draft import Draft
from .graph.weights import channel_axis, foldable

__all__ = ["Route", "find_route"]


@dataclass(frozen=True)
class Route:
    """What has to be done to leave out an affine map in front of one of its readers.

    Attributes:
        layers: The layers that take it up, each with the map as it arrives there.
        signs: For max pools, the sign of every channel's factor, in front of and behind the pool.
    """

    layers: Mapping[fx.Node, Affine]
    signs: Mapping[fx.Node, Tensor]


def find_route(draft: Draft, start: fx.Node, affine: Affine, reader: fx.Node) -> Route | None:
    """The route of the affine map `start` through `reader` and everything behind it; None if part of that needs it.

    Args:
        draft: Planned.
        start: A node that yields the map's result.
        affine: The map.
        reader: A node that reads `start`.
    """
    under_way: dict[fx.Node, Affine] = {start: affine}
    layers: dict[fx.Node, Affine] = {}
    signs: dict[fx.Node, Tensor] = {}
    for node in draft.module.graph.nodes:
        reached = [one for one in node.all_input_nodes if one in under_way and (one is not start or node is reader)]
        if not reached or draft.plan.varies.get(node) is Varies.CONSTANT:
            continue  # not affected, or reads only a size
        given = {one: under_way[one] for one in reached}
        decision = draft.plan.decisions.get(node)
        if decision is None:
            passed = _picked(draft, node, given)
        elif isinstance(decision.replacement, Weighted):
            (arriving,) = given.values()
            if not _can_take_up(draft, node, arriving):
                return None
            layers[node] = arriving
            continue
        else:
            passed = Passage(draft, node, given, signs).through(decision.replacement)
        if passed is None:
            return None
        under_way[node] = passed
    return Route(layers, signs)


def _picked(draft: Draft, node: fx.Node, given: Mapping[fx.Node, Affine]) -> Affine | None:
    """The map of a result that is picked from several; None for the network's output."""
    if node.op == "output" or not isinstance(node.args[1], (int, slice)):
        return None
    (affine,) = given.values()
    return replace(affine, factor=affine.factor[node.args[1]], shift=affine.shift[node.args[1]])


def _can_take_up(draft: Draft, node: fx.Node, affine: Affine) -> bool:
    """True for a layer with a known weight layout whose input channels are those of the map."""
    layer = draft.module.get_submodule(str(node.target)) if node.op == "call_module" else None
    found = draft.tensor(node.all_input_nodes[0])
    if layer is None or not foldable(layer) or found is None or len(node.args) + len(node.kwargs) != 1:
        return False
    axis = channel_axis(layer, len(found.shape))
    per_channel = all(
        size == 1
        for values in (affine.factor, affine.shift)
        for dim, size in enumerate(values.shape)
        if values.dim() and dim != axis
    )
    return per_channel and (affine.mask is None or (axis == 1 and not isinstance(layer, ChannelAffine)))
