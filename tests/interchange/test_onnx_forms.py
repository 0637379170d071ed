"""ONNX files as other programs than torch's exporters write them, one small file each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from sj_ann2snn import Converter, UnsupportedError, VerificationError, from_onnx, simulate
from sj_ann2snn.interchange.onnx import checking

from ..helpers.convergence import relative_error
from ..helpers.onnx_models import Weights, model, needs_onnx, node

pytestmark = needs_onnx


def around(
    nodes: Callable[[Weights], Sequence[Any]], opset: int = 17, size: Sequence[int | str] = ("n", 3, 8, 8)
) -> Any:
    """Nodes between two convolutions: they take ``h`` and make ``m``."""
    w = Weights()
    first = node("Conv", f"x {w('w1', 4, 3, 3, 3)} {w('b1', 4)}", "h", "first", pads=[1] * 4)
    last = node("Conv", f"m {w('w2', 5, 4, 1, 1)} {w('b2', 5)}", "y", "last")
    return model([first, *nodes(w), last], {"x": size}, ["y"], w, opset=opset)


def relu(name: str = "r") -> Any:
    return node("Relu", "h", name, "relu")


def batchnorm(w: Weights, given: str, made: str) -> Any:
    return node(
        "BatchNormalization",
        f"{given} {w('scale', 4, low=0.5)} {w('shift', 4)} {w('mean', 4)} {w('var', 4, low=0.5)}",
        made,
    )


def arithmetic_batchnorm(w: Weights, given: str, made: str) -> list[Any]:
    sizes = (1, 4, 1, 1)
    return [
        node("Sub", f"{given} {w('mean', *sizes)}", "centred"),
        node("Add", f"{w('var', *sizes, low=0.5)} {w.fixed('eps', 1e-5, np.float32)}", "spread"),
        node("Sqrt", "spread", "deviation"),
        node("Div", "centred deviation", "normal"),
        node("Mul", f"normal {w('scale', *sizes)}", "scaled"),
        node("Add", f"scaled {w('shift', *sizes)}", made, "shift"),
    ]


def pool(kind: str, **attributes: Any) -> Callable[[Weights], list[Any]]:
    return lambda w: [relu(), node(kind, "r", "m", kernel_shape=[3, 3], strides=[2, 2], **attributes)]


def computed_target(w: Weights) -> list[Any]:
    """A reshape to a size that is cast, cut and joined, as Paddle and TensorFlow write it."""
    return [
        relu(),
        node("Shape", "r", "shape"),
        node("Cast", "shape", "narrow", "narrow", to=6),
        node("Slice", f"narrow {w.fixed('start', [0])} {w.fixed('end', [1])} {w.fixed('axis', [0])}", "samples"),
        node("Cast", "samples", "wide", "wide", to=7),
        node("Concat", f"wide {w.fixed('rest', [4, 64])}", "flat", "flat", axis=0),
        node("Reshape", "r flat", "lines", "lines"),
        batchnorm(w, "lines", "normal"),
        node("Concat", f"wide {w.fixed('planes', [4, 8, 8])}", "square", "square", axis=0),
        node("Reshape", "normal square", "m", "planes"),
    ]


def shuffled(w: Weights) -> list[Any]:
    """Channels shuffled by sizes that are read one by one."""
    picked = [
        node("Gather", f"shape {w.fixed(f'at{axis}', [axis])}", f"size{axis}", f"size{axis}") for axis in (0, 2, 3)
    ]
    return [
        relu(),
        node("Shape", "r", "shape"),
        *picked,
        node("Concat", f"size0 {w.fixed('pairs', [2, 2])} size2 size3", "target", axis=0),
        node("Reshape", "r target", "grouped", "group"),
        node("Transpose", "grouped", "swapped", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "swapped shape", "m", "ungroup"),
    ]


def halves(w: Weights) -> list[Any]:
    """Slices between places that are computed."""
    return [
        relu(),
        node("Shape", "r", "shape"),
        node("Gather", f"shape {w.fixed('two', [2])}", "height"),
        node("Div", "height two", "half"),
        node("Slice", f"r {w.fixed('none', [0])} half two", "top", "top"),
        node("Slice", "r half height two", "bottom", "bottom"),
        node("Concat", "bottom top", "m", axis=2),
    ]


def resized(**attributes: Any) -> Callable[[Weights], list[Any]]:
    """Enlarged to the size of another value, as feature pyramids do."""
    return lambda w: [
        relu(),
        node("MaxPool", "r", "small", kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", "r", "shape"),
        node("Resize", "small - - shape", "m", **attributes),
    ]


def nhwc_mean(w: Weights) -> list[Any]:
    return [
        relu(),
        node("Transpose", "r", "last", "to_last", perm=[0, 2, 3, 1]),
        node("ReduceMean", "last", "means", axes=[1, 2], keepdims=1),
        node("Transpose", "means", "m", "to_first", perm=[0, 3, 1, 2]),
    ]


ASYMMETRIC = [0, 0, 1, 1]
NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
LINEAR = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}

FORMS: dict[str, Callable[[Weights], list[Any]]] = {
    "MaxPool, asymmetric pads": pool("MaxPool", pads=ASYMMETRIC),
    "MaxPool, asymmetric pads, ceil": pool("MaxPool", pads=[1, 0, 0, 1], ceil_mode=1),
    "MaxPool of currents": lambda w: [
        node("MaxPool", "h", "p", kernel_shape=[3, 3], strides=[2, 2], pads=ASYMMETRIC),
        node("Relu", "p", "m"),
    ],
    "MaxPool, SAME": pool("MaxPool", auto_pad="SAME_UPPER"),
    "AveragePool, asymmetric pads": pool("AveragePool", pads=ASYMMETRIC),
    "AveragePool, asymmetric pads, ceil": pool("AveragePool", pads=[1, 0, 0, 1], ceil_mode=1),
    "AveragePool, asymmetric pads that count": pool("AveragePool", pads=ASYMMETRIC, count_include_pad=1),
    "AveragePool, SAME_UPPER": pool("AveragePool", auto_pad="SAME_UPPER"),
    "AveragePool, SAME_LOWER": pool("AveragePool", auto_pad="SAME_LOWER"),
    "Conv, asymmetric pads": lambda w: [relu(), node("Conv", f"r {w('k', 4, 4, 3, 3)}", "m", pads=ASYMMETRIC)],
    "Min of Max": lambda w: [
        node("Max", f"h {w.fixed('zero', 0, np.float32)}", "r"),
        node("Min", f"r {w.fixed('six', 0.6, np.float32)}", "m"),
    ],
    "Max of Min": lambda w: [
        node("Min", f"{w.fixed('six', [0.6], np.float32)} h", "r"),
        node("Max", f"r {w.fixed('zero', [0], np.float32)}", "m"),
    ],
    "Max with a zero for every channel": lambda w: [
        node("Max", f"{w.fixed('zero', np.zeros((1, 4, 1, 1)), np.float32)} h", "m")
    ],
    "Clip behind Relu": lambda w: [relu(), node("Clip", f"r - {w.fixed('six', 0.6, np.float32)}", "m")],
    "Where": lambda w: [
        node("Greater", f"h {w.fixed('zero', 0, np.float32)}", "positive"),
        node("Where", "positive h zero", "m"),
    ],
    "BatchNorm as arithmetic behind a ReLU": lambda w: [relu(), *arithmetic_batchnorm(w, "r", "m")],
    "BatchNorm as arithmetic behind a ReLU, pooled": lambda w: [
        relu(),
        *arithmetic_batchnorm(w, "r", "b"),
        node("MaxPool", "b", "m", kernel_shape=[2, 2], strides=[2, 2]),
    ],
    "Mean of two": lambda w: [relu(), node("Mean", "h r", "m")],
    "Sum of three": lambda w: [relu(), node("Sum", "h r r", "m")],
    "Expand to sizes of one": lambda w: [
        relu(),
        node("GlobalAveragePool", "r", "p"),
        node("Expand", f"p {w.fixed('sizes', [1, 4, 8, 8])}", "m"),
    ],
    "Expand to a computed size": lambda w: [
        relu(),
        node("GlobalAveragePool", "r", "p"),
        node("Shape", "r", "shape"),
        node("Expand", "p shape", "m"),
    ],
    "Reshape to a computed size": computed_target,
    "channels shuffled": shuffled,
    "Slice between computed places": halves,
    "Resize to a computed size": resized(**NEAREST),
    "Resize to a computed size, linear": resized(**LINEAR),
    "ReduceMean over dimensions in the middle": nhwc_mean,
}


KNOWN, OPEN = ("n", 3, 8, 8), ("n", 3, "h", "w")
NEED_SIZES = {"AveragePool, SAME_UPPER", "AveragePool, SAME_LOWER", "Reshape to a computed size"}
"""Forms in which the file itself depends on the size."""

CASES = [(name, KNOWN) for name in FORMS] + [(name, OPEN) for name in FORMS if name not in NEED_SIZES]


@pytest.mark.parametrize(
    ("name", "size"), CASES, ids=lambda value: value if isinstance(value, str) else "x".join(map(str, value))
)
def test_forms_convert(name: str, size: Sequence[int | str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ann = from_onnx(around(FORMS[name], size=size))
        images = torch.randn(6, 3, 8, 8)
        snn = Converter([images], mode="max", channel_wise=True, progress=False)(ann)
        rates, wanted = simulate(snn, images, T=256), ann(images)
    assert relative_error(rates, wanted) < 0.03
    again = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(ann(again), ann(torch.cat([again, images]))[:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(-1, 3, 8, 8), (0, 3, 8, 8), ("?", 3, "?", "?"), (-1, 3, -1, -1)])
def test_sizes_that_a_file_does_not_know_are_open(size: Sequence[int | str]) -> None:
    ann = from_onnx(around(lambda w: [relu(), node("Identity", "r", "m")], size=size))
    for count in (1, 5):
        assert ann(torch.rand(count, 3, 8, 8)).shape == (count, 5, 8, 8)


def test_a_constant_of_a_computed_shape_is_read() -> None:
    nodes = [
        node("Relu", "x", "r"),
        node("Shape", "r", "shape"),
        node("ConstantOfShape", "shape", "ones", value=_tensor([1.0])),
        node("Add", "r ones", "y"),
    ]
    ann = from_onnx(model(nodes, {"x": ["n", "length"]}, ["y"]))
    x = torch.randn(3, 7)
    torch.testing.assert_close(ann(x), x.relu() + 1)


def _tensor(values: Sequence[float]) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array(values, np.float32), "value")


def test_a_batchnorm_of_unknown_dimensions_is_refused_with_a_reason() -> None:
    w = Weights()
    nodes = [node("Reshape", "x sizes", "r"), batchnorm(w, "r", "y")]
    proto = model(nodes, {"x": ["n", 4, 8], "sizes": ["k"]}, ["y"], w)
    proto.graph.input[1].type.tensor_type.elem_type = 7
    with pytest.raises(
        UnsupportedError, match=r"BatchNormalization.* a number of dimensions that only its inputs decide"
    ):
        from_onnx(proto)


def sharp(slope: float) -> Any:
    """A sigmoid of values so far below zero that it yields nothing but rounding errors."""
    w = Weights()
    nodes = [
        node("Gemm", f"x {w('w', 4, 3)} {w.fixed('b', [-40.0] * 3, np.float32)}", "h"),
        node("Mul", f"h {w.fixed('slope', slope, np.float32)}", "s", "slope"),
        node("Sigmoid", "s", "y", "end"),
    ]
    return model(nodes, {"x": ["n", 4]}, ["y"], w)


def test_outputs_near_zero_are_compared_before_the_sigmoid(monkeypatch: pytest.MonkeyPatch) -> None:
    proto, other = sharp(1.0), sharp(1.1)
    wanted = checking._wanted

    def rough(model: Any, *given: Any) -> Any:
        found = wanted(model, *given)
        return None if found is None else [found[0] + 6e-8, *found[1:]]

    monkeypatch.setattr(checking, "_wanted", rough)
    assert from_onnx(proto) is not None

    def another(model: Any, *given: Any) -> Any:
        changed = type(model).FromString(model.SerializeToString())
        del changed.graph.initializer[:]
        changed.graph.initializer.extend(other.graph.initializer)
        return wanted(changed, *given)

    monkeypatch.setattr(checking, "_wanted", another)
    with pytest.raises(VerificationError, match="the output 's' is not what the file says: it differs by 0.091"):
        from_onnx(proto)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_network_that_yields_no_numbers_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    monkeypatch.setattr(checking, "_outputs", lambda network, inputs: [np.full((2, 3), wrong), np.zeros((2, 3))])
    with pytest.raises(VerificationError, match="'y' is not what the file says"):
        from_onnx(sharp(1.0))


def test_what_only_rounding_changes_is_accepted() -> None:
    w = Weights()
    nodes = [
        node("Add", f"x {w.fixed('large', 3e6, np.float32)}", "l"),
        node("ReduceSum", f"l {w.fixed('axis', [1])}", "s", keepdims=1),
        node("Sub", f"s {w.fixed('total', 64 * 3e6, np.float32)}", "y"),
    ]
    assert from_onnx(model(nodes, {"x": ["n", 64]}, ["y"], w)) is not None
