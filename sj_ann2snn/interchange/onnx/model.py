"""An ONNX graph as plain data: what its nodes compute, and what is known before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import FormatError
from ...support.wording import described, shown

__all__ = [
    *("DEFAULT_DOMAINS", "RANDOM"),
    *("Graph", "Node", "Obstacle", "Shape", "Sizes"),
    *("graph_of", "named_shape", "shapes_of"),
]

DEFAULT_DOMAINS = ("", "ai.onnx")
"""How files name the domain of ONNX's own operators."""

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
"""Operators whose result is another one at every call."""

Shape = tuple[int | str | None, ...]
"""Sizes of dimensions; a string for a size that several values have in common, None for an unknown one."""


Sizes = np.ndarray[Any, Any]
"""Sizes that a graph computes, as an array of objects: integers, and strings for those that depend on the inputs."""


@dataclass(frozen=True)
class Obstacle:
    """Something in a file that cannot be read.

    Attributes:
        name: Name of the ONNX node, input or output.
        operation: Its operator.
        why: What is wrong with it.
        help: What to do.
        source: Always empty; the operators of a file have no source line.
    """

    name: str
    operation: str
    why: str
    help: str
    source: str = ""

    def __str__(self) -> str:
        what = f"{self.name!r} ({self.operation})" if self.operation else f"{self.name!r}"
        return f"{what}: {self.why}. {self.help}."


@dataclass
class Node:
    """One call of an operator.

    Attributes:
        name: The node's name in the file; without one, its operator and its first output.
        operator: Such as ``"Conv"``.
        domain: Empty for ONNX's own operators.
        inputs: Names of the values it takes; empty where an optional input is left out.
        outputs: Names of the values it makes.
        attributes: Values of the attributes; tensors as arrays.
        proto: The node as the file has it.
    """

    name: str
    operator: str
    domain: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    proto: Any


@dataclass
class Graph:
    """What a file computes.

    Attributes:
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        nodes: In the order of execution.
        constants: Values that do not depend on the inputs.
        opsets: Versions of the operators, by domain.
        shapes: Shapes of values, as far as known.
        types: Element types of the inputs, as numbers of ONNX.
        sizes: What is known of values that are computed from shapes. Equal strings in it, and in the shapes of values,
            are equal sizes.
    """

    inputs: list[str]
    outputs: list[str]
    nodes: list[Node]
    constants: dict[str, np.ndarray[Any, Any]]
    opsets: dict[str, int]
    shapes: dict[str, Shape] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, Sizes] = field(default_factory=dict)

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators."""
        return next((self.opsets[domain] for domain in DEFAULT_DOMAINS if domain in self.opsets), 1)

    def rank(self, value: str) -> int | None:
        """The number of dimensions of a value; None if it is not known."""
        shape = self.shapes.get(value)
        return None if shape is None else len(shape)

    def keep_needed(self) -> None:
        """Drop nodes that do not lead to an output, and constants that nothing reads."""
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                kept.append(node)
                needed.update(filter(None, node.inputs))
        self.nodes = kept[::-1]
        self.constants = {name: value for name, value in self.constants.items() if name in needed}


def graph_of(model: Any) -> Graph:
    """The graph of an `onnx.ModelProto` whose functions are inlined."""
    from onnx import helper, numpy_helper

    proto = model.graph
    constants = {one.name: _array(one, numpy_helper) for one in proto.initializer}
    inputs = [one for one in proto.input if one.name not in constants]
    nodes = [
        Node(
            one.name or f"{one.op_type}_{next(filter(None, one.output), index)}",
            one.op_type,
            "" if one.domain in DEFAULT_DOMAINS else one.domain,
            list(one.input),
            list(one.output),
            {attribute.name: _value(attribute, helper, numpy_helper) for attribute in one.attribute},
            one,
        )
        for index, one in enumerate(proto.node)
    ]
    shapes = shapes_of(proto)
    shapes |= {name: value.shape for name, value in constants.items()}
    return Graph(
        [one.name for one in inputs],
        [one.name for one in proto.output],
        nodes,
        constants,
        {one.domain: one.version for one in model.opset_import},
        shapes,
        {one.name: one.type.tensor_type.elem_type for one in inputs},
    )


def _value(attribute: Any, helper: Any, numpy_helper: Any) -> Any:
    from onnx import AttributeProto, TensorProto

    value = helper.get_attribute_value(attribute)
    if attribute.type == AttributeProto.TENSOR and isinstance(value, TensorProto):
        return _array(value, numpy_helper)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _array(tensor: Any, numpy_helper: Any) -> Any:
    """The values of a tensor.

    Raises:
        FormatError: They do not fit its shape, which old versions of onnx do not check.
    """
    try:
        return numpy_helper.to_array(tensor)
    except ValueError as error:
        raise FormatError(
            f"The tensor {shown(tensor.name)} of the ONNX file does not hold the values that its shape "
            f"{tuple(tensor.dims)} asks for: {described(error)}. The file was damaged. Copy or export it again."
        ) from error


def named_shape(value: str, shape: Shape) -> tuple[int | str, ...]:
    """The shape of a value with a name for every unknown size."""
    return tuple(f"size {axis} of {value}" if size is None else size for axis, size in enumerate(shape))


def shapes_of(proto: Any) -> dict[str, Shape]:
    """The shapes of values that a graph states."""
    found = {one.name: _shape(one) for one in (*proto.input, *proto.value_info, *proto.output)}
    return {name: shape for name, shape in found.items() if shape is not None}


def _shape(info: Any) -> Shape | None:
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.HasField("shape"):
        return None
    return tuple(_size(one) for one in info.type.tensor_type.shape.dim)


def _size(dimension: Any) -> int | str | None:
    return int(dimension.dim_value) if dimension.HasField("dim_value") else str(dimension.dim_param) or None
