"""Puts the biases that corrections found into layers that are there anyway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..contracts.replacements import Remove, Sum, Weighted
from .graph.records import Record, TensorRecord
from .graph.weights import channel_axis, foldable, scaled_layer
from .plan import Plan

__all__ = ["Adjustment", "absorb_bias", "layer_behind"]


@dataclass(frozen=True)
class Adjustment:
    """What a spiking node gets in addition to its current.

    Attributes:
        bias: At every step, per channel, in the ANN's units; None where a layer has taken it in.
        potential: At the first step, in units of the threshold, without sample dimension.
    """

    bias: Tensor | None = None
    potential: Tensor | None = None


def absorb_bias(module: fx.GraphModule, record: Record, plan: Plan, value: fx.Node, bias: Tensor) -> bool:
    """Add `bias` ``[C]`` to what `value` yields, by the bias of a layer; False if there is no such layer."""
    node = layer_behind(module, record, plan, value)
    if node is None:
        return False
    layer = module.get_submodule(str(node.target))
    module.set_submodule(str(node.target), scaled_layer(layer, shift=bias))
    return True


def layer_behind(module: fx.GraphModule, record: Record, plan: Plan, value: fx.Node) -> fx.Node | None:
    """The layer whose bias adds to `value` and to nothing else; None if there is none."""
    decision = plan.decisions.get(value)
    if decision is None or len(value.users) != 1 or not isinstance(record[value], TensorRecord):
        return None
    replacement = decision.replacement
    if isinstance(replacement, Weighted):
        layer: Any = module.get_submodule(str(value.target)) if value.op == "call_module" else None
        fits = layer is not None and foldable(layer) and channel_axis(layer, len(record[value].shape)) == 1
        return value if fits else None
    shape = record[value].shape
    if isinstance(replacement, Remove) or (isinstance(replacement, Sum) and _adds_only(value)):
        for operand in value.all_input_nodes:
            same = isinstance(record[operand], TensorRecord) and record[operand].shape == shape
            found = layer_behind(module, record, plan, operand) if same else None
            if found is not None:
                return found
    return None


def _adds_only(node: fx.Node) -> bool:
    """True for a sum that takes every operand once and as it is."""
    added = node.target in ("add", torch.add) or getattr(node.target, "__name__", "") in ("add", "iadd")
    return added and not node.kwargs and len(node.all_input_nodes) == len(node.args) == 2
