"""Counts how often inputs are active, and how many connections each input has."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..simulation.engine import Packed
from ..support.trees import map_tensors, tensors

__all__ = ["Connections", "connections", "fan_out"]

EXACT = 1 << 23
"""Sums of integers up to twice this number are exact in single precision."""


@dataclass(frozen=True)
class Connections:
    """How many outputs every input element of a layer reaches, ready to be multiplied by spikes.

    >>> layer = Connections.of(torch.tensor([2.0, 4.0], dtype=torch.float64))
    >>> layer.operations(torch.tensor([[[0.0, 0.5], [2.0, 0.0]], [[0.0, -1.0], [0.0, 0.0]]]))
    [6.0, 4.0]

    Attributes:
        unit: What all numbers of outputs are multiples of.
        weights: These numbers divided by `unit`, in one row, with the channels last.
        bounds: Where to cut the row so that sums over spikes are exact in single precision.
    """

    unit: int
    weights: Tensor
    bounds: tuple[int, ...]

    @classmethod
    def of(cls, reached: Tensor) -> Connections:
        """From the number of outputs that every element ``[...]`` reaches."""
        row = (reached.movedim(0, -1) if reached.dim() > 1 else reached).flatten().round().long()
        unit = math.gcd(*torch.unique(row).tolist()) or 1
        row = row // unit
        parts = row.cumsum(0) // EXACT
        changes = (parts[1:] != parts[:-1]).nonzero().flatten() + 1
        return cls(unit, row.float(), (0, *changes.tolist(), len(row)))

    def operations(self, x: Tensor | Packed) -> list[float]:
        """The synaptic operations at every step of ``[T, N, ...]``."""
        if not isinstance(x, Tensor):
            by_place = self.weights.view(*x.shape[3:], x.shape[2])
            if bool((by_place == by_place[..., :1]).all()):
                return [float(count * self.unit) for count in x.active_per_step(by_place[..., 0]).tolist()]
            x = x.unpacked()
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        active = torch.ne(x, 0, out=torch.empty_like(x, dtype=dtype))
        # A product with the connections runs at memory speed, with channels_last images in their own order.
        if x.dim() > 3:
            active = active.movedim(2, -1)
        rows = active.reshape(x.shape[0] * x.shape[1], len(self.weights))
        weights = self.weights.to(rows.dtype)
        if len(self.bounds) == 2:
            found = rows @ weights
        else:
            parts = [rows[:, start:end] @ weights[start:end] for start, end in pairwise(self.bounds)]
            found = torch.stack(parts).sum(0, dtype=torch.float64)
        counts: list[float] = found.view(x.shape[:2]).sum(1, dtype=torch.float64).mul_(self.unit).tolist()
        return counts


def fan_out(module: nn.Module, x: Tensor, result: Tensor) -> Tensor:
    """Number of connections of each input element in a Linear, Bilinear or Conv layer, taking borders into account.

    It follows from the layer's geometry alone: its weight may be computed in any way.

    >>> fan_out(nn.Linear(2, 5), torch.zeros(1, 2), torch.zeros(1, 5))
    tensor([5., 5.], dtype=torch.float64)

    Args:
        module: The layer.
        x: An input ``[1, ...]``, for its shape.
        result: What the layer makes of it, for its shape.
    """
    return _gradient(lambda probe: _all_ones(module, probe, result), x)[0]


def _all_ones(module: Any, x: Tensor, result: Tensor) -> Tensor:
    """What `module` would make of `x` if all its weights were one."""
    if not isinstance(module, _ConvNd):  # the outputs of Linear and Bilinear depend on every feature
        return x.sum(-1, keepdim=True).expand(*x.shape[:-1], module.out_features)
    inputs, outputs = module.in_channels, module.out_channels
    first, second = (inputs, outputs) if isinstance(module, _ConvTransposeNd) else (outputs, inputs)
    weight = x.new_ones(first, second // module.groups, *module.kernel_size)
    if not isinstance(module, _ConvTransposeNd):
        for base in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
            if isinstance(module, base):
                convolved: Tensor = base._conv_forward(module, x, weight, None)  # type: ignore[arg-type]
                return convolved
    padding: Any = module.padding
    geometry = zip(x.shape[2:], module.stride, padding, module.dilation, module.kernel_size, strict=True)
    smallest = [(size - 1) * s - 2 * p + d * (k - 1) + 1 for size, s, p, d, k in geometry]
    transposed: Callable[..., Tensor] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(smallest) - 1]
    missing = [size - least for size, least in zip(result.shape[2:], smallest, strict=True)]
    return transposed(x, weight, None, module.stride, padding, missing, module.groups, module.dilation)


def connections(function: Callable[..., Any], args: Any, kwargs: Any, position: int, *, shared: bool = False) -> Tensor:
    """Number of outputs that each element of one operand of a product is multiplied into.

    >>> connections(torch.matmul, (torch.zeros(1, 2), torch.zeros(2, 5)), {}, 0)
    tensor([[5., 5.]], dtype=torch.float64)

    Args:
        function: Linear in that operand, and in all others.
        args: Its arguments.
        kwargs: Its keyword arguments.
        position: The operand's position among the tensors of the arguments.
        shared: An element reaches an output through several elements of another operand (the last dimension of a
            bilinear map), which counts once.
    """
    x = tensors((args, kwargs))[position]

    def ones(probe: Tensor) -> Any:
        positions = itertools.count()

        def replaced(value: Tensor) -> Tensor:
            index = next(positions)
            if index == position:
                return probe
            if not value.is_floating_point():
                return value
            value = torch.ones_like(value, dtype=torch.float64)
            return value / value.shape[-1] if shared and index < 2 else value

        replaced_args, replaced_kwargs = map_tensors((args, kwargs), replaced)
        return function(*replaced_args, **replaced_kwargs)

    return _gradient(ones, x)


def _gradient(function: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    """The gradient of the sum of all outputs: with all weights one, it counts the connections."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        probe = torch.zeros(x.shape, dtype=torch.float64, device=x.device, requires_grad=True)
        total = torch.stack([y.sum() for y in tensors(function(probe)) if y.requires_grad]).sum()
        (gradient,) = torch.autograd.grad(total, probe)
    return gradient
