"""Describes a converted network."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, fx, nn

from ..contracts.network_description import NetworkDescription, NodeDescription
from ..contracts.readout import SUGGESTED
from ..contracts.values import NodeReference, encode
from ..errors import ExportError, InputError, PluginError
from ..layers import Stepwise
from ..support.blame import Culprit
from ..support.names import NAME, is_usable, usable_class_name
from ..support.site_notes import ConversionNotes, notes_of
from ..support.structures import is_built, open_nodes
from ..support.trees import map_leaves
from .modules import copy_to_cpu, describe_layer
from .operations import ATTRIBUTES, GETATTR, function_name, is_method, shown

__all__ = ["MakerFinder", "describe", "usable_label"]

MakerFinder = Callable[[type[nn.Module]], Culprit | None]
"""Returns the plugin that declares a layer, for messages."""


def describe(
    snn: nn.Module, declared: Mapping[str, type[nn.Module]], producer: str = "", maker_of: MakerFinder | None = None
) -> NetworkDescription:
    """The description of a converted network, whatever state it is in.

    Args:
        snn: The network.
        declared: The layers that plugins declare in `exports`, by qualified name.
        producer: The program that writes the description.
        maker_of: Returns the plugin that declares a layer, for messages.

    Raises:
        ExportError: `snn` is not a converted network, or parts of it cannot be described; the message lists them all.
    """
    if not isinstance(snn, fx.GraphModule):
        inside = [name for name, module in snn.named_modules() if name and isinstance(module, fx.GraphModule)]
        what = f"snn.get_submodule({inside[0]!r})" if inside else "what Converter(...)(ann) returns"
        raise ExportError(
            f"Only a converted network (a torch.fx.GraphModule) can be exported, not {type(snn).__name__}; give {what}."
        )
    return _Describer(snn, declared, maker_of or (lambda layer: None)).run(producer)


class _Describer:
    def __init__(self, snn: fx.GraphModule, declared: Mapping[str, type[nn.Module]], maker_of: MakerFinder) -> None:
        self.snn, self.declared, self.maker_of = snn, declared, maker_of
        self.labels: set[str] = set()

    def run(self, producer: str) -> NetworkDescription:
        nodes, problems = [], []
        for node in self.snn.graph.nodes:
            if is_built(node):
                continue  # a file holds no classes; the output has a dict in its place
            try:
                nodes.append(self._describe_safely(node))
            except ExportError as error:
                problems.append((self._label(node), str(error)))
        if problems:
            listed = "".join(f"\n  {where}: {why}" for where, why in problems)
            raise ExportError(f"The network cannot be exported:{listed}", tuple(problems))
        name = usable_class_name(type(self.snn).__name__)
        return NetworkDescription(name, tuple(nodes), self.snn.meta.get(SUGGESTED), producer, self._notes())

    def _notes(self) -> ConversionNotes | None:
        """What the network notes about its conversion, with tensors of its own on the CPU."""
        try:
            notes = notes_of(self.snn)
        except InputError as error:
            raise ExportError(f"The network cannot be exported. {error}") from error
        return None if notes is None else notes.with_tensors(lambda tensor: copy_to_cpu(tensor, "notes"))

    def _describe_safely(self, node: fx.Node) -> NodeDescription:
        described = self._describe(node)
        encode((described.args, dict(described.kwargs)))
        if described.label and described.kind != "input" and not usable_label(described.label):
            raise ExportError("its name cannot be written into code; rename the layer")
        return described

    def _describe(self, node: fx.Node) -> NodeDescription:
        args, kwargs = self._arguments(node)
        name, target = node.name, node.target
        if node.op == "placeholder":
            if not str(target).isidentifier():
                raise ExportError("a network with a variable number of inputs (*args) cannot be exported")
            return NodeDescription(name, "input", label=str(node.meta.get(NAME, target)), args=args)
        if node.op == "get_attr":
            value = operator.attrgetter(str(target))(self.snn)
            if not isinstance(value, Tensor):
                raise ExportError(f"it is {value!r}, but constants must be tensors")
            options = {"parameter": isinstance(value, nn.Parameter)}
            tensors = {"value": copy_to_cpu(value, "value")}
            return NodeDescription(name, "constant", label=str(target), options=options, tensors=tensors)
        if node.op == "output":
            return NodeDescription(name, "output", args=args)
        if node.op == "call_module":
            return self._describe_call(name, str(target), args, kwargs)
        kind, operation = _function(target, args)
        return NodeDescription(name, kind, operation, args=args, kwargs=kwargs)

    def _describe_call(self, name: str, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NodeDescription:
        if target in self.labels:
            raise ExportError("it is called twice; the converter makes a separate layer for every call")
        self.labels.add(target)
        module = self.snn.get_submodule(target)
        sequences: tuple[int, ...] | None = (0,) if hasattr(module, "step_mode") else None
        if isinstance(module, Stepwise):
            operation, sequences = module.operation, module.sequences
            if not isinstance(operation, nn.Module):
                kind, function = _function(operation, args)
                return NodeDescription(name, kind, function, target, args, kwargs, sequences=sequences)
            module = operation
        try:
            layer = describe_layer(module, self.declared, self.maker_of(type(module)))
        except PluginError as error:
            raise PluginError(f"The layer {target} cannot be exported. {error}") from error.__cause__
        return NodeDescription(
            name, "layer", layer.operation, target, args, kwargs, layer.options, layer.tensors, sequences
        )

    def _arguments(self, node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        def referred(leaf: Any) -> Any:
            return NodeReference(leaf.name) if isinstance(leaf, fx.Node) else leaf

        # torch.fx keeps arguments in its own kinds of tuples and lists.
        args, kwargs = map_leaves((_plain(open_nodes(node.args)[0]), _plain(node.kwargs)), referred)
        return args, kwargs

    def _label(self, node: fx.Node) -> str:
        if node.op != "call_module":
            return str(node.target) if node.op in ("placeholder", "get_attr") else node.name
        return f"{node.target} ({_type_name(self.snn.get_submodule(str(node.target)))})"


def usable_label(label: str) -> bool:
    r"""True for a name that may become part of generated code.

    >>> usable_label("layer1.0.relu#2"), usable_label('a"b'), usable_label("a..b")
    (True, False, False)
    """
    return all(is_usable(part) for part in label.split("."))


def _function(target: Any, args: tuple[Any, ...]) -> tuple[str, str]:
    """Kind and name of a function or method."""
    if isinstance(target, str):
        if not is_method(target):
            raise ExportError(f"{target!r} is not a method of torch.Tensor")
        return "method", target
    name = function_name(target)
    if name is None:
        raise ExportError(f"it calls {shown(target)}, but a file can only name functions of torch and operators")
    if name == GETATTR and not (len(args) == 2 and args[1] in ATTRIBUTES):
        raise ExportError(f"it reads the attribute {args[1]!r}; allowed are {', '.join(ATTRIBUTES)}")
    return "function", name


def _plain(tree: Any) -> Any:
    if isinstance(tree, tuple):
        return tuple(_plain(item) for item in tree)
    if isinstance(tree, list):
        return [_plain(item) for item in tree]
    if isinstance(tree, dict):
        return {key: _plain(item) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(_plain(tree.start), _plain(tree.stop), _plain(tree.step))
    return tree


def _type_name(module: nn.Module) -> str:
    inner = module.operation if isinstance(module, Stepwise) else module
    return type(inner).__name__ if isinstance(inner, nn.Module) else str(getattr(inner, "__name__", inner))
