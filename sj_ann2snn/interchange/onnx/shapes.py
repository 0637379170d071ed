"""Finds the shapes of a graph's values, and what the graph computes from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .constants import fold_constants
from .model import Graph, Node, Shape, named_shape, shapes_of
from .reshapes import fix_resizes, fix_targets
from .sizes import follow_sizes

__all__ = ["know_shapes"]

_LARGE = 1024
"""Elements of a constant from which shapes cannot follow."""


def know_shapes(graph: Graph) -> None:
    """Find the shapes of all values, as far as they are known beforehand, and fix what follows from them.

    A graph that reshapes to sizes which it computes hides the shapes behind; so what is found fixes targets of
    reshapes, and these show more shapes, until there is nothing new.

    Args:
        graph: Changed in place.
    """
    _name_sizes(graph)
    while True:
        found = _inferred(graph)
        news = {name: shape for name, shape in found.items() if _knows_more(shape, graph.shapes.get(name))}
        graph.shapes |= news
        graph.sizes = follow_sizes(graph)
        before = len(graph.nodes)
        fold_constants(graph)
        fixed = fix_targets(graph)
        if not (fixed or len(graph.nodes) < before):
            break
    fix_resizes(graph)


def _name_sizes(graph: Graph) -> None:
    """Name the sizes of the inputs that are not known, to tell where they occur again."""
    for name in graph.inputs:
        shape = graph.shapes.get(name)
        if shape is not None:
            graph.shapes[name] = named_shape(name, shape)


def _knows_more(shape: Shape, before: Shape | None) -> bool:
    if before is None or len(before) != len(shape):
        return before is None
    return any(_precision(new) > _precision(old) for new, old in zip(shape, before, strict=True))


def _precision(size: int | str | None) -> int:
    return 0 if size is None else 1 if isinstance(size, str) else 2


def _inferred(graph: Graph) -> dict[str, Shape]:
    """The shapes that ONNX infers; some operators may not be readable without, and then say so."""
    from onnx import helper, shape_inference

    small = {name: value for name, value in graph.constants.items() if value.size <= _LARGE}
    large = [_info(name, value.dtype, value.shape) for name, value in graph.constants.items() if name not in small]
    inputs = [helper.make_tensor_value_info(name, graph.types[name], graph.shapes.get(name)) for name in graph.inputs]
    try:
        weights = [_tensor(name, value) for name, value in small.items()]
        ends = [helper.make_empty_tensor_value_info(name) for name in graph.outputs]
        proto = helper.make_graph([_proto(node) for node in graph.nodes], "graph", [*inputs, *large], ends, weights)
        opsets = [helper.make_opsetid(domain, version) for domain, version in graph.opsets.items()]
        model = shape_inference.infer_shapes(helper.make_model(proto, opset_imports=opsets), data_prop=True)
        return shapes_of(model.graph)
    except Exception:
        return {}


def _info(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)


def _tensor(name: str, value: np.ndarray[Any, Any]) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(value, name)


def _proto(node: Node) -> Any:
    """The node as it is now; its attributes may have been changed, too."""
    from onnx import NodeProto

    proto = NodeProto()
    proto.CopyFrom(node.proto)
    proto.input[:] = node.inputs
    kept = [attribute for attribute in node.proto.attribute if attribute.name in node.attributes]
    del proto.attribute[:]
    proto.attribute.extend(kept)
    return proto
