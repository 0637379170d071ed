"""Replaces in-place operations by out-of-place ones that have the same effect.

After ``b = relu_(a)``, everything that reads `a`, or a view of its memory, reads the new values. Which
tensors share memory is not guessed from the operations but read off a recorded run.
"""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.dropout import _DropoutNd

from .naming import node_label
from .records import Record, TensorRecord
from .tracing import SOURCE

__all__ = ["functionalize"]

_FUNCTIONS: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


def functionalize(module: fx.GraphModule, record: Record) -> list[tuple[fx.Node, str]]:
    """Make every in-place operation in the graph of `module` out of place.

    Returns:
        The operations for which that is impossible, each with the reason.
    """
    refused: list[tuple[fx.Node, str]] = []
    order = {node: position for position, node in enumerate(module.graph.nodes)}
    current: dict[fx.Node, TensorRecord] = {
        node: record[node] for node in order if isinstance(record[node], TensorRecord)
    }
    # Find all of them beforehand, because a module that is called twice loses its flag with the first call.
    in_place = [node for node in module.graph.nodes if _mutated(module, node) is not None]
    refused += [
        (node, "it writes its result into another tensor (out=)")
        for node in module.graph.nodes
        if isinstance(node.kwargs.get("out"), fx.Node)
    ]
    for node in in_place:
        mutated = _first_argument(node)
        if mutated is None or mutated not in current:
            continue  # a number, as in ``size += 1``
        reason = _replace_later_reads(module, node, mutated, current, order)
        if reason:
            refused.append((node, reason))
        else:
            _make_out_of_place(module, node)
    module.graph.lint()
    module.recompile()
    return refused


def _mutated(module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The node whose value `node` changes in place, or None."""
    first = _first_argument(node)
    if first is None:
        return None
    if node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        # Dropout in eval mode leaves its input alone.
        return first if getattr(layer, "inplace", False) and not isinstance(layer, _DropoutNd) else None
    if node.op == "call_function":
        if node.kwargs.get("training") is False and "dropout" in getattr(node.target, "__name__", ""):
            return None
        name = getattr(node.target, "__name__", "")
        if node.target is operator.setitem or node.target in _FUNCTIONS:
            return first
        if node.kwargs.get("inplace") or (name.endswith("_") and not name.endswith("__")):
            return first
        return None
    if node.op == "call_method":
        name = str(node.target)
        return first if name.endswith("_") and not name.endswith("__") else None
    return None


def _first_argument(node: fx.Node) -> fx.Node | None:
    first = node.args[0] if node.args else node.kwargs.get("input")
    return first if isinstance(first, fx.Node) else None


def _replace_later_reads(
    module: fx.GraphModule,
    node: fx.Node,
    mutated: fx.Node,
    current: dict[fx.Node, TensorRecord],
    order: dict[fx.Node, int],
) -> str:
    if _out_of_place(node) is None:
        return "it assigns to a part of a tensor, which this version cannot follow"
    target = current[mutated]
    aliases = [
        other
        for other, found in current.items()
        if found.storage == target.storage and other is not node and order.get(other, -1) < order[node]
    ]
    later = {
        alias: [user for user in alias.users if user is not node and order.get(user, -1) > order[node]]
        for alias in aliases
    }
    stale: list[fx.Node] = []
    for alias in filter(later.__getitem__, aliases):
        if alias.op == "get_attr" or mutated.op == "get_attr":
            return "it changes a parameter or buffer in place"
        if _same_memory(current[alias], target):
            stale.append(alias)
        elif _overlap(current[alias], target):
            return f"it changes memory in place, and {node_label(module, alias)!r}, another view of it, is read later"
    for alias in stale:
        replacement = node
        if current[alias].shape != target.shape:
            with module.graph.inserting_after(node):
                replacement = module.graph.call_function(torch.reshape, (node, (-1, *current[alias].shape[1:])))
            replacement.meta.update(alias.meta)
            replacement.meta[SOURCE] = node.meta.get(SOURCE, "")
            order[replacement] = order[node]
            current[replacement] = current[alias]
        for user in later[alias]:
            user.replace_input_with(alias, replacement)
    return ""


def _same_memory(one: TensorRecord, other: TensorRecord) -> bool:
    """True if both views show the same elements in the same order."""
    if one.offset != other.offset:
        return False
    if one.shape == other.shape:
        return one.strides == other.strides
    sizes = (torch.Size(one.shape).numel(), torch.Size(other.shape).numel())
    return sizes[0] == sizes[1] and one.contiguous and other.contiguous and one.shape[0] == other.shape[0]


def _overlap(one: TensorRecord, other: TensorRecord) -> bool:
    """True if the views share an element of their memory."""
    first, second = _elements(one), _elements(other)
    return bool(torch.isin(first, second).any())


def _elements(view: TensorRecord) -> Tensor:
    """The memory positions of a view's elements."""
    places = torch.tensor(view.offset)
    for size, stride in zip(view.shape, view.strides, strict=True):
        places = places.unsqueeze(-1) + torch.arange(size) * stride
    found: Tensor = torch.unique(places)
    return found


def _out_of_place(node: fx.Node) -> Any:
    if node.op == "call_module":
        return node.target
    if node.op == "call_method":
        name = str(node.target)[:-1]
        return name if hasattr(Tensor, name) else None
    if node.target in _FUNCTIONS:
        return _FUNCTIONS[node.target]
    if node.kwargs.get("inplace"):
        return node.target
    name = getattr(node.target, "__name__", "")[:-1]
    for home in (torch.nn.functional, torch):
        if hasattr(home, name):
            return getattr(home, name)
    return None


def _make_out_of_place(module: fx.GraphModule, node: fx.Node) -> None:
    target = _out_of_place(node)
    if node.op == "call_module":
        layer: nn.Module = copy.copy(module.get_submodule(str(node.target)))
        layer.inplace = False  # type: ignore[assignment]
        module.set_submodule(str(node.target), layer)
        return
    node.target = target
    if "inplace" in node.kwargs:
        node.kwargs = {name: value for name, value in node.kwargs.items() if name != "inplace"}
