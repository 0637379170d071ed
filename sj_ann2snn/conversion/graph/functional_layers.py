"""Turns functional layers with constant weights into layers, so that everything known about layers holds for them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from .canonical import ORIGIN
from .naming import attribute, node_label, operation_name
from .records import Record, TensorRecord

__all__ = ["functional_to_layers"]

_CONVS: dict[Any, tuple[type[nn.Module], tuple[str, ...]]] = {
    F.conv1d: (nn.Conv1d, ("stride", "padding", "dilation", "groups")),
    F.conv2d: (nn.Conv2d, ("stride", "padding", "dilation", "groups")),
    F.conv3d: (nn.Conv3d, ("stride", "padding", "dilation", "groups")),
    F.conv_transpose1d: (nn.ConvTranspose1d, ("stride", "padding", "output_padding", "groups", "dilation")),
    F.conv_transpose2d: (nn.ConvTranspose2d, ("stride", "padding", "output_padding", "groups", "dilation")),
    F.conv_transpose3d: (nn.ConvTranspose3d, ("stride", "padding", "output_padding", "groups", "dilation")),
}

_BATCHNORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}

_BATCHNORM_ARGUMENTS = {
    F.batch_norm: ("running_mean", "running_var", "weight", "bias"),
    torch.batch_norm: ("weight", "bias", "running_mean", "running_var"),
}
"""Arguments between the input and `training`, in order."""

_SUMS = (torch.addmm, "addmm")

_PRODUCTS = (operator.matmul, torch.matmul, torch.mm, "matmul", "mm")


def functional_to_layers(module: fx.GraphModule, record: Record) -> None:
    """Replace `F.linear`, `F.conv2d`, `F.batch_norm` and products with a constant matrix by layers.

    Args:
        module: Changed in place, with constants folded.
        record: What the nodes yield.
    """
    labels = {node: node_label(module, node) for node in module.graph.nodes if node.op != "output"}
    for node in list(module.graph.nodes):
        if node.op not in ("call_function", "call_method"):
            continue
        made = _layer(module, node, record)
        if made is None:
            continue
        source, layer = made
        name = base = labels[node].replace("#", "_")
        count = 1
        while _is_taken(module, name):
            count += 1
            name = f"{base}_{count}"
        module.add_submodule(name, layer.eval())
        node.meta[ORIGIN] = operation_name(node.target)
        node.op, node.target, node.args, node.kwargs = "call_module", name, (source,), {}
    module.graph.lint()
    module.recompile()


def _layer(module: fx.GraphModule, node: fx.Node, record: Record) -> tuple[fx.Node, nn.Module] | None:
    """The input of a functional layer, and the layer; None for any other operation."""
    argument = _Arguments(module, node)
    source = argument.input("mat1", 1) if node.target in _SUMS else argument.input("input", 0)
    if source is None:
        return None
    layer: nn.Module | None = None
    if node.target is F.linear:
        layer = _linear(argument("weight", 1), argument("bias", 2))
    elif node.target in _CONVS:
        layer = _convolution(argument, *_CONVS[node.target])
    elif node.target in _BATCHNORM_ARGUMENTS:
        layer = _batchnorm(argument, record[source], _BATCHNORM_ARGUMENTS[node.target])
    elif node.target in _SUMS and not node.kwargs:
        layer = _linear(_transposed(argument("mat2", 2)), argument("input", 0))
    elif node.target in _PRODUCTS:
        matrix = argument("other", 1)
        layer = _linear(_transposed(argument("mat2", 1) if matrix is None else matrix), None)
    return None if layer is None else (source, layer)


class _Arguments:
    """Reads the arguments of a call: constants as tensors, numbers as they are."""

    VARIES = object()

    def __init__(self, module: fx.GraphModule, node: fx.Node) -> None:
        self.module, self.node = module, node

    def _given(self, name: str, position: int, default: Any = None) -> Any:
        return self.node.kwargs.get(name, self.node.args[position] if position < len(self.node.args) else default)

    def __call__(self, name: str, position: int, default: Any = None) -> Any:
        """An argument; `VARIES` if it is not constant."""
        value = self._given(name, position, default)
        if isinstance(value, fx.Node):
            return attribute(self.module, str(value.target)) if value.op == "get_attr" else self.VARIES
        nested = isinstance(value, (tuple, list)) and any(isinstance(one, fx.Node) for one in value)
        return self.VARIES if nested else value

    def input(self, name: str, position: int) -> fx.Node | None:
        """An argument that is not constant; None for a constant."""
        value = self._given(name, position)
        return value if isinstance(value, fx.Node) and value.op != "get_attr" else None


def _linear(weight: Any, bias: Any) -> nn.Module | None:
    if not _is_weight(weight, 2) or not _is_bias(bias):
        return None
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _with_weights(layer, weight, bias)


def _convolution(argument: _Arguments, kind: type[nn.Module], names: tuple[str, ...]) -> nn.Module | None:
    weight, bias = argument("weight", 1), argument("bias", 2)
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "output_padding": 0}
    options = {name: argument(name, 3 + index, defaults[name]) for index, name in enumerate(names)}
    spatial = int(kind.__name__[-2])
    if not _is_weight(weight, spatial + 2) or not _is_bias(bias) or argument.VARIES in options.values():
        return None
    groups = options["groups"]
    channels = (weight.shape[1] * groups, weight.shape[0])
    if "Transpose" in kind.__name__:
        channels = (weight.shape[0], weight.shape[1] * groups)
    options = {name: _spread(value, spatial) for name, value in options.items()}
    make: Callable[..., nn.Module] = kind
    layer = make(*channels, tuple(weight.shape[2:]), bias=bias is not None, device="meta", **options)
    return _with_weights(layer, weight, bias)


def _batchnorm(argument: _Arguments, found: Any, names: tuple[str, ...]) -> nn.Module | None:
    given = {name: argument(name, 1 + index) for index, name in enumerate(names)}
    mean, variance, weight, bias = (given[name] for name in ("running_mean", "running_var", "weight", "bias"))
    training, eps = argument("training", 5, False), argument("eps", 7, 1e-5)
    if training is not False or not (_is_weight(mean, 1) and _is_weight(variance, 1)):
        return None
    if not isinstance(found, TensorRecord) or len(found.shape) not in _BATCHNORMS or not isinstance(eps, float):
        return None
    if not (_is_bias(weight) and _is_bias(bias)):
        return None
    layer = _BATCHNORMS[len(found.shape)](len(mean), eps=eps, affine=weight is not None or bias is not None)
    layer.running_mean, layer.running_var = mean.detach().clone(), variance.detach().clone()
    if layer.affine:
        ones, zeros = torch.ones_like(mean), torch.zeros_like(mean)
        _with_weights(layer, ones if weight is None else weight, zeros if bias is None else bias)
    return layer


def _transposed(value: Any) -> Any:
    return value.t() if isinstance(value, Tensor) and value.dim() == 2 else None


def _is_weight(value: Any, ndim: int) -> bool:
    return isinstance(value, Tensor) and value.dim() == ndim and value.is_floating_point()


def _is_bias(value: Any) -> bool:
    return value is None or _is_weight(value, 1)


def _spread(value: Any, spatial: int) -> Any:
    """One number for all dimensions as a tuple, which is how the layers keep it."""
    if isinstance(value, (tuple, list)):
        return tuple(value) * spatial if len(value) == 1 else tuple(value)
    return value


def _with_weights(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    layer.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(memory_format=torch.contiguous_format), requires_grad=False)
    return layer


def _is_taken(module: nn.Module, name: str) -> bool:
    try:
        attribute(module, name)
    except AttributeError:
        parent = name.rpartition(".")[0]
        return bool(parent) and _is_taken_by_other(module, parent)
    return True


def _is_taken_by_other(module: nn.Module, parent: str) -> bool:
    """True if a part of the name is something that cannot hold modules."""
    place: Any = module
    for part in parent.split("."):
        place = getattr(place, part, None)
        if place is None:
            return False
        if not isinstance(place, nn.Module):
            return True
    return False
