"""Operations that change the shape of a sample, or nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from sj_ann2snn import NodeDescription, NodeReference

from .drawing import Drawing
from .signals import NoNodeError, NoTensorError, Signal

__all__ = ["flat", "flatten", "part", "same", "size", "view"]


def flatten(work: Drawing, node: NodeDescription) -> Signal:
    value = work.input_of(node)
    named = {**dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False)), **node.kwargs, **node.options}
    start, end = named.get("start_dim", 1 if node.kind == "layer" else 0), named.get("end_dim", -1)
    if start != 1 or end not in (-1, len(value.shape)):
        raise NoNodeError(f"it flattens dimensions {start} to {end}; all but the samples are supported, 1 to -1")
    return flat(work, node, value)


def view(work: Drawing, node: NodeDescription) -> Signal:
    value = work.input_of(node)
    if len(node.args) != 3 or node.args[2] not in (-1, math.prod(value.shape)):
        raise NoNodeError("it changes the shape of a sample to something else than a vector")
    return flat(work, node, value)


def flat(work: Drawing, node: NodeDescription, value: Signal) -> Signal:
    size = math.prod(value.shape)
    if len(value.held) == 1:
        return value
    if not work.reader.flattens and len(value.held) == 3:
        return replace(value, shape=(size,), potential=None if value.potential is None else value.potential.ravel())
    name = work.name(node.label or node.name)
    arguments = {"input_type": {"input": np.array(value.held)}, "start_dim": 0, "end_dim": -1}
    work.put(name, "Flatten", arguments, value)
    potential = None if value.potential is None else value.potential.ravel()
    return Signal((name,), (size,), (size,), value.factor, potential)


def same(work: Drawing, node: NodeDescription) -> Signal:
    return work.input_of(node)


def part(work: Drawing, node: NodeDescription) -> Signal:
    if node.args and isinstance(node.args[0], NodeReference) and node.args[0].name not in work.signals:
        raise NoTensorError  # of a shape
    raise NoNodeError("it takes a part of a tensor")


def size(work: Drawing, node: NodeDescription) -> Signal:
    raise NoTensorError
