"""Reads an ONNX file as a network of torch."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from ...errors import UnsupportedError
from ...support.neutral import neutrally
from ...support.wording import described
from .checking import check_outputs
from .constants import fold_constants
from .ends import add_ends, compared_values, end_at
from .layers import plain_layer
from .library import Unreadable, read_node
from .loading import load_model, what_of
from .model import RANDOM, Graph, Node, Obstacle, graph_of
from .names import add_layer, input_names
from .reshapes import free_batch
from .shapes import know_shapes

__all__ = ["from_onnx"]

_CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})


_REPORT = "Check the file with onnx.checker; if it is valid, please report this, with the file"


@neutrally
def from_onnx(
    path: str | os.PathLike[str] | Any, *, outputs: Sequence[str] | None = None, verify: Any = True
) -> fx.GraphModule:
    """Read an ONNX file as a network of torch, for `Converter`.

    >>> from sj_ann2snn import Converter, from_onnx
    >>> ann = from_onnx("model.onnx")  # doctest: +SKIP
    >>> snn = Converter(calibration_loader, mode="99.9%")(ann)  # doctest: +SKIP

    Needs the extra `onnx`. Every ONNX node becomes a layer with the node's name. Weights may be stored in the file or
    beside it, in any opset; the number of samples need not be the one that the file was written for.

    Args:
        path: The file, or an `onnx.ModelProto`.
        outputs: Names of values or nodes at which the network ends, instead of the outputs in the file: what comes
            behind them, such as a softmax or the decoding of boxes, is left out.
        verify: Compare the outputs with those of onnxruntime, if it is installed, otherwise of ONNX's reference
            implementation. True takes random inputs of the shapes in the file, where sizes that it leaves open are 64,
            and compares nothing if the file itself fails on these; a tensor, or a tuple of several, gives the inputs.

    Returns:
        The network in eval mode. With several outputs, it returns a tuple in their order.

    Raises:
        FormatError: The file does not exist or does not hold an ONNX model.
        UnsupportedError: It holds operators that cannot be read, all listed in the message.
        VerificationError: The network does not compute what the file says.
        OptionError: `outputs` names something that the file does not have.
        InputError: The packages onnx and onnx2pytorch are not installed.
    """
    name = what_of(path)
    model = load_model(path)
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    if outputs is not None:
        end_at(model, [outputs] if isinstance(outputs, str) else list(outputs))
    graph = graph_of(model)
    fold_constants(graph)
    know_shapes(graph)
    batch = free_batch(graph)
    network, values = _network(graph, name)
    if verify is not False:
        compared = compared_values(graph)
        add_ends(model, compared[len(graph.outputs) :])
        probe = _with_ends(network, [values[one] for one in compared])
        check_outputs(model, graph, probe, compared, None if verify is True else verify, batch, name)
    return network


def _network(graph: Graph, name: str) -> tuple[fx.GraphModule, dict[str, fx.Node]]:
    """The network, and the node of every value."""
    obstacles: list[Obstacle] = []
    root, traced = nn.Module(), fx.Graph()
    values: dict[str, fx.Node] = {}
    for given, plain in zip(graph.inputs, input_names(graph.inputs), strict=True):
        values[given] = traced.placeholder(plain)
    for node in graph.nodes:
        try:
            layer, several = _read(graph, node)
        except Exception as error:
            why, help = (error.why, error.help) if isinstance(error, Unreadable) else (_fails(error), _REPORT)
            obstacles.append(Obstacle(node.name, node.operator, why, help))
            values.update(dict.fromkeys(node.outputs, next(iter(values.values()), None)))  # type: ignore[arg-type]
            continue
        arguments = tuple(values[one] for one in node.inputs if one and one not in graph.constants)
        call = traced.call_module(add_layer(root, node.name, layer), arguments)
        values[node.outputs[0]] = call
        if several:
            parts = [(index, value) for index, value in enumerate(node.outputs) if value]
            values |= {value: traced.call_function(operator.getitem, (call, index)) for index, value in parts}
    obstacles += [
        Obstacle(one, "", "this output does not depend on the inputs", "Leave it out with from_onnx(outputs=[...])")
        for one in graph.outputs
        if one not in values
    ]
    if obstacles:
        _refuse(obstacles, name)
    ends = tuple(values[one] for one in graph.outputs)
    traced.output(ends[0] if len(ends) == 1 else ends)
    traced.lint()
    return fx.GraphModule(root, traced, "OnnxNetwork").eval(), values


def _with_ends(network: fx.GraphModule, ends: Sequence[fx.Node]) -> fx.GraphModule:
    """The same network with other outputs, always as a tuple."""
    copied, nodes = fx.Graph(), dict[fx.Node, fx.Node]()
    copied.graph_copy(network.graph, nodes)
    copied.output(tuple(nodes[end] for end in ends))
    return fx.GraphModule(network, copied).eval()


def _read(graph: Graph, node: Node) -> tuple[nn.Module, bool]:
    if node.domain:
        raise Unreadable(
            f"it is not an operator of ONNX, but of {node.domain!r}", "Export the network with ONNX's own operators"
        )
    if node.operator in _CONTROL_FLOW:
        raise Unreadable("it branches or loops while the network runs", "Export the network for one way through it")
    if node.operator in RANDOM:
        raise Unreadable("it draws random numbers", "Export the network without it")
    layer = plain_layer(graph, node)
    return read_node(graph, node) if layer is None else (layer, node.operator == "Split")


def _fails(error: Exception) -> str:
    return f"reading it fails with {described(error)}"


def _refuse(obstacles: Sequence[Obstacle], name: str) -> None:
    if len(obstacles) == 1:
        raise UnsupportedError(f"{name} cannot be read: {obstacles[0]}", tuple(obstacles))
    listing = "\n".join(f"  - {obstacle}" for obstacle in obstacles)
    raise UnsupportedError(f"{name} cannot be read for {len(obstacles)} reasons:\n{listing}", tuple(obstacles))
