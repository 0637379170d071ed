"""Arithmetic with constants that a layer before it can take into its weights: BatchNorm written by hand."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from .naming import attribute
from .records import Record, TensorRecord

__all__ = ["channel_arithmetic"]

_PRODUCTS = frozenset({operator.mul, torch.mul, torch.multiply, "mul", "multiply"})
_QUOTIENTS = frozenset({operator.truediv, torch.div, torch.divide, torch.true_divide, "div", "divide", "true_divide"})
_SUMS = frozenset({operator.add, torch.add, "add"})
_DIFFERENCES = frozenset({operator.sub, torch.sub, torch.subtract, "sub", "subtract"})


def channel_arithmetic(module: fx.GraphModule, node: fx.Node, record: Record) -> tuple[fx.Node, Tensor, Tensor] | None:
    """The layer's call, the factor and the shift per channel that `node` applies to it; None for anything else.

    Args:
        module: Traced, with constants folded.
        node: A call in it.
        record: What the nodes yield.
    """
    if node.op not in ("call_function", "call_method") or node.kwargs or len(node.args) != 2:
        return None
    first, second = node.args
    reverse = not _is_layer(first)
    before, other = (second, first) if reverse else (first, second)
    if not isinstance(before, fx.Node) or not _is_layer(before):
        return None
    value = _constant(module, other)
    found, made = record[before], record[node]
    if value is None or not isinstance(found, TensorRecord) or not isinstance(made, TensorRecord):
        return None
    if made.shape != found.shape:
        return None
    layer = module.get_submodule(str(before.target))
    channels = _per_channel(value, found.shape, -1 if isinstance(layer, nn.Linear) else 1)
    if channels is None:
        return None
    factor, shift = torch.ones_like(channels), torch.zeros_like(channels)
    if node.target in _PRODUCTS:
        factor = channels
    elif node.target in _QUOTIENTS and not reverse:
        factor = 1 / channels
    elif node.target in _SUMS:
        shift = channels
    elif node.target in _DIFFERENCES:
        factor, shift = (-factor, channels) if reverse else (factor, -channels)
    else:
        return None
    return (before, factor, shift) if factor.isfinite().all() and shift.isfinite().all() else None


def _is_layer(value: Any) -> bool:
    return isinstance(value, fx.Node) and value.op == "call_module"


def _constant(module: fx.GraphModule, value: Any) -> Tensor | None:
    if isinstance(value, fx.Node):
        value = attribute(module, str(value.target)) if value.op == "get_attr" else None
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        value = torch.tensor(float(value), dtype=torch.float64)
    return value.detach().double() if isinstance(value, Tensor) and value.is_floating_point() else None


def _per_channel(value: Tensor, shape: Sequence[int], axis: int) -> Tensor | None:
    """One value per channel, if `value` differs in nothing else and there is a dimension of channels."""
    if value.dim() > len(shape) or not -len(shape) <= axis < len(shape):
        return None
    spread = value.reshape((1,) * (len(shape) - value.dim()) + value.shape)
    if spread.numel() != spread.shape[axis]:
        return None
    return spread.reshape(-1).expand(shape[axis]).clone()
