"""Layers with weights."""

from __future__ import annotations

from sj_ann2snn import NodeDescription

from .drawing import Drawing
from .signals import NoNodeError, Signal
from .windows import Window, dense, dilated, square, window_of

__all__ = ["convolution", "linear"]


def linear(work: Drawing, node: NodeDescription) -> Signal:
    value = work.waiting(work.input_of(node))
    weight, bias = node.tensors["weight"], node.tensors.get("bias")
    if len(value.shape) != 1:
        raise NoNodeError(f"NIR's Affine takes vectors, and this linear layer reads samples of the shape {value.shape}")
    work.require_channels(weight.shape[1], value.shape[0], value)
    name = work.name(node.label)
    arrays = work.arrays(name, value.factor, weight, bias)
    outputs = len(weight)
    if len(value.held) == 1:
        work.put(name, "Affine", arrays, value, label=node.label)
        return Signal((name,), (outputs,), (outputs,))
    channels, height, width = value.held
    if height != width:
        raise NoNodeError(
            f"{work.reader.release} does not read Flatten as NIR means it; the layer becomes a convolution, "
            f"which NIR 1.0.8 knows for square maps only, and this map is {height} x {width}"
        )
    arrays["weight"] = arrays["weight"].reshape(outputs, channels, height, width)
    work.forget(name, "weight")
    work.convolve(name, arrays, Window((height, width)), value, label=node.label)
    return Signal((name,), (outputs,), (outputs, 1, 1))


def convolution(work: Drawing, node: NodeDescription) -> Signal:
    value = work.waiting(work.input_of(node))
    options, dims = node.options, 1 if node.operation == "Conv1d" else 2
    if dims == 1 and not work.reader.conv1d:
        raise NoNodeError(f"{work.reader.release} does not read Conv1d. Choose another target")
    if options["padding_mode"] != "zeros":
        raise NoNodeError(f"NIR pads with zeros, and this convolution with padding_mode={options['padding_mode']!r}")
    if len(value.held) != dims + 1:
        raise NoNodeError(f"it reads samples of the shape {value.shape}, without channels")
    work.require_channels(options["in_channels"], value.held[0], value)
    window = window_of(options, dims)
    name = work.name(node.label)
    arrays = work.arrays(name, value.factor, node.tensors["weight"], node.tensors.get("bias"))
    if options["groups"] > 1:
        # NIR 1.0.8 takes the channels of the input from the weights; readers refuse groups or ignore them.
        arrays["weight"] = dense(arrays["weight"], options["groups"])
        work.forget(name, "weight")
    if not work.reader.dilation and max(window.dilation) > 1:
        arrays["weight"], window = dilated(arrays["weight"], window)
        work.forget(name, "weight")
    if dims == 2 and len(set(window.kernel)) > 1:
        made = square(arrays["weight"], window)
        if made is None:
            raise NoNodeError(
                f"NIR 1.0.8 computes the size of the output of square kernels only, and {window.kernel} cannot be "
                "made square with zeros on both sides. Pad the kernel in the ANN"
            )
        arrays["weight"], window = made
        work.forget(name, "weight")
    return work.convolve(name, arrays, window, value, label=node.label)
