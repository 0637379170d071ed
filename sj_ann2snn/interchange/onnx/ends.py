"""Where a network ends, and which values tell whether it was read correctly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import OptionError
from ...support.wording import did_you_mean, listed, shown
from .model import Graph

__all__ = ["add_ends", "compared_values", "end_at"]

_SATURATING = frozenset({"Sigmoid", "HardSigmoid", "Softmax", "Tanh"})


def end_at(model: Any, names: Sequence[str]) -> None:
    """Let the graph end at the named values or nodes.

    Raises:
        OptionError: There is no such value or node.
    """
    from onnx import helper

    made = {value for node in model.graph.node for value in node.output if value}
    by_node = {node.name: node.output[0] for node in model.graph.node if node.name}
    ends = []
    for name in names:
        end = name if name in made else by_node.get(name)
        if end is None:
            hint = (
                did_you_mean(name, [*made, *by_node])
                or f"It ends with {listed(one.name for one in model.graph.output)}."
            )
            raise OptionError(f"outputs names {shown(name)}, which is neither a node nor a value of the file. {hint}")
        ends.append(end)
    if not ends:
        raise OptionError("outputs is empty. Name at least one value or node at which the network ends.")
    known = {one.name: one for one in (*model.graph.output, *model.graph.value_info)}
    infos = [known.get(end) or helper.make_empty_tensor_value_info(end) for end in ends]
    kept = [type(info).FromString(info.SerializeToString()) for info in infos]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def add_ends(model: Any, values: Sequence[str]) -> None:
    """Let the graph return more values, behind its outputs."""
    from onnx import helper

    model.graph.output.extend(helper.make_empty_tensor_value_info(value) for value in values)


def compared_values(graph: Graph) -> list[str]:
    """The outputs, and behind them the values from which a sigmoid or softmax makes an output.

    On random inputs, what a trained sigmoid makes of its input is often zero everywhere, which tells nothing.
    """
    before = [
        node.inputs[0]
        for node in graph.nodes
        if node.operator in _SATURATING and not node.domain and set(node.outputs).intersection(graph.outputs)
    ]
    given = {*graph.inputs, *graph.outputs, *graph.constants}
    return [*graph.outputs, *(value for value in dict.fromkeys(before) if value not in given)]
