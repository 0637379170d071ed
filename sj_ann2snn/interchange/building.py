"""Builds a network from its description."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from ..contracts.network_description import NetworkDescription, NodeDescription
from ..contracts.readout import SUGGESTED
from ..contracts.values import NodeReference
from ..errors import Ann2SnnError, FormatError
from ..layers import Stepwise, to_step_module
from ..support.converted_network import ConvertedNetwork
from ..support.names import NAME, usable_input
from ..support.site_notes import ConversionNotes, note_conversion
from ..support.trees import map_leaves
from ..support.wording import first_line, listed, shown
from .describing import usable_label
from .modules import build_layer, torch_layer
from .operations import ATTRIBUTES, GETATTR, find_function, is_method

__all__ = ["build"]


def build(description: NetworkDescription, declared: Mapping[str, type[nn.Module]]) -> fx.GraphModule:
    """The network, in eval mode, reset and in step mode "s".

    Args:
        description: The description of the network.
        declared: The layers that plugins declare in `exports`, by qualified name.

    Raises:
        FormatError: The description does not describe a valid network, or needs something that is not installed.
    """
    try:
        return _Builder(description, declared).run()
    except Ann2SnnError:
        raise
    except Exception as error:
        raise FormatError(
            f"It does not describe a network that can be built ({type(error).__name__}: {first_line(error)})."
        ) from error


class _Builder:
    def __init__(self, description: NetworkDescription, declared: Mapping[str, type[nn.Module]]) -> None:
        self.description, self.declared = description, declared
        self.graph = fx.Graph()
        self.modules: dict[str, Any] = {}
        self.labels: dict[str, Any] = {}
        self.made: dict[str, fx.Node] = {}

    def run(self) -> fx.GraphModule:
        nodes = self.description.nodes
        if [position for position, node in enumerate(nodes) if node.kind == "output"] != [len(nodes) - 1]:
            raise FormatError("A network must have exactly one output, as its last node; this one does not.")
        if not _is_name(self.description.name):
            raise FormatError(f"The network is called {self.description.name!r}; this must be a valid class name.")
        for node in nodes:
            if node.name in self.made or not _is_name(node.name) or node.name == "self":
                raise FormatError(f"A node is called {node.name!r}; names must be unique Python identifiers.")
            self.made[node.name] = self._node(node)
        snn = ConvertedNetwork(self.modules, self.graph, self.description.name)
        if self.description.readout is not None:
            snn.meta[SUGGESTED] = self.description.readout
        notes = self.description.conversion
        if notes is not None:
            self._require_layers(notes)
            note_conversion(snn, notes)
        return snn.eval()

    def _require_layers(self, notes: ConversionNotes) -> None:
        layers = {name for name, what in self.modules.items() if isinstance(what, nn.Module)}
        missing = {*notes.sites, *notes.biases, *notes.approximate} - layers
        if missing:
            raise FormatError(
                f"It notes something about the layers {listed(map(shown, sorted(missing)))}, which the network does "
                "not have."
            )

    def _node(self, node: NodeDescription) -> fx.Node:
        args = tuple(self._resolve(node, value) for value in node.args)
        kwargs = {key: self._resolve(node, value) for key, value in node.kwargs.items()}
        if not all(_is_name(key) for key in kwargs):
            raise FormatError(f"Node {node.name!r} has the arguments {sorted(kwargs)}; names must be identifiers.")
        if node.kind == "output":
            if len(args) != 1:
                raise FormatError(f"The output has {len(args)} arguments; it must have one.")
            output: fx.Node = self.graph.output(args[0])
            return output
        if node.kind == "input":
            if not _is_name(node.label):
                raise FormatError(f"An input is called {node.label!r}; this must be a valid argument name.")
            target = usable_input(node.label)
            made = self.graph.create_node("placeholder", target, args, {}, name=node.name)
            if target != node.label:
                made.meta[NAME] = node.label
            return made
        if node.kind == "constant":
            return self._constant(node)
        if node.kind == "layer":
            return self._layer(node, self._build_layer(node), args, kwargs)
        function = self._function(node, args)
        if node.sequences is not None:
            return self._layer(node, Stepwise(function, node.sequences), args, kwargs)
        op = "call_method" if node.kind == "method" else "call_function"
        return self.graph.create_node(op, function, args, kwargs, name=node.name)

    def _constant(self, node: NodeDescription) -> fx.Node:
        if set(node.tensors) != {"value"}:
            raise FormatError(f"The constant {node.label!r} has the tensors {sorted(node.tensors)}; allowed is value.")
        value = node.tensors["value"]
        known = self.modules.get(node.label)
        if known is None:
            is_parameter = bool(node.options.get("parameter")) and value.is_floating_point()
            self._place(node, nn.Parameter(value) if is_parameter else value)
        return self.graph.create_node("get_attr", node.label, name=node.name)

    def _build_layer(self, node: NodeDescription) -> nn.Module:
        try:
            layer = build_layer(node.operation, node.options, node.tensors, self.declared)
        except FormatError as error:
            raise FormatError(f"The layer {node.label!r} {error}.") from error
        if node.sequences is None or torch_layer(layer) is None:
            return layer
        alone = node.sequences == (0,) and len(node.args) == 1 and not node.kwargs
        return to_step_module(layer) if alone else Stepwise(layer, node.sequences)

    def _layer(self, node: NodeDescription, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        self._place(node, layer)
        return self.graph.create_node("call_module", node.label, args, kwargs, name=node.name)

    def _place(self, node: NodeDescription, what: Any) -> None:
        label = node.label
        if not usable_label(label) or not self._claim(label.split(".")):
            raise FormatError(
                f"Node {node.name!r} has the label {label!r}, which is not a valid layer name or is already in use."
            )
        self.modules[label] = what

    def _claim(self, parts: list[str]) -> bool:
        """Reserve a label; False if it is in use, or would be inside another layer or another layer inside it."""
        level: Any = self.labels
        for part in parts[:-1]:
            level = level.setdefault(part, {})
            if level is None:
                return False
        if parts[-1] in level:
            return False
        level[parts[-1]] = None  # holds nothing else
        return True

    def _function(self, node: NodeDescription, args: tuple[Any, ...]) -> Any:
        if node.kind == "method":
            if not is_method(node.operation) or not args:
                raise FormatError(f"Node {node.name!r} calls {node.operation!r}, which is not a torch.Tensor method.")
            return node.operation
        function = find_function(node.operation)
        if function is None or (node.operation == GETATTR and not (len(args) == 2 and args[1] in ATTRIBUTES)):
            raise FormatError(
                f"Node {node.name!r} calls {node.operation!r} with {node.args!r}; a network may only call operators "
                "and torch's functions on tensors."
            )
        return function

    def _resolve(self, node: NodeDescription, value: Any) -> Any:
        def made(leaf: Any) -> Any:
            if not isinstance(leaf, NodeReference):
                return leaf
            if leaf.name not in self.made:
                raise FormatError(f"Node {node.name!r} reads {leaf.name!r}, which is not an earlier node.")
            return self.made[leaf.name]

        return map_leaves(value, made)


def _is_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)
