"""Convolutions, linear layers and pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from sj_ann2snn import NodeDescription, OperationDescription

from .drawing import NoFormError
from .work import Work, array, label_of, plain_name

__all__ = [
    "adaptive_pool",
    "average_pool",
    "convolution",
    "cumulative_max",
    "cumulative_max_pool",
    "each",
    "linear",
    "max_pool",
    "momentum_max_pool",
    "padding_of",
    "sum_pool",
    "transposed",
]


def each(value: Any, count: int) -> list[int]:
    """A number for every dimension.

    >>> each(2, 3), each((1, 2), 2)
    ([2, 2, 2], [1, 2])
    """
    found = [value] * count if isinstance(value, int) else list(value)
    return [int(one) for one in (found * count if len(found) == 1 else found)]


def padding_of(options: Any, spatial: int) -> tuple[list[int], list[int]]:
    """What a convolution adds before and behind an image in each dimension.

    >>> padding_of({"padding": "same", "kernel_size": (4,), "dilation": (1,)}, 1), padding_of({"padding": (1,)}, 1)
    (([1], [2]), ([1], [1]))
    """
    if options["padding"] == "valid":
        return [0] * spatial, [0] * spatial
    if options["padding"] != "same":
        return each(options["padding"], spatial), each(options["padding"], spatial)
    kernel, dilation = (each(options[key], spatial) for key in ("kernel_size", "dilation"))
    total = [apart * (width - 1) for apart, width in zip(dilation, kernel, strict=True)]
    return [one // 2 for one in total], [one - one // 2 for one in total]


def weights(work: Work, node: NodeDescription) -> list[str]:
    """The names of weight and bias."""
    label = label_of(node)
    return [
        work.drawing.weight(f"{label}.{key}", array(node.tensors[key], key)) for key in ("weight", "bias")
        if node.tensors.get(key) is not None
    ]  # fmt: skip


def linear(work: Work, node: NodeDescription) -> str:
    label, drawing = label_of(node), work.drawing
    given = work.input_of(node)
    if len(work.shape_of_input(node)) == 2:
        return drawing.put("Gemm", [given, *weights(work, node)], label, transB=1)
    turned = drawing.weight(f"{label}.weight", array(node.tensors["weight"], "weight").T)
    if node.tensors.get("bias") is None:
        return drawing.put("MatMul", [given, turned], label)
    product = drawing.put("MatMul", [given, turned], f"{label}.product")
    return drawing.put("Add", [product, drawing.weight(f"{label}.bias", array(node.tensors["bias"], "bias"))], label)


def convolution(work: Work, node: NodeDescription) -> str:
    spatial = node.tensors["weight"].dim() - 2
    options = node.options
    kernel, stride, dilation = (each(options[key], spatial) for key in ("kernel_size", "stride", "dilation"))
    before, after = padding_of(options, spatial)
    given = work.input_of(node)
    if options["padding_mode"] != "zeros":
        sizes = work.shape_of_input(node)[2:]
        given = padded(work, given, label_of(node), sizes, before, after, options["padding_mode"])
        before = after = [0] * spatial
    return work.drawing.put(
        "Conv",
        [given, *weights(work, node)],
        label_of(node),
        kernel_shape=kernel,
        strides=stride,
        dilations=dilation,
        pads=[*before, *after],
        group=options["groups"],
    )


def padded(
    work: Work, given: str, label: str, sizes: Sequence[int], before: Sequence[int], after: Sequence[int], mode: str
) -> str:
    """An image with a border of its own elements."""
    for axis, (size, left, right) in enumerate(zip(sizes, before, after, strict=True)):
        line = torch.arange(size, dtype=torch.float64).reshape(1, 1, size)
        places = F.pad(line, (left, right), mode=mode).long().flatten().numpy()
        index = work.drawing.integers(f"{label}.border", places)
        given = work.drawing.put("Gather", [given, index], f"{label}.padded", axis=axis + 2)
    return given


def transposed(work: Work, node: NodeDescription) -> str:
    options, spatial = node.options, node.tensors["weight"].dim() - 2
    padding = each(options["padding"], spatial)
    return work.drawing.put(
        "ConvTranspose",
        [work.input_of(node), *weights(work, node)],
        label_of(node),
        kernel_shape=each(options["kernel_size"], spatial),
        strides=each(options["stride"], spatial),
        dilations=each(options["dilation"], spatial),
        pads=[*padding, *padding],
        output_padding=each(options["output_padding"], spatial),
        group=options["groups"],
    )


class Window:
    """The geometry of a pool, from the sizes of its input and its result.

    Args:
        sizes: Of the input.
        results: Of the result.
        options: `kernel_size`, `stride`, `padding`, and `dilation` if it has one.
    """

    def __init__(self, sizes: Sequence[int], results: Sequence[int], options: Any) -> None:
        count = len(sizes)
        self.kernel = each(options["kernel_size"], count)
        stride = options.get("stride")
        self.stride = self.kernel if stride is None or stride == () else each(stride, count)
        self.before = each(options.get("padding", 0), count)
        self.dilation = each(options.get("dilation", 1), count)
        # What torch's ceil_mode adds behind the image is padding in ONNX, where every window must fit.
        reach = [
            (result - 1) * step + apart * (width - 1) + 1 - size - first
            for result, step, apart, width, size, first in zip(
                results, self.stride, self.dilation, self.kernel, sizes, self.before, strict=True
            )
        ]
        self.after = [max(first, more) for first, more in zip(self.before, reach, strict=True)]
        self.wider = self.after != self.before

    def attributes(self) -> dict[str, list[int]]:
        return {"kernel_shape": self.kernel, "strides": self.stride, "pads": [*self.before, *self.after]}


def window_of(work: Work, node: NodeDescription, options: Any) -> Window:
    sizes, results = work.shape_of_input(node), work.shape(node.name)
    spatial = options.get("spatial", len(sizes) - 2)
    return Window(sizes[-spatial:], results[-spatial:], options)


def pool_options(work: Work, node: NodeDescription, names: Sequence[str]) -> dict[str, Any]:
    """The options of a pool, a layer or a function."""
    if node.kind == "layer":
        return dict(node.options)
    found = {key: work.argument(node, place, key) for place, key in enumerate(names, 1)}
    return {key: value for key, value in found.items() if value is not None}


def average_pool(work: Work, node: NodeDescription) -> str:
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    options = pool_options(work, node, names)
    window, label, given = window_of(work, node, options), label_of(node), work.input_of(node)
    if not window.wider and options.get("divisor_override") is None:
        inside = int(bool(options.get("count_include_pad", True)))
        return work.drawing.put("AveragePool", [given], label, **window.attributes(), count_include_pad=inside)
    # Sums over the windows, each divided by what torch divides by.
    sizes = work.shape_of_input(node)[1:]
    ones = work.called(node, torch.ones(1, *sizes, dtype=torch.float64))
    counts = sums_of(torch.ones(1, *sizes, dtype=torch.float64), window)
    sums = windowed_sum(work, given, label, sizes[0], window)
    divisor = work.drawing.number(f"{label}.divisor", (counts / ones).round()[0].numpy())
    return work.drawing.put("Div", [sums, divisor], label)


def sums_of(x: torch.Tensor, window: Window) -> torch.Tensor:
    """The sums over windows of one sample, by torch."""
    around = [side for first, last in zip(reversed(window.before), reversed(window.after), strict=True) for side in (first, last)]  # noqa: E501  # fmt: skip
    kernel = torch.ones(x.shape[1], 1, *window.kernel, dtype=x.dtype)
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(window.kernel)]
    return convolve(F.pad(x, around), kernel, stride=window.stride, groups=x.shape[1])


def windowed_sum(work: Work, given: str, label: str, channels: int, window: Window) -> str:
    ones = work.drawing.number(f"{label}.ones", np.ones((channels, 1, *window.kernel)))
    return work.drawing.put("Conv", [given, ones], f"{label}.sum", **window.attributes(), group=channels)


def sum_pool(work: Work, node: NodeDescription) -> str:
    window = window_of(work, node, node.options)
    return windowed_sum(work, work.input_of(node), label_of(node), work.shape_of_input(node)[1], window)


def adaptive_pool(work: Work, node: NodeDescription) -> str:
    """An average over parts of the image."""
    sizes, results = work.shape_of_input(node), work.shape(node.name)
    kernel = even_parts(sizes[2:], results[2:], plain_name(node))
    return work.drawing.put("AveragePool", [work.input_of(node)], label_of(node), kernel_shape=kernel, strides=kernel)


def even_parts(sizes: Sequence[int], results: Sequence[int], what: str) -> list[int]:
    if any(size % result for size, result in zip(sizes, results, strict=True)):
        raise NoFormError(
            f"{what} from {list(sizes)} to {list(results)} has windows of several sizes. Choose sizes that divide, or "
            "a pool with a kernel size"
        )
    return [size // result for size, result in zip(sizes, results, strict=True)]


def max_pool(work: Work, node: NodeDescription) -> str:
    """A maximum of currents, without memory."""
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    window = window_of(work, node, pool_options(work, node, names))
    return largest(work, work.input_of(node), label_of(node), window)


def largest(work: Work, given: str, name: str, window: Window) -> str:
    return work.drawing.put("MaxPool", [given], name, **window.attributes(), dilations=window.dilation)


def cumulative_max_pool(work: Work, node: NodeDescription) -> str:
    window = window_of(work, node, node.options)
    return growth(work, node, lambda total, name: largest(work, total, name, window))


def cumulative_max(work: Work, node: NodeDescription) -> str:
    inner = node.options["maximum"]
    sizes, results = work.shape_of_input(node), work.shape(node.name)
    if not isinstance(inner, OperationDescription) or not inner.operation.startswith("AdaptiveMaxPool"):
        what = inner.operation if isinstance(inner, OperationDescription) else repr(inner)
        raise NoFormError(f"it takes maxima by {what}, which has no form in ONNX here")
    kernel = even_parts(sizes[2:], results[2:], inner.operation)
    window = Window(sizes[2:], results[2:], {"kernel_size": kernel})
    return growth(work, node, lambda total, name: largest(work, total, name, window))


def growth(work: Work, node: NodeDescription, maximum: Any) -> str:
    """The growth of the largest sum over time."""
    label, drawing = label_of(node), work.drawing
    cumulative = drawing.state(f"{label}.cumulative", work.shape_of_input(node))
    emitted = drawing.state(f"{label}.emitted", work.shape(node.name))
    total = drawing.put("Add", [cumulative, work.input_of(node)], f"{label}.total")
    now = maximum(total, f"{label}.largest")
    drawing.next(cumulative, total)
    drawing.next(emitted, now)
    return drawing.put("Sub", [now, emitted], label)


def momentum_max_pool(work: Work, node: NodeDescription) -> str:
    """What the input with the largest rate emits."""
    label, drawing, given = label_of(node), work.drawing, work.input_of(node)
    momentum, window = node.options["momentum"], window_of(work, node, node.options)
    rate = drawing.state(f"{label}.rate", work.shape_of_input(node))
    old = drawing.put("Mul", [rate, drawing.number(f"{label}.momentum", momentum)], f"{label}.old")
    new = drawing.put("Mul", [given, drawing.number(f"{label}.growth", 1 - momentum)], f"{label}.new")
    now = drawing.put("Add", [old, new], f"{label}.now")
    drawing.next(rate, now)
    names = (f"{label}.largest", f"{label}.index")
    _, index = drawing.put_several("MaxPool", [now], names, **window.attributes(), dilations=window.dilation)
    flat = drawing.put("Reshape", [given, drawing.integers(f"{label}.flat_shape", [-1])], f"{label}.flat")
    return drawing.put("Gather", [flat, index], label)  # MaxPool counts through the whole batch
