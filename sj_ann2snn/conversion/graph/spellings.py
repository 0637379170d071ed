"""Gives every operation one spelling: torch's names of arguments, positions where a layer expects them."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import fx, nn

from .naming import attribute
from .records import Record, TensorRecord

__all__ = ["normalize_spellings"]

_NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim", "x": "input", "x2": "other"}
"""NumPy's names of arguments, which torch accepts, and torch's own."""


def normalize_spellings(module: fx.GraphModule, record: Record) -> None:
    """Bring the calls in a graph to one spelling; none of them computes anything else.

    Args:
        module: Changed in place.
        record: What the nodes yield.
    """
    for node in list(module.graph.nodes):
        if _casts_to_itself(node, record):
            first = node.args[0]
            assert isinstance(first, fx.Node)
            node.replace_all_uses_with(first)
            module.graph.erase_node(node)
            continue
        if node.op in ("call_function", "call_method"):
            _use_torch_names(node)
        elif node.op == "call_module":
            _use_positions(node, attribute(module, str(node.target)))
    for node in list(module.graph.nodes):
        _stack_behind_samples(node)
    module.graph.lint()
    module.recompile()


_CASTS = frozenset({"float", "double", "half", "bfloat16", "to", "type", "type_as", "cpu", "cuda"})
"""Methods that change a tensor's dtype or place; a converted network lies in one place."""


def _casts_to_itself(node: fx.Node, record: Record) -> bool:
    """True for a cast to the dtype that the tensor already has."""
    if node.op != "call_method" or node.target not in _CASTS or not isinstance(node.args[0], fx.Node):
        return False
    before, after = record[node.args[0]], record[node]
    return isinstance(before, TensorRecord) and isinstance(after, TensorRecord) and before.dtype == after.dtype


def _use_torch_names(node: fx.Node) -> None:
    if not node.kwargs or not _is_torchs(node):
        return
    node.kwargs = {
        torch_name if (torch_name := _NUMPY_NAMES.get(name, name)) not in node.kwargs else name: value
        for name, value in node.kwargs.items()
    }


def _is_torchs(node: fx.Node) -> bool:
    if node.op == "call_method":
        return True
    home = getattr(node.target, "__module__", None) or "torch"  # functions written in C have no module
    return str(home).split(".")[0] == "torch"


_REDUCTIONS = (torch.sum, torch.mean, torch.amax, torch.amin, "sum", "mean", "amax", "amin")


def _stack_behind_samples(node: fx.Node) -> None:
    """Stack results that are only summed, averaged or compared behind the samples instead of in front of them."""
    given = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    if node.target is not torch.stack or given != 0 or not node.users:
        return
    if not all(user.target in _REDUCTIONS and _reduced(user) in (0, (0,), [0]) for user in node.users):
        return
    node.args, node.kwargs = (node.args[0] if node.args else node.kwargs["tensors"], 1), {}
    for user in list(node.users):
        user.args = user.args[:1] + ((1,) if len(user.args) > 1 else ()) + user.args[2:]
        if "dim" in user.kwargs:
            user.kwargs = {**user.kwargs, "dim": 1}


def _reduced(node: fx.Node) -> Any:
    return node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)


def _use_positions(node: fx.Node, layer: nn.Module) -> None:
    """Pass arguments by position, without those that have their default value."""
    if not node.kwargs:
        return
    try:
        signature = inspect.signature(layer.forward)
        bound = signature.bind(*node.args, **node.kwargs)
    except (TypeError, ValueError):
        return  # the call itself will say what is wrong
    if any(p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in signature.parameters.values()):
        return
    given = list(bound.arguments.items())
    while given and given[-1][1] is signature.parameters[given[-1][0]].default:
        given.pop()
    missing = set(list(signature.parameters)[: len(given)]) - {name for name, _ in given}
    if not missing:
        node.args, node.kwargs = tuple(value for _, value in given), {}
