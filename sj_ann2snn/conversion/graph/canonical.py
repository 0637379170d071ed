"""Brings a traced ANN into canonical form: one module per call, BatchNorm absorbed, nothing unused."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ...errors import ConversionError
from ...layers import ChannelAffine
from .naming import attribute, copied_attribute, node_label, operation_name
from .records import Record, TensorRecord
from .tracing import LEAF
from .weights import batchnorm_factors, scaled_layer

__all__ = ["ORIGIN", "absorb_batchnorm", "isolate_attributes", "remove_unused", "unshare_modules"]

ORIGIN = "ann2snn_origin"
"""Key of a node's meta: the ANN's operations that the node replaces, if these are not the node's own."""

_FUNCTIONS: Mapping[Any, tuple[str, ...]] = {
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    torch.batch_norm: ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps"),
}
"""Functional BatchNorms and their parameters."""


def unshare_modules(module: fx.GraphModule) -> None:
    """Give every call its own module, so that each call has its own scales and neuron.

    The first call keeps the name; later calls get ``#2``, ``#3`` and so on.
    """
    # Find all names first, because they count calls of the same target.
    labels = {node: node_label(module, node) for node in module.graph.nodes if node.op == "call_module"}
    for node, label in labels.items():
        if label != node.target:
            module.add_submodule(label, copy.copy(module.get_submodule(str(node.target))))
            node.target = label
    module.recompile()


def isolate_attributes(module: fx.GraphModule) -> None:
    """Copy parameters and buffers that the network also reads outside the call of their layer.

    The layer's own will have BatchNorm and scales folded in.
    """
    layers = {str(node.target) for node in module.graph.nodes if node.op == "call_module"}
    for node in module.graph.nodes:
        target = str(node.target)
        if node.op != "get_attr" or not any(target.startswith(f"{layer}.") for layer in layers):
            continue
        name = f"{target.replace('.', '_')}_read_apart"
        if not hasattr(module, name):
            value = copied_attribute(module, target)
            if isinstance(value, nn.Parameter):
                module.register_parameter(name, value)
            else:
                module.register_buffer(name, value)
        node.target = name
    module.recompile()


def absorb_batchnorm(module: fx.GraphModule, record: Record, *, fuse: bool = True) -> None:
    """Fold every BatchNorm into the layer before it; if that is impossible, it becomes a `ChannelAffine`.

    Args:
        module: Changed in place; weights are replaced, never written to.
        record: What the nodes yield.
        fuse: False turns every BatchNorm into a separate affine map; functional ones stay as they are.

    Raises:
        ConversionError: A BatchNorm has no running statistics.
    """
    for node in list(module.graph.nodes):
        found = _module_constants(module, node) or (_function_constants(module, node) if fuse else None)
        if found is None:
            continue
        name, (factor, shift) = found
        before = node.args[0] if node.args else node.kwargs["input"]
        assert isinstance(before, fx.Node)
        if fuse and _absorbs(module, before, record):
            layer = scaled_layer(module.get_submodule(str(before.target)), outputs=factor, shift=shift)
            module.set_submodule(str(before.target), layer)
            node.replace_all_uses_with(before)
            module.graph.erase_node(node)
            before.meta[ORIGIN] = f"{before.meta.get(ORIGIN, type(layer).__name__)} + {name}"
            continue
        dtype = record[before].dtype
        affine = ChannelAffine(factor.to(dtype), shift.to(dtype), len(record[before].shape))
        _put_module(module, node, affine.eval())
        node.args, node.kwargs = (before,), {}
        node.meta[ORIGIN] = name
    module.recompile()


def _module_constants(module: fx.GraphModule, node: fx.Node) -> tuple[str, tuple[Tensor, Tensor]] | None:
    """Name, factor and shift of the BatchNorm layer that `node` calls; None for other operations."""
    if node.op != "call_module" or node.meta.get(LEAF):
        return None
    layer: Any = module.get_submodule(str(node.target))
    if not isinstance(layer, _BatchNorm):
        return None
    if layer.running_mean is None or layer.running_var is None:
        raise ConversionError(
            f"{node.target} ({type(layer).__name__}) has no running statistics "
            "(track_running_stats=False): it normalizes by the statistics of the current batch, which a spiking "
            "network cannot do. Train it with track_running_stats=True."
        )
    factors = batchnorm_factors(layer.running_mean, layer.running_var, layer.weight, layer.bias, layer.eps)
    return type(layer).__name__, factors


def _function_constants(module: fx.GraphModule, node: fx.Node) -> tuple[str, tuple[Tensor, Tensor]] | None:
    """Name, factor and shift of a functional BatchNorm whose statistics and factors are parameters or buffers."""
    if node.op != "call_function" or node.target not in _FUNCTIONS:
        return None
    given: dict[str, Any] = {"weight": None, "bias": None, "training": False, "eps": 1e-5}
    given.update(zip(_FUNCTIONS[node.target], node.args, strict=False))
    given.update(node.kwargs)
    tensors = {name: _constant(module, given.get(name)) for name in ("running_mean", "running_var", "weight", "bias")}
    computed = any(isinstance(given.get(name), fx.Node) and value is None for name, value in tensors.items())
    mean, variance, eps = tensors["running_mean"], tensors["running_var"], given["eps"]
    if mean is None or variance is None or computed or given["training"] is not False or not isinstance(eps, float):
        return None
    factors = batchnorm_factors(mean, variance, tensors["weight"], tensors["bias"], eps)
    return operation_name(node.target), factors


def _constant(module: fx.GraphModule, value: Any) -> Tensor | None:
    """The parameter or buffer that an argument is; None if it is none."""
    found = attribute(module, str(value.target)) if isinstance(value, fx.Node) and value.op == "get_attr" else None
    return found if isinstance(found, Tensor) else None


def _put_module(module: fx.GraphModule, node: fx.Node, layer: nn.Module) -> None:
    """Let `node` call `layer`; in place of a function, under the function's name in reports."""
    if node.op == "call_module":
        module.set_submodule(str(node.target), layer)
        return
    label, count = node_label(module, node), 1
    name = label
    while _has(module, name):
        count += 1
        name = f"{label}_{count}"
    module.add_submodule(name, layer)
    node.op, node.target = "call_module", name


def _has(module: fx.GraphModule, target: str) -> bool:
    try:
        attribute(module, target)
    except AttributeError:
        return False
    return True


def _absorbs(module: fx.GraphModule, before: fx.Node, record: Record) -> bool:
    if before.op != "call_module" or before.meta.get(LEAF) or len(before.users) != 1:
        return False
    layer = module.get_submodule(str(before.target))
    if isinstance(layer, nn.Linear):
        # For [N, ..., F], BatchNorm works on dimension 1, which is not the layer's output dimension.
        found = record[before]
        return isinstance(found, TensorRecord) and len(found.shape) == 2
    return isinstance(layer, _ConvNd)


def remove_unused(module: fx.GraphModule) -> None:
    """Remove calls whose result is never read, and modules that are no longer called."""
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.graph.lint()
    module.recompile()
