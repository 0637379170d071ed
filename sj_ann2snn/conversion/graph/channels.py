"""Which channel every element of a value belongs to, and how operations move, keep and merge channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...support.shapes import along_axis

__all__ = ["Channels", "joined", "labelled", "new_channels"]


@dataclass(frozen=True)
class Channels:
    """The channels of a value.

    Attributes:
        labels: The number of the channel that each element belongs to: a tensor of the value's rank, of size one along
            dimensions along which the channel is the same everywhere.
        axis: The only dimension along which the channels differ; None if they differ along several, or if there is a
            single channel that lies along no dimension.
    """

    labels: Tensor
    axis: int | None

    @property
    def dimensions(self) -> frozenset[int]:
        """The dimensions along which the channels differ."""
        return frozenset(dim for dim, size in enumerate(self.labels.shape) if size > 1)

    @property
    def is_one(self) -> bool:
        """True if every element belongs to the same channel."""
        return self.labels.numel() == 1

    def is_apart(self, dims: frozenset[int]) -> bool:
        """True if the channels differ along `dims` alone, where every place has one of its own."""
        if dims != self.dimensions:
            return False
        return len(set(self.labels.flatten().tolist())) == math.prod(self.labels.shape[dim] for dim in dims)

    def expanded(self, shape: Sequence[int]) -> Tensor:
        """The labels of all elements of the value, which has `shape`, as float64."""
        return self.labels.to(torch.float64).expand(*shape).clone()


def new_channels(shape: Sequence[int], axis: int) -> Channels:
    """The channels of a layer's result, along one axis.

    >>> new_channels((2, 3, 5), -1).labels.shape, new_channels((2, 3, 5), -1).axis
    (torch.Size([1, 1, 5]), 2)
    """
    axis %= len(shape)
    return Channels(along_axis(torch.arange(shape[axis]), len(shape), axis), axis)


def labelled(labels: Tensor, axis: int | None = None) -> Channels | None:
    """The channels of a value whose elements have `labels`; None if no element has one.

    An element without a label (NaN) belongs to the channel of the others along each dimension, if they agree.

    >>> labelled(torch.tensor([[1.0, 1.0], [torch.nan, 1.0]])).is_one
    True
    >>> labelled(torch.tensor([[1.0, 2.0], [1.0, 2.0]])).axis
    1

    Args:
        labels: Of the value's shape.
        axis: The axis of a single channel.
    """
    for dim in range(labels.dim()):
        labels = _shrunk(labels, dim)
    missing = labels.isnan()
    if bool(missing.all()):
        return None
    if bool(missing.any()):
        # What was joined on (a parameter, the network's input) are channels of their own.
        labels = labels.clone()
        first = float(labels[~missing].max()) + 1
        labels[missing] = first + torch.arange(int(missing.sum()), dtype=labels.dtype, device=labels.device)
    return _with_axis(labels.round().long().cpu(), axis)


def joined(shape: Sequence[int], operands: Sequence[Channels]) -> Channels | None:
    """The channels of an elementwise result: two elements are in one channel if they are in one in every operand.

    >>> one, other = new_channels((2, 3, 5), 1), new_channels((2, 3, 5), 2)
    >>> joined((2, 3, 5), [one, one]).axis, joined((2, 3, 5), [one, other]).axis
    (1, None)
    """
    labels: Tensor | None = None
    axes: set[int | None] = set()
    for operand in operands:
        more, rank = operand.labels, operand.labels.dim()
        if rank > len(shape):
            return None
        more = more.reshape(*(1,) * (len(shape) - rank), *more.shape)
        if any(size not in (1, whole) for size, whole in zip(more.shape, shape, strict=True)):
            return None
        axes.add(None if operand.axis is None else operand.axis + len(shape) - rank)
        if labels is None:
            labels = more
        elif not torch.equal(labels, more):
            pairs = labels * (int(more.max()) + 1) + more
            labels = torch.unique(pairs, return_inverse=True)[1]
    return None if labels is None else _with_axis(labels, axes.pop() if len(axes) == 1 else None)


def _with_axis(labels: Tensor, axis: int | None) -> Channels:
    along = [dim for dim, size in enumerate(labels.shape) if size > 1]
    if along:
        axis = along[0] if len(along) == 1 else None
    return Channels(labels, axis)


def _shrunk(labels: Tensor, dim: int) -> Tensor:
    """`labels` with `dim` shrunk to one, if all labels along it agree."""
    if labels.shape[dim] < 2:
        return labels
    missing = labels.isnan()
    least = labels.masked_fill(missing, torch.inf).amin(dim, keepdim=True)
    largest = labels.masked_fill(missing, -torch.inf).amax(dim, keepdim=True)
    if not bool((least >= largest).all()):
        return labels
    return least.masked_fill(least.isinf(), torch.nan)
