"""Takes the classes of outputs and of torch's results out of a traced graph: plain tuples and dicts remain."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from ...support.structures import is_built, open_nodes
from ...support.trees import field_names
from .records import Record

__all__ = ["index_fields", "open_output"]


def open_output(module: fx.GraphModule) -> Any:
    """Let the network return plain dicts in place of named tuples, dataclasses and kinds of dicts.

    Returns:
        The template with which `rebuild` makes the objects again.
    """
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    plain, template = open_nodes(output.args[0])
    output.args = (plain,)
    for node in module.graph.nodes:
        if is_built(node) and issubclass(node.target, dict):
            for user in list(node.users):  # an argument of a call, which torch.fx makes a plain dict
                user.args, user.kwargs = open_nodes(user.args)[0], open_nodes(user.kwargs)[0]
    for node in reversed(module.graph.nodes):
        # Other unused nodes may work in place.
        if is_built(node) and not node.users:
            module.graph.erase_node(node)
    module.recompile()
    return template


def index_fields(module: fx.GraphModule, record: Record) -> None:
    """Read the fields of named tuples by position: ``x.max(1).values`` becomes ``x.max(1)[0]``.

    Args:
        module: Changed in place; the nodes stay the same, and so does what they yield.
        record: What the nodes yield.
    """
    for node in module.graph.nodes:
        if node.op != "call_function" or node.target is not getattr or not isinstance(node.args[0], fx.Node):
            continue
        names = field_names(record[node.args[0]])
        if node.args[1] in names:
            node.target, node.args = operator.getitem, (node.args[0], names.index(node.args[1]))
    module.recompile()
