"""Takes indices out of operations that also return them, where nobody reads them."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from .naming import attribute

__all__ = ["drop_unread_indices"]

_REDUCED: dict[Any, Any] = {torch.max: torch.amax, torch.min: torch.amin, "max": "amax", "min": "amin"}
_POOLED: dict[Any, Any] = {
    getattr(F, f"{name}_with_indices"): getattr(F, name)
    for name in (f"{kind}max_pool{rank}d" for kind in ("", "adaptive_") for rank in (1, 2, 3))
} | {torch.max_pool1d_with_indices: F.max_pool1d, torch.adaptive_max_pool1d: F.adaptive_max_pool1d}
_POOLS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)


def drop_unread_indices(module: fx.GraphModule) -> None:
    """Let maxima along a dimension and max pools, whose indices nobody reads, return only the values.

    ``values, _ = x.max(2)`` becomes ``x.amax(2)``, and ``pool(x)[0]`` a pool without `return_indices`.

    Args:
        module: Changed in place; a layer is called at most once.
    """
    for node in list(module.graph.nodes):
        values = _values_alone(module, node)
        if values is None:
            continue
        for user in list(node.users):
            if user is not values:
                user.replace_all_uses_with(values)
                module.graph.erase_node(user)
        if values is not node:
            module.graph.erase_node(node)
    module.graph.lint()
    module.recompile()


def _values_alone(module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The node that yields only the values of `node`, which may be itself; None if it cannot."""
    if not any(given := [node.target in _REDUCED, node.target in _POOLED, _is_pool(module, node)]):
        return None
    for user in list(node.users):
        if user.op == "call_function" and user.target is operator.getitem and not user.users:
            module.graph.erase_node(user)
    if not node.users or not all(map(_picks_values, node.users)):
        return None
    if given[0]:
        return _reduced(module, node)
    if given[1]:
        return _pooled(module, node)
    attribute(module, str(node.target)).return_indices = False
    return node


def _is_pool(module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "call_module":
        return False
    layer = attribute(module, str(node.target))
    return type(layer) in _POOLS and bool(layer.return_indices)


def _picks_values(user: fx.Node) -> bool:
    return user.op == "call_function" and user.target is operator.getitem and user.args[1:] == (0,)


def _reduced(module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    if not isinstance(dim, int):
        return None
    keepdim = node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False)
    first = node.args[0] if node.args else node.kwargs["input"]
    return _instead(module, node, _REDUCED[node.target], (first, dim), {"keepdim": keepdim})


def _pooled(module: fx.GraphModule, node: fx.Node) -> fx.Node:
    args, kwargs = node.args, {name: value for name, value in node.kwargs.items() if name != "return_indices"}
    target = _POOLED[node.target]
    place = 2 if "adaptive" in target.__name__ else 6  # of return_indices, the last argument
    return _instead(module, node, target, args[:place], kwargs)


def _instead(
    module: fx.GraphModule, node: fx.Node, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> fx.Node:
    with module.graph.inserting_before(node):
        make = module.graph.call_function if node.op == "call_function" else module.graph.call_method
        values = make(target, args, kwargs)
    values.meta.update(node.meta)
    return values
