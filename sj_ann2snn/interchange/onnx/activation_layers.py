"""Operators that work on every element by itself, and normalizations without weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import operation
from .call import Call, Made
from .library import Unreadable, tensor
from .operation import VARIES, Operation

__all__ = ["ACTIVATION_LAYERS"]


def _identity(call: Call) -> Made:
    if call.node.operator == "Dropout":
        training = call.constant(2)
        if call.varies(2) or (training is not None and bool(training)):
            raise Unreadable(
                "it drops values at random, as in training",
                "Export the network in eval mode (network.eval(), training=TrainingMode.EVAL)",
            )
        if any(call.node.outputs[1:]) or call.varies(1):
            return None
    return nn.Identity()


def _clip(call: Call) -> Made:
    if call.varies(1) or call.varies(2):
        raise Unreadable("its bounds are computed from the network's inputs", "Clip at constants, as in ReLU6")
    low, high = (
        call.attribute(name) if value is None else float(value.reshape(()))
        for name, value in (("min", call.constant(1)), ("max", call.constant(2)))
    )
    if low == 0 and (high is None or high >= float(np.finfo(np.float32).max)):
        return nn.ReLU()
    if (low, high) == (0, 6):
        return nn.ReLU6()
    if low is None and high is None:
        return nn.Identity()
    return Operation(partial(torch.clamp, min=low, max=high), [VARIES])


def _extremum(call: Call) -> Made:
    """Max and Min; the maximum with zero is a ReLU."""
    if call.count == 2 and call.node.operator == "Max":
        fixed = [value for value in (call.constant(0), call.constant(1)) if value is not None]
        if len(fixed) == 1 and fixed[0].size == 1 and not fixed[0].any():
            return nn.ReLU()
    return _folded(torch.maximum if call.node.operator == "Max" else torch.minimum)(call)


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Call], Made]:
    def make(call: Call) -> Made:
        arguments = [call.argument(position) for position in range(call.count)]
        if call.count == 1:
            return nn.Identity()
        return Operation(function if call.count == 2 else partial(operation.fold, function), arguments)

    return make


def _mean(call: Call) -> Made:
    return Operation(operation.mean, [call.argument(position) for position in range(call.count)])


def _softmax(call: Call) -> Made:
    new = call.graph.opset >= 13
    axis, rank = call.attribute("axis", -1 if new else 1), call.graph.rank(call.name(0))
    if not new and (rank is None or axis % rank != rank - 1):
        return None  # older files flatten everything behind the axis
    return (nn.LogSoftmax if call.node.operator == "LogSoftmax" else nn.Softmax)(axis)


def _local_response(call: Call) -> Made:
    size, factor = call.attribute("size"), call.attribute("alpha", 1e-4)
    return nn.LocalResponseNorm(size, factor, call.attribute("beta", 0.75), call.attribute("bias", 1.0))


def _prelu(call: Call) -> Made:
    slope, rank = call.constant(1), call.graph.rank(call.name(0))
    if slope is None:
        raise Unreadable("its slope is computed from the network's inputs", "Use a fixed slope")
    if slope.size == 1:
        return _with_slope(slope)
    if rank is None or slope.ndim > rank:
        return None
    sizes = (1,) * (rank - slope.ndim) + slope.shape
    return _with_slope(slope) if sizes[1] == slope.size else None


def _with_slope(slope: np.ndarray[Any, Any]) -> nn.Module:
    layer = nn.PReLU(slope.size)
    layer.weight = nn.Parameter(tensor(slope.reshape(-1)))
    return layer


def _arithmetic(function: Callable[..., Tensor]) -> Callable[[Call], Made]:
    def make(call: Call) -> Made:
        if call.attribute("broadcast"):
            return None  # of opsets below 7
        return Operation(function, [call.argument(0), call.argument(1)])

    return make


ACTIVATION_LAYERS: dict[str, Callable[[Call], Made]] = {
    "Add": _arithmetic(torch.add),
    "Clip": _clip,
    "Dropout": _identity,
    "Identity": _identity,
    "LRN": _local_response,
    "LogSoftmax": _softmax,
    "Max": _extremum,
    "Mean": _mean,
    "Min": _extremum,
    "Mul": _arithmetic(torch.mul),
    "PRelu": _prelu,
    "Softmax": _softmax,
    "Sub": _arithmetic(torch.sub),
    "Sum": _folded(torch.add),
}
