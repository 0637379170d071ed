"""Scales, sums and differences."""

from __future__ import annotations

from typing import Any

import numpy as np

from sj_ann2snn import NodeDescription, NodeReference

from .drawing import Drawing
from .signals import NoNodeError, Signal, array

__all__ = ["affine", "difference", "negative", "product", "scaler", "total"]


def scaler(work: Drawing, node: NodeDescription) -> Signal:
    return _per_channel(work, node, array(node.tensors["scale"]))


def affine(work: Drawing, node: NodeDescription) -> Signal:
    if node.options.get("axis", 1) != 1:
        raise NoNodeError("it scales along a dimension that holds no channels, for which there is no node")
    return _per_channel(work, node, array(node.tensors["weight"]), array(node.tensors["bias"]))


def _per_channel(work: Drawing, node: NodeDescription, scale: Any, bias: Any = None) -> Signal:
    value = work.waiting(work.input_of(node))
    sizes = [size for size in np.shape(scale) if size != 1]
    ahead = np.ndim(scale) - len(value.shape)
    if np.size(scale) > 1 and bias is None and (ahead != 0 or np.shape(scale)[0] != np.size(scale)):
        raise NoNodeError(f"it scales by a tensor of the shape {np.shape(scale)}; a node takes one scale per channel")
    if sizes and value.shape[0] != sizes[0]:
        raise NoNodeError(f"it scales {sizes[0]} channels of samples of the shape {value.shape}")
    return work.scaled(value, node.label, scale, bias)


def negative(work: Drawing, node: NodeDescription) -> Signal:
    return work.scaled(work.waiting(work.input_of(node)), node.label or node.name, np.float32(-1))


def total(work: Drawing, node: NodeDescription) -> Signal:
    one, other = _operands(work, node)
    return _sum(work, node, one, other)


def difference(work: Drawing, node: NodeDescription) -> Signal:
    one, other = _operands(work, node)
    return _sum(work, node, one, work.scaled(other, f"{node.name}_negative", np.float32(-1)))


def _operands(work: Drawing, node: NodeDescription) -> tuple[Signal, Signal]:
    if len(node.args) != 2 or node.kwargs:
        raise NoNodeError("it is called with more than two operands")
    one, other = (work.plain(work.signal(given), node.name) for given in node.args)
    return one, other


def _sum(work: Drawing, node: NodeDescription, one: Signal, other: Signal) -> Signal:
    if one.held != other.held:
        raise NoNodeError(f"it adds samples of the shapes {one.shape} and {other.shape}; edges need equal ones")
    if set(one.sources) & set(other.sources):
        other = work.scaled(other, f"{node.name}_copy", np.float32(1))
    if not work.reader.branches:
        raise NoNodeError(f"{work.reader.release} reads a chain of layers only. Choose another target")
    return Signal((*one.sources, *other.sources), one.shape, one.held)


def product(work: Drawing, node: NodeDescription) -> Signal:
    numbers = [given for given in node.args if isinstance(given, (int, float))]
    values = [given for given in node.args if isinstance(given, NodeReference)]
    if len(numbers) != 1 or len(values) != 1:
        raise NoNodeError("NIR has no product of two values")
    return work.scaled(work.waiting(work.signal(values[0])), node.label or node.name, np.float32(numbers[0]))
