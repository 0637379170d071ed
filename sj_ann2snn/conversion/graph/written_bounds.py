"""Finds ReLUs, also with an upper bound, that are written as several operations or as a maximum."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from .naming import attribute
from .records import Record, TensorRecord

__all__ = ["join_bounds"]

_Interval = tuple[fx.Node, float, float]
"""What an operation clips, and between what."""

_NON_NEGATIVE = (F.relu, torch.relu, "relu")
_CLAMPS = (torch.clamp, torch.clip, "clamp", "clip")
_MAXIMA = (torch.maximum, torch.max, torch.fmax, "maximum", "max", "fmax")
_MINIMA = (torch.minimum, torch.min, torch.fmin, "minimum", "min", "fmin")
_ZEROS = (torch.zeros_like, "new_zeros", torch.zeros)


def join_bounds(module: fx.GraphModule, record: Record) -> None:
    """Write every ReLU as one operation.

    ``torch.minimum(torch.relu(x), six)`` becomes ``torch.clamp(x, 0, 6)``, and ``torch.maximum(x, zero)`` and
    ``torch.where(x > 0, x, 0)`` become ``torch.relu(x)``.

    Args:
        module: Changed in place.
        record: What the nodes yield.
    """
    found = {node: bounds for node in module.graph.nodes if (bounds := _joined(module, record, node)) is not None}
    for node, (inner, _, high) in found.items():
        with module.graph.inserting_before(node):
            joined = (
                module.graph.call_function(torch.relu, (inner,))
                if high == math.inf
                else module.graph.call_function(torch.clamp, (inner, 0.0, high))
            )
        joined.meta.update(node.meta)
        node.replace_all_uses_with(joined)
    module.graph.lint()
    module.recompile()


def _joined(module: fx.GraphModule, record: Record, node: fx.Node) -> _Interval | None:
    """What a node and the operations in front of it clip together, if that is a ReLU that none of them is alone."""
    found = _interval(module, record, node)
    if found is None:
        return None
    inner, low, high = found
    written = low != 0 or not _is_activation(node)
    while (before := _interval(module, record, inner)) is not None:
        written = written or before[1] != 0 or not _is_activation(inner)
        # What clips a clipped value clips the value itself, to less.
        low, high = (min(max(bound, low), high) for bound in before[1:])
        inner = before[0]
    return (inner, low, high) if written and low == 0 < high else None


def _interval(module: fx.GraphModule, record: Record, node: fx.Node) -> _Interval | None:
    """What a node clips; None if it does something else."""
    if node.op == "call_module":
        layer = attribute(module, str(node.target))
        bounds = (0.0, math.inf) if type(layer) is nn.ReLU else (0.0, 6.0) if type(layer) is nn.ReLU6 else None
        return None if bounds is None else _kept(record, node, node.args[0], *bounds)
    if node.op not in ("call_function", "call_method"):
        return None
    find = _FINDERS.get(node.target)
    return None if find is None else find(module, record, node)


def _kept(record: Record, node: fx.Node, value: Any, low: float, high: float) -> _Interval | None:
    """The interval, if the operation leaves shape and dtype as they are."""
    if not isinstance(value, fx.Node):
        return None
    before, after = record[value], record[node]
    if not isinstance(before, TensorRecord) or not isinstance(after, TensorRecord):
        return None
    return (value, low, high) if (before.shape, before.dtype) == (after.shape, after.dtype) else None


def _is_activation(node: fx.Node) -> bool:
    """True for an operation that is a ReLU in its own right."""
    return node.op == "call_module" or node.target in (*_NON_NEGATIVE, F.relu6, *_CLAMPS, *_CLAMPED_BELOW)


def _relu(module: fx.GraphModule, record: Record, node: fx.Node) -> _Interval | None:
    return _kept(record, node, _argument(node, 0, "input"), 0.0, 6.0 if node.target is F.relu6 else math.inf)


def _clamp(module: fx.GraphModule, record: Record, node: fx.Node) -> _Interval | None:
    low, high = (
        math.inf * sign if given is None else _number(module, given)
        for given, sign in ((_argument(node, 1, "min"), -1), (_argument(node, 2, "max"), 1))
    )
    if low is None or high is None or low > high:
        return None
    return _kept(record, node, _argument(node, 0, "input"), low, high)


def _clamp_below(module: fx.GraphModule, record: Record, node: fx.Node) -> _Interval | None:
    low = _number(module, _argument(node, 1, "min"))
    return None if low is None else _kept(record, node, _argument(node, 0, "input"), low, math.inf)


def _clamp_above(module: fx.GraphModule, record: Record, node: fx.Node) -> _Interval | None:
    high = _number(module, _argument(node, 1, "max"))
    return None if high is None else _kept(record, node, _argument(node, 0, "input"), -math.inf, high)


def _maximum(module: fx.GraphModule, record: Record, node: fx.Node) -> _Interval | None:
    value, bound = _value_and_bound(module, node)
    return None if bound is None else _kept(record, node, value, bound, math.inf)


def _minimum(module: fx.GraphModule, record: Record, node: fx.Node) -> _Interval | None:
    value, bound = _value_and_bound(module, node)
    return None if bound is None else _kept(record, node, value, -math.inf, bound)


def _value_and_bound(module: fx.GraphModule, node: fx.Node) -> tuple[Any, float | None]:
    first, second = _argument(node, 0, "input"), _argument(node, 1, "other")
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
        return first, None  # a maximum over a dimension
    bound = _number(module, second)
    return (first, bound) if bound is not None else (second, _number(module, first))


def _where(module: fx.GraphModule, record: Record, node: fx.Node) -> _Interval | None:
    """``where(x > 0, x, 0)``; the same with >=, or the other way round with < and <=."""
    names = ("input", "condition", "other") if node.op == "call_method" else ("condition", "input", "other")
    given = {name: _argument(node, at, name) for at, name in enumerate(names)}
    condition, chosen, other = given["condition"], given["input"], given["other"]
    if not isinstance(condition, fx.Node):
        return None
    compared, limit = _argument(condition, 0, "input"), _argument(condition, 1, "other")
    if condition.target in _LESS:
        chosen, other = other, chosen
    elif condition.target not in _GREATER:
        return None
    if compared is not chosen or _number(module, limit) != 0 or _number(module, other) != 0:
        return None
    return _kept(record, node, chosen, 0.0, math.inf)


def _argument(node: fx.Node, position: int, name: str) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)


def _number(module: fx.GraphModule, value: Any) -> float | None:
    """The number that a constant has everywhere."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, fx.Node):
        return None
    if value.target in _ZEROS:
        return 0.0
    constant = attribute(module, str(value.target)) if value.op == "get_attr" else None
    if not isinstance(constant, Tensor) or constant.is_complex() or not constant.numel():
        return None
    number = float(constant.reshape(-1)[0])
    return number if bool((constant == number).all()) else None


_GREATER = (operator.gt, operator.ge, torch.gt, torch.ge, torch.greater, torch.greater_equal, "gt", "ge", "greater")
_LESS = (operator.lt, operator.le, torch.lt, torch.le, torch.less, torch.less_equal, "lt", "le", "less")
_CLAMPED_BELOW, _CLAMPED_ABOVE = (torch.clamp_min, "clamp_min"), (torch.clamp_max, "clamp_max")

_Finder = Callable[[fx.GraphModule, Record, fx.Node], _Interval | None]
_FINDERS: dict[Any, _Finder] = {
    target: find
    for targets, find in (
        ((*_NON_NEGATIVE, F.relu6), _relu),
        (_CLAMPS, _clamp),
        (_CLAMPED_BELOW, _clamp_below),
        (_CLAMPED_ABOVE, _clamp_above),
        (_MAXIMA, _maximum),
        (_MINIMA, _minimum),
        ((torch.where, "where"), _where),
    )
    for target in targets
}
