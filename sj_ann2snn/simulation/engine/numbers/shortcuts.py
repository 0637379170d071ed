"""Faster implementations of some modules over many steps, with fewer passes through memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ....layers import CumulativeMax, CumulativeMaxPool, InitialPotential, StepBias, Stepwise
from ....support.shapes import pair
from .firing import can_fire_in_place, fire, is_spiking
from .lookup import lookup_convolution
from .pooling import pool_in_one_pass
from .precision import rounded_layer

__all__ = ["shortcut_of"]

Shortcut = Callable[[Any, Tensor, bool], Tensor | None]
"""Takes the module, the sequence ``[T, N, ...]`` and whether to overwrite it; returns None if it does not apply."""

LARGEST_WINDOW = 4
"""Largest height and width of pooling windows for which slices are faster than torch's own pooling."""


def shortcut_of(module: nn.Module, dtype: torch.dtype | None = None) -> Shortcut | None:
    """The shortcut for a module, if there is one that does everything that the module itself would do.

    Args:
        module: A module of the network.
        dtype: Dtype of the products; None for the module's own.
    """
    if module._forward_hooks or module._forward_pre_hooks:
        return None
    if is_spiking(module):
        return _fire
    if isinstance(module, (CumulativeMax, CumulativeMaxPool)):
        return _pool
    if isinstance(module, InitialPotential):
        return _start_in_place
    if isinstance(module, StepBias):
        return _add_in_place
    pool = module.operation if isinstance(module, Stepwise) else module
    if _averages_disjoint_windows(pool):
        return _average_by_slices
    return lookup_convolution(module) if dtype is None else rounded_layer(module, dtype)


def _fire(neuron: nn.Module, x_seq: Tensor, overwrite: bool) -> Tensor | None:
    return fire(neuron, x_seq, overwrite=overwrite) if can_fire_in_place(neuron, x_seq) else None


def _start_in_place(potential: InitialPotential, x_seq: Tensor, overwrite: bool) -> Tensor | None:
    return potential.start_(x_seq) if overwrite else None


def _add_in_place(steps: StepBias, x_seq: Tensor, overwrite: bool) -> Tensor | None:
    return steps.add_(x_seq) if overwrite else None


def _pool(pool: CumulativeMax | CumulativeMaxPool, x_seq: Tensor, overwrite: bool) -> Tensor | None:
    found = pool_in_one_pass(pool, x_seq)
    return pool.pool_(x_seq) if found is None and overwrite else found


def _averages_disjoint_windows(pool: Any) -> bool:
    if not isinstance(pool, nn.AvgPool2d) or pool.ceil_mode or pool.divisor_override:
        return False
    kernel = pair(pool.kernel_size)
    return pair(pool.stride) == kernel and pair(pool.padding) == (0, 0) and max(kernel) <= LARGEST_WINDOW


def _average_by_slices(module: Any, x_seq: Tensor, overwrite: bool) -> Tensor | None:
    """Add the rows, then the columns; with channels_last images, each addition runs over whole vectors."""
    x = x_seq.flatten(0, 1)
    if x.device.type != "cpu" or x.dim() != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        return None
    pool: Any = module.operation if isinstance(module, Stepwise) else module
    height, width = pair(pool.kernel_size)
    rows, columns = x.shape[2] // height * height, x.shape[3] // width * width
    total = _sum([x[:, :, start:rows:height, :columns] for start in range(height)])
    total = _sum([total[..., start::width] for start in range(width)])
    if height * width > 1:
        total /= height * width
    return total.view(*x_seq.shape[:2], *total.shape[1:])


def _sum(parts: list[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    total = parts[0] + parts[1]
    for part in parts[2:]:
        total += part
    return total
