"""What the translations of single operations share: the drawing, the recording, and access to operands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sj_ann2snn import NetworkDescription, NodeDescription, NodeReference, call_operation, tensors

from .drawing import Drawing, NoFormError
from .recording import Recording, batch_first

__all__ = ["Made", "Work", "array", "input_names", "label_of", "named_results", "plain_name", "references"]

Made = str | list[str]
"""The name of a result in the graph; of several, for an operation that returns several."""


def plain_name(node: NodeDescription) -> str:
    """The name of an operation without where it is from.

    >>> plain_name(NodeDescription("a", "function", "operator.add")), plain_name(NodeDescription("b", "method", "view"))
    ('add', 'view')
    """
    return node.operation.rpartition(".")[2] if node.kind == "function" else node.operation


def label_of(node: NodeDescription) -> str:
    """What a node is called in messages, and its results in the graph."""
    return node.label or node.name


def input_names(network: NetworkDescription) -> dict[str, str]:
    """The names of the inputs, by the names of their nodes; those with a default are left at it."""
    return {node.name: node.label or node.name for node in network.nodes if node.kind == "input" and not node.args}


def references(tree: Any) -> list[str]:
    """The names of the nodes in arguments, in order.

    >>> references((NodeReference("x"), [NodeReference("y")], {"size": 2}))
    ['x', 'y']
    """
    if isinstance(tree, NodeReference):
        return [tree.name]
    if isinstance(tree, slice):
        return references((tree.start, tree.stop, tree.step))
    if isinstance(tree, (tuple, list)):
        return [name for one in tree for name in references(one)]
    if hasattr(tree, "values"):
        return references(list(tree.values()))
    return []


def named_results(returned: Any, path: tuple[str, ...] = ()) -> list[tuple[str, NodeReference]]:
    """What a network returns, with names: the keys of dicts, and numbers for what has no name.

    >>> a, b = NodeReference("a"), NodeReference("b")
    >>> [name for name, _ in named_results({"logits": a, "maps": (a, b)})]
    ['logits', 'maps_0', 'maps_1']
    >>> [name for name, _ in named_results((a, b))], named_results(a)
    (['output_0', 'output_1'], [('output', NodeReference(name='a'))])
    """
    if isinstance(returned, NodeReference):
        return [("_".join(path) or "output", returned)]
    if isinstance(returned, Mapping):
        return [one for key, value in returned.items() for one in named_results(value, (*path, str(key)))]
    if isinstance(returned, (tuple, list)):
        parts = enumerate(returned)
        return [one for place, value in parts for one in named_results(value, (*(path or ("output",)), str(place)))]
    return []


def array(tensor: Tensor, what: str) -> Any:
    """A tensor as an array.

    Raises:
        NoFormError: NumPy lacks its dtype.
    """
    try:
        return tensor.detach().cpu().contiguous().numpy()
    except TypeError as error:
        raise NoFormError(
            f"its {what} is {tensor.dtype}; export the network in single precision, snn.float()"
        ) from error


class Work:
    """A network while it is translated.

    Args:
        drawing: The graph.
        recording: What the nodes yield.

    Attributes:
        made: The names in the graph by the name of the node, of those that depend on the input's values.
    """

    def __init__(self, drawing: Drawing, recording: Recording) -> None:
        self.drawing, self.recording = drawing, recording
        self.made: dict[str, Made] = {}
        self.constants: dict[str, str] = {}

    def varies(self, value: Any) -> bool:
        """True for a tensor that depends on the input's values."""
        return isinstance(value, NodeReference) and value.name in self.made

    def argument(self, node: NodeDescription, place: int, *names: str, default: Any = None) -> Any:
        """An argument, given by its place or its name; numbers that follow from sizes are filled in."""
        value = default
        if len(node.args) > place:
            value = node.args[place]
        else:
            for name in names:
                value = node.kwargs.get(name, value)
        return self.filled(value)

    def filled(self, value: Any) -> Any:
        """An argument with the values of what does not depend on the input."""
        if isinstance(value, (tuple, list)):
            return type(value)(self.filled(one) for one in value)
        if not isinstance(value, NodeReference) or self.varies(value):
            return value
        few, more = self.recording.few[value.name], self.recording.more[value.name]
        if tensors(few):
            return value
        if few != more:
            raise NoFormError("it computes with the number of samples")
        return few

    def input_of(self, node: NodeDescription) -> str:
        """The name of the first operand.

        Raises:
            NoFormError: It is no tensor that depends on the input.
        """
        return self.read(self.argument(node, 0, "input", "x", "self"))

    def read(self, value: Any) -> str:
        """The name of an operand in the graph, which is stored if it does not depend on the input."""
        value = self.filled(value)
        if isinstance(value, (int, float)):
            return self.drawing.number("number", value)
        if not isinstance(value, NodeReference):
            raise NoFormError(f"it reads {value!r:.100}")
        if value.name not in self.made:
            return self.constant(value.name)
        made = self.made[value.name]
        if not isinstance(made, str):
            raise NoFormError("it reads several values at once")
        return made

    def constant(self, name: str) -> str:
        if name not in self.constants:
            few, more = self.recording.few[name], self.recording.more[name]
            if not isinstance(few, Tensor):
                raise NoFormError(f"it reads {few!r:.100}")
            if few.shape != more.shape:  # one row for every sample, which broadcasts
                few, more = few[:1], more
                if not bool((more == few).all()):
                    raise NoFormError("it reads a tensor that differs from sample to sample")
            elif not torch.equal(few, more):
                raise NoFormError("it reads a tensor whose values depend on the number of samples")
            self.constants[name] = self.drawing.weight(name, array(few, "operand"))
        return self.constants[name]

    def sizes(self, name: str) -> tuple[int, ...]:
        """The sizes of a node's result; -k for one that is k times the number of samples."""
        return self.recording.sizes(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The sizes of a node's result, the rows of a sample first: 1 but for windows."""
        return batch_first(self.recording.sizes(name))

    def shape_of_input(self, node: NodeDescription) -> tuple[int, ...]:
        value = self.argument(node, 0, "input", "x", "self")
        if not isinstance(value, NodeReference):
            raise NoFormError(f"it reads {value!r:.100}")
        return self.shape(value.name)

    def called(self, node: NodeDescription, x: Tensor) -> Tensor:
        """What an operation makes of another tensor, in place of its first operand."""
        (found,) = [one for one in self.recording.network.graph.nodes if one.name == node.name]
        target: Any = found.target
        if found.op == "call_module":
            target = self.recording.network.get_submodule(str(target))
        rest = [self.filled(one) for one in node.args[1:]]
        made: Tensor = call_operation(target, x, *rest, **{key: self.filled(one) for key, one in node.kwargs.items()})
        return made
