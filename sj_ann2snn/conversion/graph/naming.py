"""Names of nodes as users know them: qualified layer names."""

from __future__ import annotations

import copy
import operator
from typing import Any

from torch import Tensor, fx, nn

from ...support.names import NAME
from .tracing import PATH

__all__ = ["attribute", "copied_attribute", "keep_numbers", "node_label", "operation_name", "qualified_name"]


CALLS = ("call_module", "call_function", "call_method")

_FOLDED = "ann2snn_folded"
"""Key of a node's meta: how many calls of the same name before it are part of a layer now."""


def attribute(module: nn.Module, target: str) -> Any:
    """The parameter, buffer or submodule with the qualified name `target`."""
    return operator.attrgetter(target)(module)


def copied_attribute(module: nn.Module, target: str) -> Any:
    """A copy of a parameter or buffer; the copy of a parameter is a parameter."""
    value = attribute(module, target)
    if isinstance(value, nn.Parameter):
        return nn.Parameter(value.detach().clone(), requires_grad=value.requires_grad)
    return value.clone() if isinstance(value, Tensor) else copy.copy(value)


def operation_name(target: Any) -> str:
    """Short name of a function or method."""
    return target if isinstance(target, str) else getattr(target, "__name__", type(target).__name__)


def qualified_name(module: fx.GraphModule, node: fx.Node) -> str:
    """Qualified name of what `node` calls, ignoring repeated calls.

    For a module this is its own name; a function in the forward of module ``a.b`` is ``a.b.relu``.
    """
    if node.op in ("call_module", "get_attr", "placeholder"):
        return str(node.meta.get(NAME, node.target))
    path = node.meta.get(PATH, "")
    name = operation_name(node.target).strip("_")
    return f"{path}.{name}" if path else name


def node_label(module: fx.GraphModule, node: fx.Node) -> str:
    """Qualified name of `node`, with ``#2`` for a second call and so on; modules are counted before functions."""
    name = qualified_name(module, node)
    named = [other for other in module.graph.nodes if other.op in CALLS and qualified_name(module, other) == name]
    layers = [other for other in named if other.op == "call_module"]
    count = [*layers, *(other for other in named if other not in layers)].index(node) + 1 if node in named else 1
    count += node.meta.get(_FOLDED, 0)
    return name if count == 1 else f"{name}#{count}"


def keep_numbers(module: fx.GraphModule, folded: fx.Node) -> None:
    """Let later functions of the same name keep their labels when `folded` is erased, which is a function too."""
    name = qualified_name(module, folded)
    nodes = list(module.graph.nodes)
    for node in nodes[nodes.index(folded) + 1 :]:
        if node.op in ("call_function", "call_method") and qualified_name(module, node) == name:
            node.meta[_FOLDED] = node.meta.get(_FOLDED, 0) + 1
