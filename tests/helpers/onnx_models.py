"""ONNX models made by hand, so that no exporter decides what is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

__all__ = ["HAS_ONNX", "Weights", "model", "needs_onnx", "node"]

try:
    import onnx2pytorch  # noqa: F401
    from onnx import TensorProto, helper, numpy_helper
except ImportError:
    HAS_ONNX = False
else:
    HAS_ONNX = True

needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="onnx and onnx2pytorch are not installed")


class Weights:
    """Random weights by name, shaped as asked for."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)
        self.values: dict[str, np.ndarray[Any, Any]] = {}

    def __call__(self, name: str, *shape: int, low: float | None = None) -> str:
        """The name of a new weight; with `low`, its values are between that and `low` + 1."""
        if low is not None:
            value = self.generator.random(shape) + low
        else:
            value = self.generator.standard_normal(shape) / max(1, np.prod(shape[1:])) ** 0.5
        self.values[name] = value.astype(np.float32)
        return name

    def fixed(self, name: str, value: Any, dtype: Any = np.int64) -> str:
        self.values[name] = np.array(value, dtype)
        return name


def node(operator: str, inputs: str, outputs: str, name: str | None = None, **attributes: Any) -> Any:
    """A node; inputs and outputs are names behind each other, ``-`` for one that is left out."""
    left_out = [("" if one == "-" else one) for one in inputs.split()]
    return helper.make_node(operator, left_out, outputs.split(), operator if name is None else name, **attributes)


def model(
    nodes: Sequence[Any],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    weights: Weights | None = None,
    *,
    opset: int = 17,
) -> Any:
    """A model with float32 inputs; a string as a size leaves it open."""
    known = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    constants = [numpy_helper.from_array(value, name) for name, value in (weights.values if weights else {}).items()]
    graph = helper.make_graph(list(nodes), "network", known, ends, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
