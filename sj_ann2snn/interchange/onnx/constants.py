"""Computes beforehand what does not depend on a network's inputs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .model import RANDOM, Graph, Node

__all__ = ["compute", "fold_constants"]


_UNCHANGED = {"DequantizeLinear": 19, "QuantizeLinear": 19}
"""Operators of which the reference implementation has no version before this one, which takes what older ones took."""


def fold_constants(graph: Graph) -> None:
    """Turn every value that depends on constants only into a constant.

    Weights that a file keeps behind nodes (Constant, ConstantOfShape, Identity, DequantizeLinear) are then weights
    like any other.

    Args:
        graph: Changed in place.
    """
    kept = []
    for node in graph.nodes:
        fixed = all(name in graph.constants for name in node.inputs if name)
        branches = any(hasattr(value, "node") for value in node.attributes.values())
        if not fixed or node.domain or branches or node.operator in RANDOM:
            kept.append(node)
        else:
            try:
                values = compute(graph, node, graph.constants)
            except Exception:
                kept.append(node)  # whoever reads the nodes says what is wrong with it
            else:
                graph.constants.update(values)
                graph.shapes.update({name: value.shape for name, value in values.items()})
    graph.nodes = kept
    graph.keep_needed()


def compute(graph: Graph, node: Node, values: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """What a node makes of given values, by name.

    Args:
        graph: Of the node.
        node: It draws no random numbers.
        values: At least those that the node takes.
    """
    if node.operator == "Identity":
        return {node.outputs[0]: values[node.inputs[0]]}
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    given = {name: values[name] for name in node.inputs if name}
    made = [name for name in node.outputs if name]
    known = [helper.make_tensor_value_info(name, _type(value), value.shape) for name, value in given.items()]
    unknown = [helper.make_empty_tensor_value_info(name) for name in made]
    proto = helper.make_graph([node.proto], "constants", known, unknown)
    versions = dict(graph.opsets)
    if node.operator in _UNCHANGED:
        versions[""] = max(graph.opset, _UNCHANGED[node.operator])
    opsets = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Sequence[Any] = ReferenceEvaluator(helper.make_model(proto, opset_imports=opsets)).run(None, given)
    return {name: np.asarray(value) for name, value in zip(made, found, strict=True)}


def _type(value: np.ndarray[Any, Any]) -> int:
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(value.dtype))
