"""From the description of a network to the nodes and edges of a NIR graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sj_ann2snn import ExportError, NetworkDescription, NodeDescription, NodeReference

from . import neurons, pools, shapes, sums, weighted
from .drawing import Drawing
from .signals import NoNodeError, NoTensorError, Part, Signal, Translation
from .targets import Reader
from .windows import output_size, window_of

__all__ = ["translate"]

Translate = Callable[[Drawing, NodeDescription], Signal]

LAYERS: dict[str, Translate] = {
    "AdaptiveAvgPool2d": pools.adaptive_pool,
    "AvgPool2d": pools.pool,
    "ChannelAffine": sums.affine,
    "Conv1d": weighted.convolution,
    "Conv2d": weighted.convolution,
    "Dropout": shapes.same,
    "Dropout1d": shapes.same,
    "Dropout2d": shapes.same,
    "Flatten": shapes.flatten,
    "IFNode": neurons.neuron,
    "Identity": shapes.same,
    "InitialPotential": neurons.potential,
    "Linear": weighted.linear,
    "Scaler": sums.scaler,
}
"""How layers are written, by their type."""

CALLS: dict[str, Translate] = {
    "adaptive_avg_pool2d": pools.adaptive_pool,
    "add": sums.total,
    "avg_pool2d": pools.pool,
    "contiguous": shapes.same,
    "flatten": shapes.flatten,
    "getattr": shapes.size,
    "getitem": shapes.part,
    "mean": pools.mean,
    "mul": sums.product,
    "neg": sums.negative,
    "reshape": shapes.view,
    "size": shapes.size,
    "sub": sums.difference,
    "view": shapes.view,
}
"""How functions and methods are written, by their name."""


def translate(network: NetworkDescription, shape: tuple[int, ...] | None, reader: Reader) -> Translation:
    """The nodes and edges for `network`.

    Args:
        network: The network.
        shape: Of a sample; None if it follows from the first layer.
        reader: What the nodes must be, so that the reader takes them.

    Raises:
        ExportError: Something in the network has no node; the message names all of it.
    """
    return _Translator(network, shape, reader).run()


class _Translator(Drawing):
    """Walks through the network."""

    def __init__(self, network: NetworkDescription, shape: tuple[int, ...] | None, reader: Reader) -> None:
        super().__init__(network, reader)
        self.shape = shape

    def run(self) -> Translation:
        problems: list[tuple[str, str]] = []
        for node in self.network.nodes:
            try:
                self.signals[node.name] = self._translate(node)
            except NoNodeError as error:
                problems.append((node.label or node.operation or node.kind, str(error)))
                self.signals[node.name] = self._assumed(node)
            except NoTensorError:
                pass
        if not self.reader.branches:
            for source, number in self.users.items():
                if number > 1 and source in self.parts:
                    problems.append((self._label(source), f"{self.reader.release} reads a chain of layers only, and "
                                     f"{number} layers read this one. Choose another target"))  # fmt: skip
        if not problems and not {"input", "output"} <= set(self.parts):
            problems.append(("output", "it does not depend on the input"))
        if problems:
            listed = "".join(f"\n  {where}: {why}." for where, why in problems)
            raise ExportError(f"NIR cannot hold the network:{listed}", tuple(problems))
        return Translation(self.parts, self.edges, self.kept, self.notes)

    def _assumed(self, node: NodeDescription) -> Signal | None:
        """What a node without translation would give, so that the layers behind it are examined; None if unknown."""
        try:
            value = replace(self.input_of(node), potential=None)
        except (NoNodeError, NoTensorError):
            return None
        if node.operation == "IFNode" or "." in node.operation:
            return value  # neurons, also of plugins
        if node.kind != "layer" or "kernel_size" not in node.options or len(value.held) < 2:
            return None
        try:
            window = window_of({"dilation": 1, **node.options}, len(value.held) - 1)
        except NoNodeError:
            return None
        sizes = tuple(output_size(window, place, size) for place, size in enumerate(value.held[1:]))
        shape = (node.options.get("out_channels", value.held[0]), *sizes)
        return Signal(value.sources, shape, shape)

    def _label(self, name: str) -> str:
        return str(self.parts[name].metadata.get("label", name))

    def _translate(self, node: NodeDescription) -> Signal | None:
        if node.kind == "input":
            return self._input(node)
        if node.kind == "constant":
            return None
        if node.kind == "output":
            return self._output(node)
        kind = node.operation.rpartition(".")[2] if node.kind == "function" else node.operation
        translate = (LAYERS if node.kind == "layer" else CALLS).get(kind)
        if translate is None:
            raise NoNodeError(_why_not(node))
        return translate(self, node)

    def _input(self, node: NodeDescription) -> Signal:
        if "input" in self.parts:
            raise NoNodeError("the readers take graphs with one input, and this is a second one")
        shape = self.shape or self._shape_of_first_layer()
        if shape is None:
            raise NoNodeError(
                "NIR nodes have sizes, which follow from the size of a sample: give input_shape=(3, 32, 32), say"
            )
        self.parts["input"] = Part("Input", {"input_type": {"input": np.array(shape)}})
        return Signal(("input",), shape, shape)

    def _shape_of_first_layer(self) -> tuple[int, ...] | None:
        """The shape of a sample, if a linear layer is the first to read it."""
        for node in self.network.nodes:
            if node.kind not in ("input", "constant"):
                size = node.options.get("in_features") if node.operation == "Linear" else None
                return None if size is None else (size,)
        return None

    def _output(self, node: NodeDescription) -> Signal | None:
        (returned,) = node.args
        if not isinstance(returned, NodeReference):
            raise NoNodeError("the readers take graphs with one output, and this network returns several values")
        if self.signals.get(returned.name) is None:
            return None  # its own problem is known
        value = self.plain(self.signal(returned), "output")
        if len(value.sources) > 1:  # nirtorch returns the inputs of an output without a sum
            value = self.scaled(value, "output_sum", np.float32(1))
        self.put("output", "Output", {"output_type": {"output": np.array(value.held)}}, value)
        return value


def _why_not(node: NodeDescription) -> str:
    if node.operation in ("CumulativeMaxPool", "CumulativeMax", "MomentumMaxPool"):
        return "NIR has no max pool. Convert with maxpool='avg', or train the ANN with average pools"
    if node.operation == "StepBias":
        return (
            "NIR has no node that adds another bias at every step. Convert without the correction that sets step biases"
        )
    if node.kind == "layer" and "." in node.operation:
        return (
            f"NIR has no node for {node.operation}. Convert with neuron='if' and without analog layers; a plugin's "
            "layers have no node"
        )
    what = node.operation or node.kind
    return f"NIR has no node for {what}; the nodes are linear layers, convolutions, pools, sums, Flatten and IF neurons"
