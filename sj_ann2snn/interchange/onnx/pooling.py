"""AveragePool with other padding before than behind, and the pads of all windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F

from . import operation
from .call import Call, Made
from .operation import VARIES, Operation

__all__ = ["average_pool", "same_pads"]

_POOLS: dict[int, Callable[..., Any]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def average_pool(call: Call) -> Made:
    """An AveragePool; None for those that the library reads."""
    kernel = call.attribute("kernel_shape", [])
    if len(kernel) not in _POOLS or call.attribute("count_include_pad", 0) or max(call.attribute("dilations", [1])) > 1:
        return None
    asked = call.attribute("auto_pad", "NOTSET")
    pads = same_pads(call, kernel) if asked in ("SAME_UPPER", "SAME_LOWER") else call.attribute("pads")
    if not pads or asked == "VALID" or pads[: len(kernel)] == pads[len(kernel) :]:
        return None
    strides, up = call.attribute("strides", [1] * len(kernel)), bool(call.attribute("ceil_mode", 0))
    pool = partial(_POOLS[len(kernel)], kernel_size=tuple(kernel), stride=tuple(strides), ceil_mode=up)
    # torch pads the last dimension first.
    around = [pads[place + side] for place in reversed(range(len(kernel))) for side in (0, len(kernel))]
    return Operation(partial(operation.average, pads=around, pool=pool), [VARIES])


def same_pads(call: Call, kernel: Sequence[int]) -> list[int] | None:
    """The pads that ``auto_pad`` stands for; None if they depend on the size of the input."""
    spatial = len(kernel)
    strides = call.attribute("strides", [1] * spatial)
    dilations = call.attribute("dilations", [1] * spatial)
    sizes = (call.shape(0) or (None,) * (2 + spatial))[2:]
    before, after = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (width - 1) * dilation + 1
        if stride == 1:
            total = reach - 1
        elif isinstance(size, int):
            total = max(0, (math.ceil(size / stride) - 1) * stride + reach - size)
        else:
            return None
        small, large = total // 2, total - total // 2
        upper = call.attribute("auto_pad") == "SAME_UPPER"
        before.append(small if upper else large)
        after.append(large if upper else small)
    return before + after
