"""Lets onnx2pytorch read a node: the one place that knows this library."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.pooling import _MaxPoolNd

from ...support.wording import described, first_line
from .model import Graph, Node
from .operation import VARIES, Operation

__all__ = ["Unreadable", "read_node", "tensor"]

_WITH_WEIGHTS = frozenset({"Conv", "ConvTranspose", "InstanceNormalization", "LSTM", "GRU", "RNN"})
"""Operators whose constants are the weights of a layer; those of others are arguments."""

_SETTINGS = frozenset({"Clip", "Pad", "Resize", "Upsample", "OneHot", "Range"})
"""Operators whose constants say what to do, also if they are floating-point numbers."""


class Unreadable(Exception):  # noqa: N818 - a reason, which becomes an `Obstacle`
    """Why a node cannot be read, and what to do."""

    def __init__(self, why: str, help: str) -> None:
        super().__init__(why)
        self.why, self.help = why, help


def tensor(value: np.ndarray[Any, Any]) -> torch.Tensor:
    """A constant as a tensor of its own.

    Raises:
        Unreadable: torch has no such type.
    """
    if value.dtype.name == "bfloat16":
        return torch.from_numpy(value.astype(np.float32)).bfloat16()
    try:
        return torch.from_numpy(np.array(value, order="C"))
    except TypeError as error:
        raise Unreadable(
            f"torch has no tensors of {value.dtype.name}", "Export it with floating-point numbers"
        ) from error


def read_node(graph: Graph, node: Node) -> tuple[nn.Module, bool]:
    """The layer that a node becomes, and whether it returns a tuple.

    Raises:
        Unreadable: onnx2pytorch does not know the operator or one of its attributes.
    """
    from onnx2pytorch.constants import MULTIOUTPUT_LAYERS, STANDARD_LAYERS
    from onnx2pytorch.operations.base import OperatorWrapper

    made = _converted(graph, node)
    layers = list(made.modules()) if isinstance(made, nn.Sequential) else [made]
    if any(isinstance(layer, STANDARD_LAYERS) for layer in layers):
        return _simplified(made), any(isinstance(layer, MULTIOUTPUT_LAYERS) for layer in layers)
    pools = [layer for layer in layers if isinstance(layer, _MaxPoolNd)]
    for pool in pools:
        pool.return_indices = False
    is_layer = isinstance(made, nn.Module) and type(made).__module__.startswith("torch.nn.")
    if pools or (is_layer and _takes_one_value(graph, node)):
        return made, False
    function: Callable[..., Any] = made.forward if isinstance(made, OperatorWrapper) else made
    arguments = [_argument(graph, node, name) for name in node.inputs]
    while arguments and arguments[-1] is None:
        arguments.pop()
    return Operation(function, arguments), any(isinstance(layer, MULTIOUTPUT_LAYERS) for layer in layers)


def _takes_one_value(graph: Graph, node: Node) -> bool:
    """True for a node that takes nothing but one value from another node."""
    return [name in graph.constants for name in node.inputs if name] == [False]


def _argument(graph: Graph, node: Node, name: str) -> Any:
    if not name:
        return None
    if name not in graph.constants:
        return VARIES
    value = tensor(graph.constants[name])
    # An operation would keep floating-point tensors as weights.
    return value.tolist() if node.operator in _SETTINGS and value.is_floating_point() else value


def _converted(graph: Graph, node: Node) -> Any:
    from onnx import NodeProto, helper, numpy_helper
    from onnx2pytorch.convert.operations import convert_operations

    proto = NodeProto()
    proto.CopyFrom(node.proto)
    del proto.attribute[:]
    proto.attribute.extend(
        one for one in node.proto.attribute if one.name in node.attributes and one.name not in ("pads", "auto_pad")
    )
    proto.attribute.extend(
        helper.make_attribute(name, node.attributes[name]) for name in ("pads", "auto_pad") if name in node.attributes
    )
    weights = []
    if node.operator in _WITH_WEIGHTS:
        weights = [
            numpy_helper.from_array(graph.constants[name], name) for name in node.inputs if name in graph.constants
        ]
    piece = helper.make_graph([proto], node.name, [], [], weights)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            ((_, _, made),) = convert_operations(piece, graph.opset, enable_pruning=False)
        except Exception as error:
            raise Unreadable(f"onnx2pytorch cannot read it ({described(error)})", _EXPORT) from error
    if told:
        raise Unreadable(f"onnx2pytorch reads it only roughly ({first_line(told[0].message)})", _EXPORT)  # type: ignore[arg-type]
    return made


_EXPORT = (
    "Export the network without it, for example with another opset or by replacing the layer; or, if what comes before "
    "it is all that you need, end there with from_onnx(outputs=[...])"
)


def _simplified(made: Any) -> Any:
    """A transposed convolution that crops its output the same at both ends does so by itself."""
    from onnx2pytorch.operations import ConvTranspose

    if not isinstance(made, ConvTranspose) or made.output_shape is not None or made.auto_pad not in ("NOTSET", "VALID"):
        return made
    spatial = len(made.conv.kernel_size)
    pads = made.pads or (0,) * 2 * spatial
    if pads[:spatial] != pads[spatial:]:
        return made
    made.conv.padding = tuple(pads[:spatial])
    return made.conv
