"""Layers in front of the first neuron, computed so that a sample's result does not depend on the size of its tile.

A matrix product adds up in another order for one row than for two, and for two threads than for one. The last bit of a
constant current decides whether its neuron meets the threshold a step earlier, so the spikes would depend on how a
batch is cut into tiles. Behind the first neuron, rounded weights make sums exact instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....compat import layer

__all__ = ["Steady", "steady_layer"]

Steady = Callable[[Tensor], Tensor | None]
"""Takes the input ``[N, ...]``; returns None if it does not apply."""


def steady_layer(module: nn.Module) -> Steady | None:
    """A way to compute `module` whose result for a sample is the same in a batch of any size, if one is known."""
    if module._forward_hooks or module._forward_pre_hooks:
        return None
    weight: Any = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.dtype != torch.float32 or weight.device.type != "cpu":
        return None
    if type(module) in (nn.Linear, layer.Linear):
        return _in_double_precision(module)
    convolutions = (nn.Conv1d, nn.Conv2d, layer.Conv1d, layer.Conv2d)
    return _never_alone(module) if type(module) in convolutions else None


def _in_double_precision(linear: Any) -> Steady:
    """The product in double precision, rounded once: the order of summation changes nothing that is left."""
    weight = linear.weight.detach().double()
    bias = None if linear.bias is None else linear.bias.detach().double()

    def compute(x: Tensor) -> Tensor | None:
        return F.linear(x.double(), weight, bias).float() if x.dtype == torch.float32 else None

    return compute


def _never_alone(convolution: Any) -> Steady:
    """Torch has another algorithm for a single image or line on a single core, and the same one for any two or more."""
    dimensions = convolution.weight.dim()

    def compute(x: Tensor) -> Tensor | None:
        if x.dim() != dimensions or len(x) != 1:
            return None
        pair = torch.cat([x, x])
        if dimensions == 4:
            pair = pair.contiguous(memory_format=torch.channels_last)
        both: Tensor = convolution(pair)
        return both[:1].contiguous()  # a function of the user's may rely on the layout; else the runner changes it

    return compute
