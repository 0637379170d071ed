"""What a layer must be for a loop of our own to stand for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ....compat import layer

__all__ = ["is_plain_convolution", "is_watched"]


def is_watched(module: nn.Module) -> bool:
    """True for a module with hooks."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def is_plain_convolution(module: Any) -> bool:
    """True for a convolution of images in single precision on a CPU, without groups, gaps in its windows, or margins
    other than zeros."""
    if type(module) not in (nn.Conv2d, layer.Conv2d) or is_watched(module):  # a subclass may compute something else
        return False
    plain = module.dilation == (1, 1) and not isinstance(module.padding, str) and module.padding_mode == "zeros"
    weight = module.weight
    return plain and module.groups == 1 and weight.dtype == torch.float32 and weight.device.type == "cpu"
