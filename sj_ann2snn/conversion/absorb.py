"""Adds the biases that corrections chose to the biases of layers, where a layer can take them."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from ..contracts.replacements import Remove, Weighted
from .draft import Draft
from .graph.weights import channel_axis, foldable, scaled_layer

__all__ = ["absorb_bias", "layer_behind"]


def absorb_bias(draft: Draft, value: fx.Node, bias: Tensor, axis: int) -> Draft | None:
    """A draft in which a layer adds `bias` ``[C]``, along `axis`, to the result of `value`; None if there is none."""
    node = layer_behind(draft, value, axis)
    if node is None:
        return None
    layer = scaled_layer(draft.layer(node), shift=bias)
    return draft.evolve(layers={**draft.layers, str(node.target): layer})


def layer_behind(draft: Draft, value: fx.Node, axis: int) -> fx.Node | None:
    """The layer whose bias is added to `value`, along `axis`, and to nothing else; None if there is none."""
    decision, found = draft.plan.decisions.get(value), draft.tensor(value)
    if decision is None or decision.replacement is None or len(value.users) != 1 or found is None:
        return None
    replacement = decision.replacement
    if isinstance(replacement, Weighted):
        fits = (
            value.op == "call_module"
            and foldable(draft.layer(value))
            and channel_axis(draft.layer(value), len(found.shape)) == axis
        )
        return value if fits else None
    if replacement.passes_bias and (isinstance(replacement, Remove) or _adds_only(value)):
        for operand in value.all_input_nodes:
            other = draft.tensor(operand)
            behind = layer_behind(draft, operand, axis) if other is not None and other.shape == found.shape else None
            if behind is not None:
                return behind
    return None


def _adds_only(node: fx.Node) -> bool:
    """True for a sum of two operands, each taken once and unscaled."""
    added = node.target in ("add", torch.add) or getattr(node.target, "__name__", "") in ("add", "iadd")
    return added and not node.kwargs and len(node.all_input_nodes) == len(node.args) == 2
