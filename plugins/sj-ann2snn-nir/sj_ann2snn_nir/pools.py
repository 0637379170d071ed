"""Average pools."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from sj_ann2snn import NodeDescription

from .drawing import Drawing
from .shapes import flat
from .signals import NoNodeError, Signal
from .windows import Window, diagonal, pair, sizes_behind, square

__all__ = ["adaptive_pool", "mean", "pool"]


def pool(work: Drawing, node: NodeDescription) -> Signal:
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    named = {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs, **node.options}
    kernel = pair(named["kernel_size"])
    window = Window(kernel, pair(named.get("stride") or kernel), pair(named.get("padding", 0)))
    value = work.input_of(node)
    if len(value.held) != 3:
        raise NoNodeError(f"it pools samples of the shape {value.shape}; the node takes channels x height x width")
    if any(window.padding) and not named.get("count_include_pad", True):
        raise NoNodeError("it divides by the number of pixels without the padding, which differs from place to place")
    if named.get("ceil_mode") and any(
        (size - k) % s for size, k, s in zip(value.held[1:], kernel, window.stride, strict=True)
    ):
        raise NoNodeError("with ceil_mode, its last windows are cut, for which NIR has no node")
    return _pool(work, node, window, named.get("divisor_override") or math.prod(kernel), value)


def adaptive_pool(work: Drawing, node: NodeDescription) -> Signal:
    value = work.input_of(node)
    given = node.options.get("output_size", node.args[1] if len(node.args) > 1 else node.kwargs.get("output_size"))
    sizes = [size if one is None else one for one, size in zip(pair(given), value.held[1:], strict=True)]
    if len(value.held) != 3 or any(size % one for size, one in zip(value.held[1:], sizes, strict=True)):
        raise NoNodeError(f"its windows have several sizes for samples of the shape {value.shape}")
    kernel = pair([size // one for size, one in zip(value.held[1:], sizes, strict=True)])
    return _pool(work, node, Window(kernel, kernel), math.prod(kernel), value)


def mean(work: Drawing, node: NodeDescription) -> Signal:
    value = work.input_of(node)
    named = {**dict(zip(("dim", "keepdim"), node.args[1:], strict=False)), **node.kwargs}
    dims = named.get("dim")
    over = sorted(d % 4 for d in dims) if isinstance(dims, (tuple, list)) else []
    if len(value.held) != 3 or over != [2, 3]:
        raise NoNodeError("it takes a mean over other dimensions than height and width")
    kernel = pair(value.held[1:])
    pooled = _pool(work, node, Window(kernel, kernel), math.prod(kernel), value)
    return pooled if named.get("keepdim") else flat(work, node, pooled)


def _pool(work: Drawing, node: NodeDescription, window: Window, divisor: int, value: Signal) -> Signal:
    value = work.waiting(value)
    label = node.label or node.name
    if math.prod(window.kernel) == 1 and max(window.stride) == 1:
        return replace(value, factor=value.factor / divisor)
    factor = value.factor / divisor
    average = work.reader.pools == "average"
    if math.log2(divisor) % 1 and not average:
        work.notes.append(
            f"{label}: the next weights are divided by {divisor}, which is no power of two, so their last bits "
            "change and spikes may move by a step."
        )
    name = work.name(label)
    if any(window.padding):  # readers ignore the padding of a pool
        ones = diagonal(np.ones(value.held[0], np.float32), 2)
        weight = np.repeat(np.repeat(ones, window.kernel[0], 2), window.kernel[1], 3)
        made = square(weight, window)
        if made is None:
            raise NoNodeError(f"it pads windows of {window.kernel}; NIR 1.0.8 lacks pools with padding in readers")
        bias = np.zeros(value.held[0], np.float32)
        done = work.convolve(name, {"weight": made[0], "bias": bias}, made[1], value, label=label)
        return replace(done, factor=factor)
    after = sizes_behind(window, value.held[1:])
    kernel, stride, padding = (np.array(one) for one in (window.kernel, window.stride, window.padding))
    arguments = {"kernel_size": kernel, "stride": stride, "padding": padding}
    work.put(name, "AvgPool2d" if average else "SumPool2d", arguments, value, label=label)
    shape = (value.held[0], *after)
    return Signal((name,), shape, shape, factor * (math.prod(window.kernel) if average else 1))
