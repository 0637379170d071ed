"""The channels of products that sum over a dimension: matrix products, einsum, attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .channels import Channels, joined, labelled, new_channels

__all__ = ["attention", "einsum", "matmul"]

Operand = tuple[Tensor, Channels | None, bool]
"""A value, its channels, and whether it is a parameter."""


def matmul(shape: Sequence[int], left: Operand, right: Operand) -> Channels | None:
    """The channels of a matrix product: a parameter on the right makes new ones, like `nn.Linear`."""
    (x, of_x, _), (y, of_y, fixed) = left, right
    if x.dim() < 2 or y.dim() < 1:
        return None
    rows = _without(of_x, x.dim() - 1)
    if y.dim() == 1:
        return None if rows is None else Channels(rows.labels.squeeze(-1), rows.axis)
    if fixed:
        return new_channels(shape, -1)
    if left[2] and of_y is not None and y.dim() - 2 in of_y.dimensions:
        return new_channels(shape, -2)
    columns = _without(of_y, y.dim() - 2)
    return joined(shape, [one for one in (rows, columns) if one is not None])


def attention(shape: Sequence[int], of_values: Channels | None) -> Channels | None:
    """The channels of attention: those of the values, which it averages over positions."""
    kept = None if of_values is None else _without(of_values, of_values.labels.dim() - 2)
    return new_channels(shape, -1) if kept is None else joined(shape, [kept])


def einsum(shape: Sequence[int], equation: Any, operands: Sequence[Operand]) -> Channels | None:
    """The channels of an einsum: an index that only parameters have makes new ones; others are kept."""
    if not isinstance(equation, str) or "->" not in equation or "." in equation:
        return None
    inputs, output = equation.replace(" ", "").split("->")
    terms = inputs.split(",")
    if len(terms) != len(operands) or any(len(term) != one[0].dim() for term, one in zip(terms, operands, strict=True)):
        return None
    of_data = {letter for term, (_, _, fixed) in zip(terms, operands, strict=True) if not fixed for letter in term}
    new = [dim for dim, letter in enumerate(output) if letter not in of_data]
    if new:
        sizes = [shape[dim] if dim in new else 1 for dim in range(len(shape))]
        return labelled(torch.arange(int(torch.tensor(sizes).prod())).reshape(sizes).double(), new[0])
    found = [_placed(channels, term, output) for term, (_, channels, _) in zip(terms, operands, strict=True)]
    return joined(shape, [one for one in found if one is not None])


def _without(channels: Channels | None, dim: int) -> Channels | None:
    """`channels` if they do not differ along `dim`, over which is summed."""
    return None if channels is None or dim in channels.dimensions or channels.axis == dim else channels


def _placed(channels: Channels | None, term: str, output: str) -> Channels | None:
    """The channels of an operand, whose dimensions `term` names, along the dimensions that `output` names."""
    if channels is None or len(set(term)) < len(term) or any(term[dim] not in output for dim in channels.dimensions):
        return None
    labels = channels.labels
    summed = [dim for dim, letter in enumerate(term) if letter not in output]
    kept = [letter for letter in term if letter in output]
    labels = labels.squeeze(summed) if summed else labels
    order = sorted(range(len(kept)), key=lambda dim: output.index(kept[dim]))
    labels = labels.permute(order)
    sizes = iter(labels.shape)
    placed = labels.reshape([next(sizes) if letter in kept else 1 for letter in output])
    axis = None if channels.axis is None else output.find(term[channels.axis])
    return Channels(placed, axis if axis is not None and axis >= 0 else None)
