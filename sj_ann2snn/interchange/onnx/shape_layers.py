"""Operators that move elements: joining, cutting, reshaping, padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from . import operation
from .call import Call, Made
from .library import Unreadable, tensor
from .operation import VARIES, Operation

__all__ = ["SHAPE_LAYERS"]


def _concat(call: Call) -> Made:
    arguments = [call.argument(position) for position in range(call.count)]
    return Operation(partial(operation.concatenate, call.attribute("axis", 1)), arguments)


def _flatten(call: Call) -> Made:
    (axis,) = call.axes([call.attribute("axis", 1)])
    return nn.Flatten(1) if axis == 1 else Operation(operation.flatten, [VARIES, axis])


def _reshape(call: Call) -> Made:
    allow_zero = bool(call.attribute("allowzero", 0))
    sizes = call.ints(1, "shape")
    if sizes is None:
        return None
    if sizes == [0, -1] and not allow_zero:
        return nn.Flatten(1)
    return Operation(operation.reshape, [VARIES, tuple(sizes), allow_zero])


def _pad(call: Call) -> Made:
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


def _slice(call: Call) -> Made:
    if call.varies(1) or call.varies(2):
        return _slice_between(call)
    starts, ends = call.ints(1, "starts"), call.ints(2, "ends")
    axes, steps = call.ints(3, "axes"), call.ints(4, "steps")
    if starts is None or ends is None:
        return None
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    parts = zip(call.axes(axes), starts, ends, steps, strict=True)
    return Operation(operation.cut, [VARIES, tuple(parts)])


def _slice_between(call: Call) -> Made:
    axes, steps = call.ints(3, "axes"), call.ints(4, "steps")
    known = call.shape(1) or call.shape(2)
    count = len(axes) if axes is not None else known[0] if known else None
    if not isinstance(count, int):
        return None
    steps = [1] * count if steps is None else steps
    if min(steps) < 1:
        return None
    ends = [
        VARIES if call.varies(position) else tuple(call.ints(position, name) or ())
        for position, name in ((1, "starts"), (2, "ends"))
    ]
    axes = call.axes(list(range(count)) if axes is None else axes)
    return Operation(operation.cut_between, [VARIES, *ends, tuple(axes), tuple(steps)])


def _gather(call: Call) -> Made:
    indices, axis = call.constant(1), call.attribute("axis", 0)
    size = call.shape(0)
    if indices is None:
        (axis,) = call.axes([axis])
        return Operation(operation.look_up, [call.argument(0), axis, VARIES])
    if size is None:
        return None
    here = size[axis]
    if (indices < 0).any():
        if not isinstance(here, int):
            return None
        indices = np.where(indices < 0, indices + here, indices)
    return Operation(operation.gather, [VARIES, axis % len(size), tensor(indices)])


def _split(call: Call) -> Made:
    axis, sizes = call.attribute("axis", 0), call.ints(1, "split")
    if sizes is None:
        shape, count = call.shape(0), len(call.node.outputs)
        size = None if shape is None else shape[axis]
        if not isinstance(size, int):
            return None
        part = math.ceil(size / count)
        sizes = [min(part, size - part * index) for index in range(count)]
    return Operation(partial(torch.split, split_size_or_sections=sizes, dim=axis), [VARIES])


def _expand(call: Call) -> Made:
    if not call.varies(1):
        return Operation(operation.expand, [VARIES, tuple(call.ints(1, "shape") or ())])
    return Operation(operation.expand_like, [call.argument(0), VARIES])


def _filled(call: Call) -> Made:
    value = call.attribute("value")
    filling = torch.zeros(()) if value is None else tensor(value).reshape(())
    return Operation(operation.filled, [VARIES, filling])


SHAPE_LAYERS: dict[str, Callable[[Call], Made]] = {
    "Concat": _concat,
    "ConstantOfShape": _filled,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
}
