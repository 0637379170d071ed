"""Brings a traced ANN into canonical form: one module per call, BatchNorm absorbed, nothing unused."""

from __future__ import annotations

import copy
import itertools
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ...errors import ConversionError
from ...layers import ChannelAffine
from ...support.names import NAME
from .channel_arithmetic import channel_arithmetic
from .naming import copied_attribute, keep_numbers, node_label, operation_name, qualified_name
from .records import Record, TensorRecord
from .tracing import LEAF
from .weights import batchnorm_factors, scaled_layer

__all__ = ["ORIGIN", "absorb_batchnorm", "isolate_attributes", "remove_unused", "unshare_modules"]

ORIGIN = "ann2snn_origin"
"""Key of a node's meta: the ANN's operations that the node replaces, if these are not the node's own."""


def unshare_modules(module: fx.GraphModule) -> None:
    """Give every call its own module, so that each call has its own scales and neuron.

    The first call keeps the name; later calls get ``#2``, ``#3`` and so on.
    """
    # Find all names first, because they count calls of the same target.
    labels = {node: node_label(module, node) for node in module.graph.nodes if node.op == "call_module"}
    names = {qualified_name(module, node) for node in labels}
    targets = {str(node.target) for node in labels}
    for node, label in labels.items():
        name = qualified_name(module, node)
        if label == name:
            continue
        # A layer of the network may have the name of another's second call.
        count = itertools.count(int(label.rpartition("#")[2]))
        target, label = next(
            (f"{node.target}#{number}", f"{name}#{number}")
            for number in count
            if f"{name}#{number}" not in names and f"{node.target}#{number}" not in targets
        )
        module.add_submodule(target, copy.copy(module.get_submodule(str(node.target))))
        targets.add(target)
        names.add(label)
        node.target = target
        if label != target:
            node.meta[NAME] = label
    module.recompile()


def isolate_attributes(module: fx.GraphModule) -> None:
    """Copy parameters and buffers that the network also reads outside the call of their layer.

    The layer's own will have BatchNorm and scales folded in.
    """
    layers = {str(node.target) for node in module.graph.nodes if node.op == "call_module"}
    apart: dict[str, str] = {}
    for node in module.graph.nodes:
        target = str(node.target)
        if node.op != "get_attr" or not any(target.startswith(f"{layer}.") for layer in layers):
            continue
        if target not in apart:
            name = f"{target.replace('.', '_')}_read_apart"
            while hasattr(module, name):  # that of a.b.weight is that of a_b.weight
                name += "_"
            apart[target] = name
            value = copied_attribute(module, target)
            if isinstance(value, nn.Parameter):
                module.register_parameter(name, value)
            else:
                module.register_buffer(name, value)
        node.target = apart[target]
    module.recompile()


def absorb_batchnorm(module: fx.GraphModule, record: Record, *, fuse: bool = True) -> None:
    """Fold every BatchNorm into the layer before it; if that is impossible, it becomes a `ChannelAffine`.

    Sums and products with constants per channel are folded as well; where that is impossible, they stay.

    Args:
        module: Changed in place; weights are replaced, never written to.
        record: What the nodes yield.
        fuse: False turns every BatchNorm into a separate affine map, and leaves arithmetic as it is.

    Raises:
        ConversionError: A BatchNorm has no running statistics.
    """
    for node in list(module.graph.nodes):
        found = _factors(module, node)
        if found is None:
            if fuse:
                _absorb_arithmetic(module, node, record)
            continue
        name, (factor, shift) = found
        before = node.args[0] if node.args else node.kwargs["input"]
        assert isinstance(before, fx.Node)
        if fuse and _absorbs(module, before, record):
            _absorb(module, before, node, name, (factor, shift))
            continue
        dtype = record[before].dtype
        affine = ChannelAffine(factor.to(dtype), shift.to(dtype), len(record[before].shape))
        module.set_submodule(str(node.target), affine.eval())
        node.args, node.kwargs = (before,), {}
        node.meta[ORIGIN] = name
    module.recompile()


def _absorb_arithmetic(module: fx.GraphModule, node: fx.Node, record: Record) -> None:
    """Fold a sum or product with constants per channel into the layer before it: a BatchNorm written by hand."""
    found = channel_arithmetic(module, node, record)
    if found is not None and _can_change(module, found[0]):
        keep_numbers(module, node)
        _absorb(module, found[0], node, operation_name(node.target), found[1:])


def _absorb(module: fx.GraphModule, before: fx.Node, node: fx.Node, name: str, affine: tuple[Tensor, Tensor]) -> None:
    """Let the layer that `before` calls compute what `node` makes of its output."""
    factor, shift = affine
    layer = scaled_layer(module.get_submodule(str(before.target)), outputs=factor, shift=shift)
    module.set_submodule(str(before.target), layer)
    node.replace_all_uses_with(before)
    module.graph.erase_node(node)
    before.meta[ORIGIN] = f"{before.meta.get(ORIGIN, type(layer).__name__)} + {name}"


def _factors(module: fx.GraphModule, node: fx.Node) -> tuple[str, tuple[Tensor, Tensor]] | None:
    """Name, factor and shift of the BatchNorm that `node` calls; None for other operations."""
    if node.op != "call_module" or node.meta.get(LEAF):
        return None
    layer: Any = module.get_submodule(str(node.target))
    if not isinstance(layer, _BatchNorm):
        return None
    if layer.running_mean is None or layer.running_var is None:
        raise ConversionError(
            f"{qualified_name(module, node)} ({type(layer).__name__}) has no running statistics "
            "(track_running_stats=False): it normalizes by the statistics of the current batch, which a spiking "
            "network cannot do. Train it with track_running_stats=True."
        )
    factors = batchnorm_factors(layer.running_mean, layer.running_var, layer.weight, layer.bias, layer.eps)
    return node.meta.get(ORIGIN, type(layer).__name__), factors


def _absorbs(module: fx.GraphModule, before: fx.Node, record: Record) -> bool:
    """True if the layer that `before` calls can take a BatchNorm behind it into its weights."""
    if not _can_change(module, before):
        return False
    # For [N, ..., F], BatchNorm works on dimension 1, which is not the layer's output dimension.
    found = record[before]
    linear = isinstance(module.get_submodule(str(before.target)), nn.Linear)
    return not linear or (isinstance(found, TensorRecord) and len(found.shape) == 2)


def _can_change(module: fx.GraphModule, before: fx.Node) -> bool:
    """True if `before` calls a layer with weights whose output nothing else reads."""
    if before.op != "call_module" or before.meta.get(LEAF) or len(before.users) != 1:
        return False
    return isinstance(module.get_submodule(str(before.target)), (nn.Linear, _ConvNd))


def remove_unused(module: fx.GraphModule) -> None:
    """Remove calls whose result is never read, and modules that are no longer called."""
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.graph.lint()
    module.recompile()
