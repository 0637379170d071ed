"""What a layer must be for a loop of our own to stand for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ....compat import layer

__all__ = ["CONVOLUTIONS", "AsImages", "as_image", "as_images", "is_watched", "zeros_around"]

LINEAR = (nn.Linear, layer.Linear)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, layer.Conv1d, layer.Conv2d)
"""Layers that loops can stand for: a subclass may compute something else."""


def is_watched(module: nn.Module) -> bool:
    """True for a module with hooks."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


class AsImages(NamedTuple):
    """A convolution or linear layer as a convolution of images: a line is one of a single row, features are one of a
    single position.

    Attributes:
        weight: ``[out, in / groups, window height, window columns]``.
        bias: ``[out]``.
        geometry: Strides down and across, zeros above and before.
        dimensions: Of space: 2, 1 or 0.
        groups: Of channels.
    """

    weight: Tensor
    bias: Tensor
    geometry: tuple[int, ...]
    dimensions: int
    groups: int


def as_images(module: Any) -> AsImages | None:
    """A convolution in single precision on a CPU, without gaps in its windows and with as many zeros at one end as at
    the other, or such a linear layer; None for another one."""
    if type(module) not in (*LINEAR, *CONVOLUTIONS) or is_watched(module):
        return None
    weight = module.weight.detach()
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        return None
    groups, geometry = 1, (1, 1, 0, 0)
    if type(module) in CONVOLUTIONS:
        padding = zeros_around(module)
        if padding is None or set(module.dilation) != {1}:
            return None
        groups, geometry = module.groups, (*as_image(module.stride, 1), *as_image(padding, 0))  # type: ignore[assignment]
    outputs, inputs, *window = weight.shape
    bias = torch.zeros(outputs, dtype=torch.float32) if module.bias is None else module.bias.detach()
    return AsImages(weight.view(outputs, inputs, *as_image(tuple(window), 1)), bias, geometry, len(window), groups)


def as_image(size: tuple[int, ...], fill: int) -> tuple[int, ...]:
    """A size along a line as one of an image of one row; one of an image as it is.

    >>> as_image((5,), 1), as_image((4, 5), 1)
    ((1, 5), (4, 5))
    """
    return (*(fill,) * (2 - len(size)), *size)


def zeros_around(module: Any) -> tuple[int, ...] | None:
    """How many zeros a convolution puts at both ends of each dimension of space; None where it puts other values there,
    or more at one end than at the other.

    >>> zeros_around(nn.Conv2d(1, 1, (3, 5), padding="same")), zeros_around(nn.Conv1d(1, 1, 4, padding="same"))
    ((1, 2), None)
    """
    if module.padding_mode != "zeros":
        return None
    if not isinstance(module.padding, str):
        return tuple(module.padding)
    if module.padding == "valid":
        return (0,) * len(module.kernel_size)
    both = [gap * (size - 1) for size, gap in zip(module.kernel_size, module.dilation, strict=True)]
    return None if any(zeros % 2 for zeros in both) else tuple(zeros // 2 for zeros in both)
