"""Names of nodes as users know them: qualified layer names."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from .tracing import PATH

__all__ = ["attribute", "node_label", "operation_name", "qualified_name"]


def attribute(module: nn.Module, target: str) -> Any:
    """The parameter, buffer or submodule with the qualified name `target`."""
    *path, name = target.split(".")
    return getattr(module.get_submodule(".".join(path)), name)


def operation_name(target: Any) -> str:
    """Short name of a function or method."""
    return target if isinstance(target, str) else getattr(target, "__name__", type(target).__name__)


def qualified_name(module: fx.GraphModule, node: fx.Node) -> str:
    """Qualified name of what `node` calls, without regard to repeated calls.

    A module's own name; a function in the forward of module ``a.b`` is ``a.b.relu``.
    """
    if node.op in ("call_module", "get_attr", "placeholder"):
        return str(node.target)
    path = node.meta.get(PATH, "")
    name = operation_name(node.target).strip("_")
    return f"{path}.{name}" if path else name


def node_label(module: fx.GraphModule, node: fx.Node) -> str:
    """Qualified name of `node`, with ``#2`` for a second call and so on."""
    name = qualified_name(module, node)
    count = 0
    for other in module.graph.nodes:
        if other.op == node.op and qualified_name(module, other) == name:
            count += 1
            if other is node:
                break
    return name if count <= 1 else f"{name}#{count}"
