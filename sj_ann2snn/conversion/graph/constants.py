"""Replaces what a network computes from its parameters alone by the result."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from .known_values import call
from .naming import attribute, node_label

__all__ = ["fold_constants"]


def fold_constants(module: fx.GraphModule) -> None:
    """Compute every value that depends on parameters and buffers only, and keep it as one constant.

    A masked weight, a weight that is standardized in the forward, one half of a parameter: what remains is a tensor,
    as if it were a parameter. In-place operations must be out of place already.
    """
    values: dict[fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            values[node] = attribute(module, str(node.target))
        elif node.op in ("call_function", "call_method") and not node.is_impure():
            sources = node.all_input_nodes
            if sources and all(source in values for source in sources):
                args, kwargs = (fx.map_arg(tree, values.__getitem__) for tree in (node.args, node.kwargs))
                with torch.no_grad():
                    values[node] = call(node.op, node.target)(*args, **kwargs)
    for node in list(module.graph.nodes):
        value = values.get(node)
        if node.op != "get_attr" and isinstance(value, Tensor):
            _replace(module, node, value)


def _replace(module: fx.GraphModule, node: fx.Node, value: Tensor) -> None:
    if all(user.op == "get_attr" for user in node.users):
        return  # only an intermediate result, which is removed as unused
    name = base = f"{node_label(module, node).replace('.', '_').replace('#', '_')}_constant"
    count = 1
    while hasattr(module, name):
        count += 1
        name = f"{base}_{count}"
    own = value.detach().clone(memory_format=torch.contiguous_format)
    if value.is_floating_point():
        module.register_parameter(name, nn.Parameter(own, requires_grad=False))
    else:
        module.register_buffer(name, own)
    with module.graph.inserting_before(node):
        constant = module.graph.get_attr(name)
    constant.meta.update(node.meta)
    node.replace_all_uses_with(constant)
