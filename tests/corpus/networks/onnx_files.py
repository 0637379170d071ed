"""Networks as they stand in ONNX files: what exporters make of layers, shapes and constants."""

from __future__ import annotations

import numpy as np
from torch import nn

from sj_ann2snn import from_onnx

from ...helpers.onnx_models import HAS_ONNX, Weights, model, node
from ..forms import form, images, vectors

IMAGES = {"x": ("n", 3, 8, 8)}


def onnx_form(*args, **options):
    """A form, where ONNX files can be read."""
    return form(*args, **options) if HAS_ONNX else lambda make: make


@onnx_form(images())
def onnx_batchnorm_as_arithmetic() -> nn.Module:
    w = Weights()
    for name, low in (("mean", None), ("deviation", 0.5), ("scale", 0.5), ("shift", None)):
        w(name, 1, 6, 1, 1, low=low)
    nodes = [
        node("Conv", f"x {w('w', 6, 3, 3, 3)} {w('b', 6)}", "c", pads=[1, 1, 1, 1]),
        node("Sub", "c mean", "s"),
        node("Div", "s deviation", "d"),
        node("Mul", "scale d", "m"),
        node("Add", "m shift", "a"),
        node("Relu", "a", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", f"f {w('v', 4, 6)} {w('e', 4)}", "y", transB=1),
    ]
    return from_onnx(model(nodes, IMAGES, ["y"], w))


@onnx_form(images())
def onnx_dynamic_reshape() -> nn.Module:
    w = Weights()
    nodes = [
        node("Conv", f"x {w('w', 6, 3, 3, 3)}", "c"),
        node("Relu", "c", "r"),
        node("Shape", "r", "shape"),
        node("Gather", f"shape {w.fixed('zero', 0)}", "n", axis=0),
        node("Unsqueeze", f"n {w.fixed('axes', [0])}", "batch"),
        node("Concat", f"batch {w.fixed('rest', [-1])}", "target", axis=0),
        node("Reshape", "r target", "f"),
        node("MatMul", f"f {w('v', 216, 4)}", "m"),
        node("Add", f"m {w('e', 4)}", "y"),
    ]
    return from_onnx(model(nodes, IMAGES, ["y"], w))


@onnx_form(images())
def onnx_fixed_batch() -> nn.Module:
    w = Weights()
    nodes = [
        node("Conv", f"x {w('w', 6, 3, 3, 3)}", "c", strides=[2, 2]),
        node("Relu", "c", "r"),
        node("Reshape", f"r {w.fixed('groups', [1, 2, 3, 3, 3])}", "g"),
        node("Transpose", "g", "t", perm=[0, 2, 1, 3, 4]),
        node("Reshape", f"t {w.fixed('flat', [1, 54])}", "f"),
        node("Gemm", f"f {w('v', 54, 4)}", "y", alpha=0.5),
    ]
    return from_onnx(model(nodes, {"x": (1, 3, 8, 8)}, ["y"], w))


@onnx_form(images())
def onnx_pads_and_slices() -> nn.Module:
    w = Weights()
    nodes = [
        node("Pad", f"x {w.fixed('pads', [0, 0, 1, 0, 0, 0, 2, 1])} {w.fixed('zero', 0, np.float32)}", "p"),
        node("Conv", f"p {w('w', 6, 3, 3, 3)}", "c"),
        node("Relu", "c", "r"),
        node("Pad", f"r {w.fixed('mirror', [0, 0, 1, 1, 0, 0, 1, 0])}", "q", mode="reflect"),
        node("Slice", f"q {w.fixed('s', [1, 0])} {w.fixed('e', [99, -1])} {w.fixed('a', [-2, -1])} {w.fixed('t', [2, 1])}", "l"),
        node("Slice", f"l {w.fixed('s2', [-1])} {w.fixed('e2', [-99])} {w.fixed('a2', [3])} {w.fixed('t2', [-1])}", "k"),
        node("ReduceMean", "k", "m", axes=[2], keepdims=0),
        node("Unsqueeze", f"m {w.fixed('at', [1])}", "u"),
        node("Squeeze", "u at", "back"),
        node("Transpose", "back", "o", perm=[0, 2, 1]),
        node("MatMul", f"o {w('v', 6, 3)}", "y"),
    ]  # fmt: skip
    return from_onnx(model(nodes, IMAGES, ["y"], w))


@onnx_form(images())
def onnx_clips() -> nn.Module:
    w = Weights()
    nodes = [
        node("Conv", f"x {w('w', 6, 3, 3, 3)}", "c1"),
        node("Clip", f"c1 {w.fixed('zero', 0, np.float32)} {w.fixed('six', 6, np.float32)}", "r1"),
        node("Conv", f"r1 {w('w2', 6, 6, 3, 3)}", "c2"),
        node("Clip", "c2 zero", "r2"),
        node("Conv", f"r2 {w('w3', 6, 6, 3, 3)}", "c3"),
        node("Max", "zero c3", "r3"),
        node("Conv", f"r3 {w('w4', 6, 6, 1, 1)}", "c4"),
        node("Clip", f"c4 zero {w.fixed('one', 1, np.float32)}", "r4"),
        node("Dropout", "r4", "d"),
        node("Identity", "d", "i"),
        node("Flatten", "i", "y"),
    ]
    return from_onnx(model(nodes, IMAGES, ["y"], w))


@onnx_form(images())
def onnx_clips_of_old_files() -> nn.Module:
    w = Weights()
    nodes = [
        node("Conv", f"x {w('w', 6, 3, 3, 3)}", "c1"),
        node("Clip", "c1", "r1", min=0.0, max=6.0),
        node("Reshape", f"r1 {w.fixed('to', [0, -1])}", "f"),
        node("Gemm", f"f {w('v', 216, 5)} {w('e', 5)}", "g"),
        node("Clip", "g", "r", min=0.0, max=3.4028234663852886e38),
        node("Dropout", "r", "y", ratio=0.5),
    ]
    return from_onnx(model(nodes, IMAGES, ["y"], w, opset=9))


@onnx_form(images(1, 16))
def onnx_unet() -> nn.Module:
    w = Weights()
    nodes = [
        node("Conv", f"x {w('w1', 4, 1, 3, 3)} {w('b1', 4)}", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("MaxPool", "r1", "p1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", f"p1 {w('w2', 8, 4, 3, 3)}", "c2", auto_pad="SAME_UPPER"),
        node("Relu", "c2", "r2"),
        node("AveragePool", "r2", "p2", kernel_shape=[2, 2], strides=[2, 2]),
        node("ConvTranspose", f"p2 {w('w3', 8, 8, 4, 4)}", "u2", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Concat", "u2 r2", "k", axis=1),
        node("Conv", f"k {w('w4', 4, 16, 1, 1)}", "c3"),
        node("Relu", "c3", "r3"),
        node("Resize", f"r3 - {w.fixed('scales', [1, 1, 2, 2], np.float32)}", "u1", mode="nearest",
             coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        node("Sum", "u1 r1", "s"),
        node("Conv", f"s {w('w5', 1, 4, 1, 1)}", "y"),
    ]  # fmt: skip
    return from_onnx(model(nodes, {"x": ("n", 1, 16, 16)}, ["y"], w))


@onnx_form(images())
def onnx_weights_behind_nodes() -> nn.Module:
    w = Weights()
    w.fixed("integers", np.arange(-54, 54).reshape(4, 3, 3, 3), np.int8)
    w.fixed("step", 0.01, np.float32)
    w.fixed("shape", [4])
    w.fixed("variance", [1.0, 2.0, 1.5, 0.5], np.float64)
    nodes = [
        node("DequantizeLinear", "integers step", "w"),
        node("ConstantOfShape", "shape", "zeros"),
        node("Identity", "zeros", "mean"),
        node("Cast", "variance", "v", to=1),
        node("Exp", "v", "scale"),
        node("Conv", "x w zeros", "c"),
        node("BatchNormalization", "c scale zeros mean v", "n", epsilon=1e-3),
        node("Relu", "n", "r"),
        node("GlobalAveragePool", "r", "y"),
    ]
    return from_onnx(model(nodes, IMAGES, ["y"], w))


@onnx_form(images())
def onnx_parts_of_channels() -> nn.Module:
    w = Weights()
    nodes = [
        node("Conv", f"x {w('w', 6, 3, 3, 3)}", "c"),
        node("Split", f"c {w.fixed('sizes', [2, 4])}", "one other", axis=1),
        node("PRelu", f"one {w('slope', 2, 1, 1, low=0.1)}", "r1"),
        node("LeakyRelu", "other", "r2", alpha=0.2),
        node("Gather", f"r2 {w.fixed('order', [3, 1, -1])}", "g", axis=1),
        node("Concat", "r1 g", "k", axis=1),
        node("Gather", f"k {w.fixed('row', 2)}", "line", axis=2),
        node("Neg", "line", "m"),
        node("Flatten", "m", "f"),
        node("Gemm", f"f {w('v', 30, 3)} {w('e', 1)}", "y"),
    ]
    return from_onnx(model(nodes, IMAGES, ["y"], w))


@onnx_form(vectors(3, 32))
def onnx_sequence() -> nn.Module:
    w = Weights()
    nodes = [
        node("Conv", f"x {w('w', 8, 3, 5)} {w('b', 8)}", "c", auto_pad="SAME_UPPER", strides=[2]),
        node("Relu", "c", "r"),
        node("BatchNormalization", f"r {w('g', 8, low=0.5)} {w('h', 8)} {w('m', 8)} {w('s', 8, low=0.5)}", "n"),
        node("MaxPool", "n", "p", kernel_shape=[3], strides=[2], pads=[1, 1]),
        node("Conv", f"p {w('w2', 8, 4, 3)}", "c2", group=2, dilations=[2]),
        node("Relu", "c2", "r2"),
        node("ReduceMean", "r2", "y", axes=[-1], keepdims=0),
    ]
    return from_onnx(model(nodes, {"x": ("n", 3, 32)}, ["y"], w))


@onnx_form(vectors(12))
def onnx_several_outputs() -> nn.Module:
    w = Weights()
    nodes = [
        node("Gemm", f"x {w('v', 12, 8)} {w('e', 8)}", "g"),
        node("Relu", "g", "r"),
        node("Split", "r", "left right", axis=1),
        node("MatMul", f"left {w('m', 4, 2)}", "y"),
        node("MatMul", f"right {w('k', 4, 3)}", "z"),
    ]
    return from_onnx(model(nodes, {"x": ("n", 12)}, ["y", "z"], w, opset=13))


@onnx_form(images(), refused="softmax|Softmax")
def onnx_softmax() -> nn.Module:
    w = Weights()
    nodes = [
        node("Conv", f"x {w('w', 6, 3, 8, 8)}", "c"),
        node("Relu", "c", "r"),
        node("Flatten", "r", "f"),
        node("Softmax", "f", "y", axis=1),
    ]
    return from_onnx(model(nodes, IMAGES, ["y"], w, opset=11))
