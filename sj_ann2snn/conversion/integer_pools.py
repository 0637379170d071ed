"""Average pools as sums over windows, whose division becomes part of the unit of what follows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd

from ..integers.reading import reduced_dims
from ..layers import Stepwise, SumPool
from ..support.shapes import along, spatial_of

__all__ = ["NotSummed", "sums_for"]

AVERAGES: dict[Any, type[nn.Module]] = {
    F.avg_pool1d: nn.AvgPool1d,
    F.avg_pool2d: nn.AvgPool2d,
    F.avg_pool3d: nn.AvgPool3d,
    F.adaptive_avg_pool1d: nn.AdaptiveAvgPool1d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    F.adaptive_avg_pool3d: nn.AdaptiveAvgPool3d,
    torch.avg_pool1d: nn.AvgPool1d,
    torch.adaptive_avg_pool1d: nn.AdaptiveAvgPool1d,
}
"""Functions that average, and the layers that do."""

MEANS: dict[Any, Any] = {torch.mean: torch.sum, "mean": "sum"}


UNEVEN = "Choose windows that divide the image evenly"


@dataclass(frozen=True)
class NotSummed:
    """Why an average is no sum divided by one number, and what to do about it."""

    why: str
    advice: str


def sums_for(node: fx.Node, module: Any, shape: tuple[int, ...]) -> tuple[nn.Module, int, bool] | NotSummed | None:
    """What takes the place of an average: the module, the divisor, and whether it takes the node's other arguments.

    Args:
        node: The call.
        module: The module that it calls.
        shape: Of a sample of its input.

    Returns:
        Why there is nothing; None for an operation that is no average.
    """
    operation = module.operation if isinstance(module, Stepwise) else module
    if not isinstance(operation, nn.Module) and operation in MEANS:
        dims = reduced_dims(node, len(shape))
        return Stepwise(MEANS[operation]), math.prod(shape[axis] for axis in dims), True
    if not isinstance(operation, nn.Module) and operation in AVERAGES:
        operation = AVERAGES[operation](*node.args[1:], **{k: v for k, v in node.kwargs.items() if k != "input"})
    if isinstance(operation, _AdaptiveAvgPoolNd):
        return _adaptive(operation, shape[-spatial_of(operation) :])
    if isinstance(operation, (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)):
        return _plain(operation, shape[-spatial_of(operation) :])
    return None


def _plain(pool: Any, size: tuple[int, ...]) -> tuple[nn.Module, int, bool] | NotSummed:
    spatial = len(size)
    kernel, stride, padding = (along(spatial, one) for one in (pool.kernel_size, pool.stride, pool.padding))
    rests = [(own + 2 * p - k) % s for own, k, s, p in zip(size, kernel, stride, padding, strict=True)]
    if pool.ceil_mode and any(rests):
        return NotSummed(
            "it averages with ceil_mode=True, where windows at the border have other divisors",
            "Set ceil_mode=False, which leaves these windows out; or pad the image in front of the pool until its "
            f"windows fit (positions left over: {tuple(rests)})",
        )
    if any(padding) and not pool.count_include_pad:
        return NotSummed(
            "it averages with count_include_pad=False, where windows at the border have other divisors",
            "Set count_include_pad=True, which counts the padded zeros, and check the accuracy; or set padding=0",
        )
    divisor = getattr(pool, "divisor_override", None) or math.prod(kernel)
    return SumPool(spatial, kernel, stride, padding), divisor, False


def _adaptive(pool: Any, size: tuple[int, ...]) -> tuple[nn.Module, int, bool] | NotSummed:
    wanted = pool.output_size
    results = [wanted] * len(size) if isinstance(wanted, int) else list(wanted)
    results = [own if one is None else one for one, own in zip(results, size, strict=True)]
    if any(own % one for one, own in zip(results, size, strict=True)):
        return NotSummed(f"it averages {tuple(size)} to {tuple(results)} over windows of different sizes", UNEVEN)
    kernel = tuple(own // one for one, own in zip(results, size, strict=True))
    return SumPool(len(size), kernel), math.prod(kernel), False
