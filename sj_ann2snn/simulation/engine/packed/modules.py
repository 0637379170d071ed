"""What a layer must be for a loop of our own to stand for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ....compat import layer

__all__ = ["is_plain_convolution", "is_watched", "zeros_around"]


def is_watched(module: nn.Module) -> bool:
    """True for a module with hooks."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def is_plain_convolution(module: Any) -> bool:
    """True for a convolution of images in single precision on a CPU, without groups, gaps in its windows, or margins
    other than zeros."""
    if type(module) not in (nn.Conv2d, layer.Conv2d) or is_watched(module):  # a subclass may compute something else
        return False
    plain = module.dilation == (1, 1) and zeros_around(module) is not None
    weight = module.weight
    return plain and module.groups == 1 and weight.dtype == torch.float32 and weight.device.type == "cpu"


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
