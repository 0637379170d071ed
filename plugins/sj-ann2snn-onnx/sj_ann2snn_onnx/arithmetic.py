"""Sums, products, and what else is computed element by element or over whole dimensions."""

from __future__ import annotations

import math

from sj_ann2snn import NodeDescription

from .drawing import NoFormError
from .work import Work, array, label_of, plain_name

__all__ = ["BINARY", "UNARY", "binary", "channel_affine", "matrix_product", "reduction", "scaler", "unary"]

BINARY = {
    "add": "Add",
    "div": "Div",
    "divide": "Div",
    "mul": "Mul",
    "multiply": "Mul",
    "sub": "Sub",
    "subtract": "Sub",
    "true_divide": "Div",
    "truediv": "Div",
}
"""Operations on two operands, by the last part of their name."""

UNARY = {
    "ReLU": "Relu",
    "Sigmoid": "Sigmoid",
    "Tanh": "Tanh",
    "abs": "Abs",
    "ceil": "Ceil",
    "cos": "Cos",
    "exp": "Exp",
    "floor": "Floor",
    "log": "Log",
    "neg": "Neg",
    "negative": "Neg",
    "reciprocal": "Reciprocal",
    "relu": "Relu",
    "round": "Round",
    "sigmoid": "Sigmoid",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
}
"""Operations on one operand; most occur in front of the first neurons only."""


def binary(work: Work, node: NodeDescription) -> str:
    kind, label = BINARY[plain_name(node)], label_of(node)
    if work.argument(node, 2, "rounding_mode") is not None and kind == "Div":
        raise NoFormError("it rounds a quotient")
    first, second = work.read(work.argument(node, 0, "input", "self")), work.read(work.argument(node, 1, "other"))
    alpha = work.argument(node, 99, "alpha", default=1)
    if alpha != 1:
        second = work.drawing.put("Mul", [second, work.drawing.number(f"{label}.alpha", alpha)], f"{label}.product")
    return work.drawing.put(kind, [first, second], label)


def unary(work: Work, node: NodeDescription) -> str:
    if len(node.args) > 1 or set(node.kwargs) - {"input", "inplace"}:
        raise NoFormError(f"{plain_name(node)} with more than one argument has no form in ONNX here")
    return work.drawing.put(UNARY[plain_name(node)], [work.input_of(node)], label_of(node))


def scaler(work: Work, node: NodeDescription) -> str:
    label = label_of(node)
    scale = work.drawing.weight(f"{label}.scale", array(node.tensors["scale"], "scale"))
    return work.drawing.put("Mul", [work.input_of(node), scale], label)


def channel_affine(work: Work, node: NodeDescription) -> str:
    label, axis, dimensions = label_of(node), node.options.get("axis", 1), node.options["ndim"]
    shape = [-1 if place == axis else 1 for place in range(1, dimensions)]
    weight, bias = (
        work.drawing.weight(f"{label}.{key}", array(node.tensors[key], key).reshape(shape))
        for key in ("weight", "bias")
    )
    product = work.drawing.put("Mul", [work.input_of(node), weight], f"{label}.product")
    return work.drawing.put("Add", [product, bias], label)


def matrix_product(work: Work, node: NodeDescription) -> str:
    if plain_name(node) == "einsum":
        equation, *operands = node.args
        given = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
        return work.drawing.put("Einsum", [work.read(one) for one in given], label_of(node), equation=equation)
    first, second = work.read(work.argument(node, 0, "input")), work.read(work.argument(node, 1, "other", "mat2"))
    return work.drawing.put("MatMul", [first, second], label_of(node))


def reduction(work: Work, node: NodeDescription) -> str:
    """A sum or mean over whole dimensions."""
    label, shape = label_of(node), work.shape_of_input(node)
    dims = work.argument(node, 1, "dim", "axis")
    if dims is None:
        raise NoFormError("it adds up all samples")
    places = sorted({int(one) % len(shape) for one in ([dims] if isinstance(dims, int) else dims)})
    if 0 in places:
        raise NoFormError("it adds up all samples")
    keep = int(bool(work.argument(node, 2, "keepdim", default=False)))
    axes = work.drawing.integers(f"{label}.axes", places)
    if plain_name(node) == "sum":
        return work.drawing.put("ReduceSum", [work.input_of(node), axes], label, keepdims=keep)
    total = work.drawing.put("ReduceSum", [work.input_of(node), axes], f"{label}.sum", keepdims=keep)
    count = work.drawing.number(f"{label}.count", math.prod(shape[place] for place in places))
    return work.drawing.put("Div", [total, count], label)
