"""Operators that become a layer of torch, or a function of torch with fixed arguments.

onnx2pytorch computes most of these in Python when the network runs, which torch.fx would have to follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import operation
from .library import Unreadable, tensor
from .model import Graph, Node
from .operation import VARIES, Operation

__all__ = ["plain_layer"]

_LINEAR = ("pytorch_half_pixel", "align_corners")
"""Coordinates of ONNX that torch has for larger outputs."""

_BATCHNORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}

Made = nn.Module | None


class _Call:
    """What a node is called with."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph, self.node = graph, node
        self.count = len(node.inputs)

    def name(self, position: int) -> str:
        return self.node.inputs[position] if position < self.count else ""

    def constant(self, position: int) -> np.ndarray[Any, Any] | None:
        return self.graph.constants.get(self.name(position))

    def is_given(self, position: int) -> bool:
        return bool(self.name(position))

    def varies(self, position: int) -> bool:
        return self.is_given(position) and self.constant(position) is None

    def argument(self, position: int) -> Any:
        """An argument for `Operation`."""
        value = self.constant(position)
        return tensor(value) if value is not None else VARIES if self.is_given(position) else None

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.node.attributes.get(name, default)

    def ints(self, position: int, attribute: str) -> list[int] | None:
        """Integers that newer files have as an input and older ones as an attribute; None if absent.

        Raises:
            _Varies: They are computed from the network's inputs.
        """
        if self.varies(position):
            raise _Varies
        value = self.constant(position)
        found = self.attribute(attribute) if value is None else value.reshape(-1).tolist()
        return None if found is None else [int(one) for one in found]

    def axes(self, given: Sequence[int]) -> list[int]:
        """Dimensions of the first input, counted from the front.

        Raises:
            _Varies: Some are counted from the end, and the number of dimensions is not known.
        """
        rank = self.graph.rank(self.name(0))
        if rank is None and any(axis < 0 for axis in given):
            raise _Varies
        return [axis if axis >= 0 else axis + (rank or 0) for axis in given]

    def shape(self, position: int) -> tuple[int | str | None, ...] | None:
        return self.graph.shapes.get(self.name(position))


class _Varies(Exception):  # noqa: N818 - leads to another way of reading the node
    """An argument that torch needs beforehand is computed when the network runs."""


def plain_layer(graph: Graph, node: Node) -> Made:
    """The layer that a node becomes; None for nodes that the library reads.

    Raises:
        Unreadable: It cannot be read at all.
    """
    make = _PLAIN.get(node.operator)
    if make is None or node.domain:
        return None
    try:
        return make(_Call(graph, node))
    except _Varies:
        return None


# -- layers with weights


def _needs_weights(call: _Call) -> Made:
    """Convolutions, which the library reads if their weights are constants."""
    if call.varies(1) or call.varies(2):
        raise Unreadable("its weights are computed from the network's inputs", "A spiking network needs fixed weights")
    weight = call.constant(1)
    kernel = [] if weight is None else list(weight.shape[2:])
    attributes = call.node.attributes
    found = attributes.get("auto_pad", "NOTSET")
    if found == "VALID":
        attributes.pop("auto_pad")
        attributes["pads"] = [0] * 2 * len(kernel)
    elif found in ("SAME_UPPER", "SAME_LOWER") and call.node.operator == "Conv":
        pads = _same_pads(call, kernel)
        if pads is not None:
            attributes.pop("auto_pad")
            attributes["pads"] = pads
    return None


def _same_pads(call: _Call, kernel: Sequence[int]) -> list[int] | None:
    """The pads that ``auto_pad`` stands for; None if they depend on the size of the input."""
    spatial = len(kernel)
    strides = call.attribute("strides", [1] * spatial)
    dilations = call.attribute("dilations", [1] * spatial)
    sizes = (call.shape(0) or (None,) * (2 + spatial))[2:]
    before, after = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (width - 1) * dilation + 1
        if stride == 1:
            total = reach - 1
        elif isinstance(size, int):
            total = max(0, (math.ceil(size / stride) - 1) * stride + reach - size)
        else:
            return None
        small, large = total // 2, total - total // 2
        upper = call.attribute("auto_pad") == "SAME_UPPER"
        before.append(small if upper else large)
        after.append(large if upper else small)
    return before + after


def _batchnorm(call: _Call) -> Made:
    if call.attribute("training_mode", 0) or len([name for name in call.node.outputs[1:] if name]) > 0:
        raise Unreadable(
            "it normalizes by the statistics of the current batch, as in training",
            "Export the network in eval mode (network.eval(), training=TrainingMode.EVAL)",
        )
    values = [call.constant(position) for position in range(1, 5)]
    if any(value is None for value in values):
        raise Unreadable("its statistics are computed from the network's inputs", "Export fixed running statistics")
    scale, shift, mean, variance = (tensor(value) for value in values if value is not None)
    if not call.attribute("spatial", 1) and scale.dim() > 1:
        raise Unreadable("it has statistics per element (spatial=0)", "Export it with statistics per channel")
    rank = call.graph.rank(call.name(0))
    if rank not in _BATCHNORMS:
        raise Unreadable(f"it takes {rank} dimensions", "BatchNorm takes two to five dimensions")
    layer = _BATCHNORMS[rank](len(mean), eps=call.attribute("epsilon", 1e-5))
    layer.weight, layer.bias = nn.Parameter(scale), nn.Parameter(shift)
    layer.running_mean, layer.running_var = mean, variance
    return layer


def _instancenorm(call: _Call) -> Made:
    if call.varies(1) or call.varies(2):
        raise Unreadable("its scale is computed from the network's inputs", "Export it with a fixed scale")
    return None


def _gemm(call: _Call) -> Made:
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    flip = (bool(call.attribute("transA", 0)), bool(call.attribute("transB", 0)))
    matrix, bias = call.constant(1), call.constant(2)
    if call.varies(0) and not flip[0] and matrix is not None and not call.varies(2):
        weight = tensor(matrix if flip[1] else matrix.T) * alpha
        if bias is None:
            return _linear(weight, None)
        if bias.size in (1, len(weight)) and bias.shape[:-1] in ((), (1,)):
            return _linear(weight, tensor(bias).reshape(-1).expand(len(weight)).clone() * beta)
    arguments = [call.argument(position) for position in range(3)]
    return Operation(operation.gemm, [*arguments, alpha, beta, flip])


def _matmul(call: _Call) -> Made:
    matrix = call.constant(1)
    if call.varies(0) and matrix is not None and matrix.ndim == 2:
        return _linear(tensor(matrix.T), None)
    return Operation(torch.matmul, [call.argument(0), call.argument(1)])


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer


# -- activations


def _identity(call: _Call) -> Made:
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


def _clip(call: _Call) -> Made:
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


def _extremum(call: _Call) -> Made:
    """Max and Min; the maximum with zero is a ReLU."""
    if call.count == 2 and call.node.operator == "Max":
        fixed = [value for value in (call.constant(0), call.constant(1)) if value is not None]
        if len(fixed) == 1 and fixed[0].size == 1 and not fixed[0].any():
            return nn.ReLU()
    if call.count > 2:
        return None
    function = torch.maximum if call.node.operator == "Max" else torch.minimum
    return (
        Operation(function, [call.argument(position) for position in range(call.count)])
        if call.count > 1
        else nn.Identity()
    )


def _softmax(call: _Call) -> Made:
    new = call.graph.opset >= 13
    axis, rank = call.attribute("axis", -1 if new else 1), call.graph.rank(call.name(0))
    if not new and (rank is None or axis % rank != rank - 1):
        return None  # older files flatten everything behind the axis
    return (nn.LogSoftmax if call.node.operator == "LogSoftmax" else nn.Softmax)(axis)


def _local_response(call: _Call) -> Made:
    size, factor = call.attribute("size"), call.attribute("alpha", 1e-4)
    return nn.LocalResponseNorm(size, factor, call.attribute("beta", 0.75), call.attribute("bias", 1.0))


def _prelu(call: _Call) -> Made:
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


# -- arithmetic


def _arithmetic(function: Callable[..., Tensor]) -> Callable[[_Call], Made]:
    def make(call: _Call) -> Made:
        if call.attribute("broadcast"):
            return None  # of opsets below 7
        return Operation(function, [call.argument(0), call.argument(1)])

    return make


def _sum(call: _Call) -> Made:
    return Operation(operation.add, [call.argument(position) for position in range(call.count)])


# -- shapes


def _concat(call: _Call) -> Made:
    arguments = [call.argument(position) for position in range(call.count)]
    return Operation(partial(operation.concatenate, call.attribute("axis", 1)), arguments)


def _flatten(call: _Call) -> Made:
    (axis,) = call.axes([call.attribute("axis", 1)])
    return nn.Flatten(1) if axis == 1 else Operation(operation.flatten, [VARIES, axis])


def _reshape(call: _Call) -> Made:
    allow_zero = bool(call.attribute("allowzero", 0))
    sizes = call.ints(1, "shape")
    if sizes is None:
        return None
    if sizes == [0, -1] and not allow_zero:
        return nn.Flatten(1)
    return Operation(operation.reshape, [VARIES, tuple(sizes), allow_zero])


def _pad(call: _Call) -> Made:
    mode = call.attribute("mode", "constant")
    pads, axes, value = call.ints(1, "pads"), call.ints(3, "axes"), call.constant(2)
    rank = call.graph.rank(call.name(0))
    if pads is None or call.varies(2) or mode not in ("constant", "edge", "reflect", "wrap"):
        return None
    if axes is None and rank is None:
        axes = list(range(len(pads) // 2))
    axes = call.axes(list(range(rank or 0)) if axes is None else axes)
    sides = [(axis, pads[at], pads[len(axes) + at]) for at, axis in enumerate(axes)]
    around = [side for side in sides if side[1:] != (0, 0)]
    if not around:
        return nn.Identity()
    if mode != "constant":
        return _pad_with_input(around, mode)
    if rank is None:
        return None
    filling = float(call.attribute("value", 0.0)) if value is None else float(value.reshape(-1)[0])
    first = min(axis for axis, _, _ in around)
    given = {axis: (before, behind) for axis, before, behind in around}
    spread = [size for axis in range(rank - 1, first - 1, -1) for size in given.get(axis, (0, 0))]
    return Operation(partial(F.pad, pad=spread, value=filling), [VARIES])


def _pad_with_input(around: Sequence[tuple[int, int, int]], mode: str) -> Made:
    if any(axis == 0 for axis, _, _ in around):
        raise Unreadable("it pads the samples", "Pad what lies behind them")
    torch_mode = {"edge": "replicate", "reflect": "reflect", "wrap": "circular"}[mode]
    return Operation(partial(operation.pad, pads=tuple(around), mode=torch_mode), [VARIES])


def _slice(call: _Call) -> Made:
    starts, ends = call.ints(1, "starts"), call.ints(2, "ends")
    axes, steps = call.ints(3, "axes"), call.ints(4, "steps")
    if starts is None or ends is None:
        return None
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    parts = zip(call.axes(axes), starts, ends, steps, strict=True)
    return Operation(operation.cut, [VARIES, tuple(parts)])


def _gather(call: _Call) -> Made:
    indices, axis = call.constant(1), call.attribute("axis", 0)
    size = call.shape(0)
    if indices is None or size is None:
        return None
    here = size[axis]
    if (indices < 0).any():
        if not isinstance(here, int):
            return None
        indices = np.where(indices < 0, indices + here, indices)
    return Operation(operation.gather, [VARIES, axis % len(size), tensor(indices)])


def _split(call: _Call) -> Made:
    axis, sizes = call.attribute("axis", 0), call.ints(1, "split")
    if sizes is None:
        shape, count = call.shape(0), len(call.node.outputs)
        size = None if shape is None else shape[axis]
        if not isinstance(size, int):
            return None
        part = math.ceil(size / count)
        sizes = [min(part, size - part * index) for index in range(count)]
    return Operation(partial(torch.split, split_size_or_sections=sizes, dim=axis), [VARIES])


def _resize(call: _Call) -> Made:
    old = call.node.operator == "Upsample" or call.graph.opset < 11
    scales = call.constant(1 if old else 2)
    scales = np.asarray(call.attribute("scales")) if scales is None and call.attribute("scales") else scales
    sizes = None if old else call.constant(3)
    shape = call.shape(0)
    if call.varies(1 if old else 2) or (not old and call.varies(3)) or shape is None:
        raise Unreadable("the size of its output is computed from the network's inputs", "Export it with fixed scales")
    if call.attribute("axes") is not None or call.attribute("antialias") or call.attribute("exclude_outside"):
        raise Unreadable(
            "torch cannot resize with these attributes", "Export it without axes, antialias and exclude_outside"
        )
    mode, place = call.attribute("mode", "nearest"), call.attribute("coordinate_transformation_mode", "half_pixel")
    place = "asymmetric" if old else place
    if scales is not None and scales.size:
        whole = [float(one) for one in scales]
    elif sizes is not None and sizes.size and all(isinstance(one, int) for one in shape[2:]):
        whole = [1.0, 1.0, *(int(to) / int(of or 1) for to, of in zip(sizes[2:], shape[2:], strict=True))]
    else:
        raise Unreadable("it has neither scales nor sizes for inputs of a known size", "Export it with fixed scales")
    if whole[:2] != [1, 1]:
        raise Unreadable("it changes the number of samples or channels", "Resize only what lies behind them")
    return _interpolation(call, mode, place, whole[2:], old)


def _interpolation(call: _Call, mode: str, place: str, factors: list[float], old: bool) -> nn.Module:
    exact = all(factor == int(factor) >= 1 for factor in factors)
    if mode == "nearest":
        rounding = call.attribute("nearest_mode", "floor" if old else "round_prefer_floor")
        centred = place in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")
        if (place == "asymmetric" and rounding == "floor") or (centred and rounding.startswith("round") and exact):
            return Operation(partial(F.interpolate, scale_factor=factors, mode="nearest"), [VARIES])
        raise Unreadable(
            f"torch has no nearest-neighbour interpolation with {place} and {rounding} by {factors}",
            "Export it with whole factors, or with asymmetric and floor",
        )
    names = {1: "linear", 2: "bilinear", 3: "trilinear"}
    larger = min(factors) >= 1
    if mode == "linear" and len(factors) in names and (place == "half_pixel" or (place in _LINEAR and larger)):
        corners = place == "align_corners"
        resize = partial(F.interpolate, scale_factor=factors, mode=names[len(factors)], align_corners=corners)
        return Operation(resize, [VARIES])
    raise Unreadable(f"torch has no such interpolation ({mode}, {place})", "Export it as nearest or linear, half_pixel")


_PLAIN: dict[str, Callable[[_Call], Made]] = {
    "Add": _arithmetic(torch.add),
    "BatchNormalization": _batchnorm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _needs_weights,
    "ConvTranspose": _needs_weights,
    "Dropout": _identity,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "Identity": _identity,
    "InstanceNormalization": _instancenorm,
    "LRN": _local_response,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "Max": _extremum,
    "Min": _extremum,
    "Mul": _arithmetic(torch.mul),
    "PRelu": _prelu,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sub": _arithmetic(torch.sub),
    "Sum": _sum,
    "Upsample": _resize,
}
