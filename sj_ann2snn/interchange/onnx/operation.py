"""Modules for operators that are functions in torch."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["VARIES", "Operation"]


class _Varying(enum.Enum):
    VARIES = enum.auto()


VARIES = _Varying.VARIES
"""Stands in the arguments of an operation for a value that comes from another node."""


class Operation(nn.Module):
    """Calls a function with the values that it receives, and with constants.

    Args:
        function: What to call.
        arguments: Its arguments in order: `VARIES` for a value from another node; a floating-point tensor becomes a
            parameter; any other tensor (indices, sizes, axes) stays as it is.
    """

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
        super().__init__()
        self.arguments = [self._kept(index, value) for index, value in enumerate(arguments)]
        if isinstance(function, nn.Module) and function.state_dict():
            self.operation = function
        # The function of a layer without weights is an operation of this module, and not a module in it.
        self.function = function.forward if isinstance(function, nn.Module) else function

    def _kept(self, index: int, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        name = f"operand_{index}"
        self.register_parameter(name, nn.Parameter(value, requires_grad=False))
        return _Operand(name)

    def forward(self, *values: Any) -> Any:
        received = iter(values)
        arguments = [
            next(received) if one is VARIES else getattr(self, one.name) if isinstance(one, _Operand) else one
            for one in self.arguments
        ]
        return self.function(*arguments)


class _Operand:
    """The name of a parameter among an operation's arguments."""

    def __init__(self, name: str) -> None:
        self.name = name


def reshape(x: Tensor, sizes: Sequence[int], allow_zero: bool) -> Tensor:
    """ONNX's Reshape: a zero stands for the size that the input has in that dimension."""
    return x.reshape([x.size(index) if size == 0 and not allow_zero else size for index, size in enumerate(sizes)])


def flatten(x: Tensor, axis: int) -> Tensor:
    """ONNX's Flatten with an axis of at least zero: two dimensions, whatever the input has."""
    return x.flatten(axis).flatten(0, axis - 1) if axis else x.reshape(1, -1)


def cut(x: Tensor, parts: Sequence[tuple[int, int, int, int]]) -> Tensor:
    """ONNX's Slice along (axis, start, end, step), with axes of at least zero."""
    index = [slice(None)] * (1 + max(axis for axis, _, _, _ in parts))
    for axis, start, end, step in parts:
        index[axis] = slice(start, end, step) if step > 0 else _backwards(int(x.size(axis)), start, end, step)
    found = x[tuple(index)]
    flipped = [axis for axis, _, _, step in parts if step < 0]
    return torch.flip(found, flipped) if flipped else found


def cut_between(
    x: Tensor, starts: Sequence[int] | Tensor, ends: Sequence[int] | Tensor, axes: Sequence[int], steps: Sequence[int]
) -> Tensor:
    """ONNX's Slice between places that are computed when the network runs, with steps of at least one."""
    parts = {axis: slice(starts[at], ends[at], step) for at, (axis, step) in enumerate(zip(axes, steps, strict=True))}
    return x[tuple(parts.get(axis, slice(None)) for axis in range(1 + max(axes)))]


def _backwards(size: int, start: int, end: int, step: int) -> slice:
    """The elements that a slice with a negative step takes, from the first to the last."""
    positions = range(size)[slice(start, end if end >= -size else None, step)]
    return slice(positions[-1], positions[0] + 1, -step) if len(positions) else slice(0, 0)


def pad(x: Tensor, pads: Sequence[tuple[int, int, int]], mode: str) -> Tensor:
    """ONNX's Pad along (axis, before, after), with axes of at least zero, by values of the input itself."""
    for axis, before, after in pads:
        # torch pads the last of two or three dimensions in these modes.
        last = x.transpose(axis, -1)
        rows = last if last.dim() < 4 else last.flatten(1, -2)
        padded = F.pad(rows, (before, after), mode=mode)
        x = (padded if last.dim() < 4 else torch.unflatten(padded, 1, last.shape[1:-1])).transpose(axis, -1)
    return x


def look_up(x: Tensor, axis: int, indices: Tensor) -> Tensor:
    """ONNX's Gather with indices that are computed when the network runs."""
    place: tuple[slice | Tensor, ...] = (*(slice(None) for _ in range(axis)), indices.to(torch.int64))
    return x[place]


def gather(x: Tensor, axis: int, indices: Tensor) -> Tensor:
    """ONNX's Gather with fixed indices."""
    if indices.dim() == 0:
        return x.select(axis, int(indices))
    found = x.index_select(axis, indices.flatten().to(x.device))
    return found if indices.dim() == 1 else torch.unflatten(found, axis, tuple(indices.shape))


def expand(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """ONNX's Expand: a one keeps the size that the input has in that dimension."""
    more = len(sizes) - x.dim()
    if more < 0:
        return expand(x, [1] * -more + list(sizes))
    return x.expand([-1 if size == 1 and index >= more else size for index, size in enumerate(sizes)])


def expand_like(x: Tensor, sizes: Tensor) -> Tensor:
    """ONNX's Expand to sizes that are computed when the network runs."""
    # Asking for the sizes of one would tie the network to the number of samples.
    return x * torch.ones(_list(sizes), dtype=x.dtype, device=x.device)


def filled(sizes: Tensor, value: Tensor) -> Tensor:
    """ONNX's ConstantOfShape."""
    return value.expand(_list(sizes))


def _list(sizes: Tensor) -> list[Any]:
    """Sizes one by one, which torch.fx can follow."""
    return [sizes[index] for index in range(len(sizes))]


def interpolate_like(x: Tensor, sizes: Tensor, mode: str, align_corners: bool | None) -> Tensor:
    """ONNX's Resize to sizes that are computed when the network runs."""
    return F.interpolate(x, size=_list(sizes)[2:], mode=mode, align_corners=align_corners)


def gemm(a: Tensor, b: Tensor, c: Tensor | None, alpha: float, beta: float, flip: tuple[bool, bool]) -> Tensor:
    """ONNX's Gemm."""
    a, b = (x.t() if flipped else x for x, flipped in zip((a, b), flip, strict=True))
    product = torch.matmul(a, b)
    if alpha != 1:
        product = product * alpha
    if c is None:
        return product
    return product + (c if beta == 1 else c * beta)


def concatenate(axis: int, *parts: Tensor) -> Tensor:
    """ONNX's Concat."""
    return torch.cat(parts, axis)


def fold(function: Callable[[Tensor, Tensor], Tensor], first: Tensor, *more: Tensor) -> Tensor:
    """ONNX's Sum, Max and Min of any number of values."""
    for other in more:
        first = function(first, other)
    return first


def mean(*values: Tensor) -> Tensor:
    """ONNX's Mean of any number of values."""
    return fold(torch.add, *values) / len(values)


def average(x: Tensor, pads: Sequence[int], pool: Callable[[Tensor], Tensor]) -> Tensor:
    """ONNX's AveragePool with other padding before than behind, which the averages leave out."""
    there = torch.ones((1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    return pool(F.pad(x, list(pads))) / pool(F.pad(there, list(pads)))
