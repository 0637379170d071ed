"""Layers that put values elsewhere and compute nothing: they do so with packed values as they are stored.

Networks join what several layers say (`torch.cat`), surround images with zeros, enlarge them, cut them, and flatten
them in front of a linear layer. Numbers that take thirty-two times as much memory would be made for that alone.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import nn

from ....compat import layer
from ....layers import Stepwise
from .modules import is_watched
from .values import Packed

__all__ = ["Move", "asks_for_sizes", "flattens", "may_flatten", "move_of"]

Move = Callable[..., Packed | None]
"""What a layer does to its arguments, of which those that vary are packed; None if that does not apply to them."""

ZEROS = (nn.ZeroPad1d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d)
"""Modules that surround images with a constant."""

UPSAMPLING = (nn.Upsample, getattr(layer, "Upsample", nn.Upsample))
"""Modules that enlarge images; SpikingJelly 0.0.0.0.14 has none of its own."""

ADAPTIVE = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, layer.AdaptiveAvgPool1d, layer.AdaptiveAvgPool2d)
"""Modules that average images to a size."""


def move_of(module: Any) -> Move | None:
    """How a layer moves values; None for any other layer."""
    if not isinstance(module, nn.Module) or is_watched(module):
        return None
    operation: Any = module.operation if isinstance(module, Stepwise) else module
    if type(operation) in UPSAMPLING:
        return lambda input: _enlarged(
            input, operation.size, operation.scale_factor, operation.mode, None, operation.recompute_scale_factor
        )
    if type(operation) in ADAPTIVE:
        return lambda input: _as_it_is(input, operation.output_size)
    if type(operation) in ZEROS:
        return lambda input: _surrounded(input, operation.padding, value=getattr(operation, "value", 0.0))
    return _FUNCTIONS.get(operation) if isinstance(module, Stepwise) and isinstance(operation, Hashable) else None


def flattens(module: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """True for a layer that makes features of images, as linear layers read them.

    Args:
        module: The layer.
        args: Its arguments; of the first one, which is packed, the shape matters.
        kwargs: Its arguments by name.
    """
    if not isinstance(module, nn.Module) or is_watched(module) or not args or not isinstance(args[0], Packed):
        return False
    operation, shape = getattr(module, "operation", module), args[0].shape
    images, features = shape[0] * shape[1], args[0].stand_in()[0, 0].numel()
    if isinstance(operation, nn.Flatten):
        return (operation.start_dim, operation.end_dim) == (1, -1)
    if operation in (torch.flatten, "flatten"):
        names = ("start_dim", "end_dim")
        given = {"start_dim": 0, "end_dim": -1, **dict(zip(names, args[1:], strict=False)), **kwargs}
        return given["start_dim"] == 1 and given["end_dim"] in (-1, len(shape) - 2)
    if operation in (torch.reshape, "reshape", "view") and not kwargs:
        sizes = args[1] if len(args) == 2 and isinstance(args[1], (tuple, list)) else args[1:]
        known = [size if isinstance(size, int) else None for size in sizes]
        return known in ([images, -1], [-1, features], [images, features])
    return False


def may_flatten(module: Any) -> bool:
    """True for a layer of which `flattens` may be true."""
    operation = getattr(module, "operation", module)
    names = (torch.flatten, torch.reshape, "flatten", "reshape", "view")
    return isinstance(operation, nn.Flatten) or (not isinstance(operation, nn.Module) and operation in names)


def asks_for_sizes(module: Any) -> bool:
    """True for a layer that reads nothing but the shape of its argument."""
    return isinstance(module, Stepwise) and module.operation == "size" and not is_watched(module)


def _is_movable(x: Any) -> TypeGuard[Packed]:
    return isinstance(x, Packed) and x.movable


# Functions, with the names of their arguments that torch has; what has another name is left to torch.


def _joined(tensors: Sequence[Any], dim: int = 0, *, axis: int | None = None, **unknown: Any) -> Packed | None:
    first, *others = tensors
    dim = dim if axis is None else axis
    if unknown or not _is_movable(first) or not all(first.mixes_with(one) for one in others):
        return None
    dim = dim + len(first.shape) - 1 if dim < 0 else dim
    channels = [one.shape[2] for one in tensors]
    if not 0 < dim < len(first.shape) - 1 or any(
        one.shape[2 : dim + 1] + one.shape[dim + 2 :] != first.shape[2 : dim + 1] + first.shape[dim + 2 :]
        for one in others
    ):
        return None  # the function raises the error
    if dim == 1 and any(count % first.channels_together for count in channels[:-1]):
        return None
    memory = torch.cat([one.memory() for one in tensors], dim)
    return first.moved(memory, sum(channels) if dim == 1 else channels[0])


def _surrounded(
    input: Any, pad: Any, mode: str = "constant", value: float | None = None, **unknown: Any
) -> Packed | None:
    x = input
    if unknown or not _is_movable(x) or mode != "constant" or value:
        return None
    sizes = [pad] * 2 * len(x.shape[3:]) if isinstance(pad, int) else list(pad)
    sizes += [0] * (2 * len(x.shape[2:]) - len(sizes))
    together, channels = x.channels_together, x.shape[2]
    if len(sizes) != 2 * len(x.shape[2:]) or min(sizes) < 0 or (sizes[-2] % together or sizes[-1] % together):
        return None
    if sizes[-1] and channels % together:
        return None
    memory = F.pad(x.memory(), (*sizes[:-2], sizes[-2] // together, sizes[-1] // together))
    return x.moved(memory, channels + sizes[-2] + sizes[-1])


def _cut(x: Any, index: Any) -> Packed | None:
    if not _is_movable(x) or not isinstance(index, tuple):
        return None
    if not all(isinstance(one, slice) or one is Ellipsis for one in index):
        return None
    if index.count(Ellipsis) == 1:
        place = index.index(Ellipsis)
        missing = len(x.shape) - len(index)  # the time has no place in it
        index = (*index[:place], *[slice(None)] * missing, *index[place + 1 :])
    if len(index) > len(x.shape) - 1:
        return None
    if Ellipsis in index or index[:1] not in ((), (slice(None),)):
        return None
    index = (*index, *[slice(None)] * (len(x.shape) - 1 - len(index)))
    first, end, step = index[1].indices(x.shape[2])
    together = x.channels_together
    if step != 1 or end <= first or first % together or (end % together and end != x.shape[2]):
        return None
    memory = x.memory()[:, first // together : -(-end // together)][(slice(None), slice(None), *index[2:])]
    return x.moved(memory, end - first) if memory.numel() else None


def _as_it_is(input: Any, output_size: Any, **unknown: Any) -> Packed | None:
    """What an adaptive pool makes of images that are of its output's size already."""
    x = input
    if unknown or not _is_movable(x) or not (places := x.shape[3:]):
        return None
    sizes = (output_size,) * len(places) if output_size is None or isinstance(output_size, int) else tuple(output_size)
    same = len(sizes) == len(places) and all(size in (None, place) for size, place in zip(sizes, places, strict=True))
    return x if same else None


def _enlarged(
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
    **unknown: Any,
) -> Packed | None:
    x = input
    if unknown or not _is_movable(x) or mode != "nearest" or antialias or x.memory().dtype != torch.uint8:
        return None
    memory = F.interpolate(x.memory(), size, scale_factor, mode, recompute_scale_factor=recompute_scale_factor)
    return x.moved(memory, x.shape[2])


_FUNCTIONS: dict[Any, Move] = {
    torch.cat: _joined,
    torch.concat: _joined,
    torch.concatenate: _joined,
    F.pad: _surrounded,
    F.interpolate: _enlarged,
    F.adaptive_avg_pool1d: _as_it_is,
    F.adaptive_avg_pool2d: _as_it_is,
    operator.getitem: _cut,
}
