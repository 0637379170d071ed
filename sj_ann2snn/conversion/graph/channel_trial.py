"""Tries an operation to find out which channel each element of its result depends on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .channels import Channels, labelled

__all__ = ["followed"]

TOLERANCE = 1e-3


def followed(operation: Callable[[Tensor], Any], x: Tensor, channels: Channels) -> Any:
    """The channels of what `operation` makes of `x`; None where it mixes several, or is not what is assumed of it.

    Each channel gets a number from 1 to 2. If an element of the result reads one channel only, then whatever weights it
    gives to the elements of that channel, it answers the number, its square and its distance to 4 with the same factor
    as the number one.

    >>> from sj_ann2snn.conversion.graph.channels import new_channels
    >>> x = torch.zeros(2, 4, 6)
    >>> followed(lambda x: 2 * x.transpose(1, 2), x, new_channels(x.shape, 2)).axis
    1
    >>> followed(lambda x: x.cumsum(2), x, new_channels(x.shape, 2)) is None
    True

    Args:
        operation: Linear up to a constant, or a maximum; it returns a tensor, several, or None if it fails.
        x: The operand.
        channels: Its channels.
    """
    if not x.is_floating_point():
        return None
    labels, count = channels.expanded(x.shape).long(), int(channels.labels.max()) + 1
    # Neighbours get numbers that are far apart, because operations mix neighbours.
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    codes = 1 + (order.double() + 1) / count
    code = codes[labels].to(x)
    trials = [torch.zeros_like(code), torch.ones_like(code), code, code.square(), 4 - code]
    results = [operation(trial) for trial in trials]
    if any(type(one) is not type(results[0]) or one is None for one in results):
        return None
    if isinstance(results[0], (tuple, list)):
        if len({len(one) for one in results}) > 1:
            return None
        return tuple(_decoded(one, codes, order, x, channels) for one in zip(*results, strict=True))
    return _decoded(tuple(results), codes, order, x, channels)


def _decoded(results: tuple[Any, ...], codes: Tensor, order: Tensor, x: Tensor, channels: Channels) -> Channels | None:
    if not all(isinstance(one, Tensor) and one.shape == results[0].shape for one in results):
        return None
    nothing, *others = (one.double().cpu() for one in results)
    one, number, square, distance = (other - nothing for other in others)
    scale = float(torch.stack([one.abs(), number.abs()]).max()) if one.numel() else 0.0
    if not scale:
        return None
    small = TOLERANCE * scale * 1e-2
    silent = (one.abs() < small) & (number.abs() < small)
    apart = (number + distance - 4 * one).abs() <= TOLERANCE * one.abs() * 4
    apart &= (square * one - number.square()).abs() <= TOLERANCE * one.square()
    found = torch.where(silent, 1.0, number / torch.where(one == 0, torch.ones_like(one), one))
    rank = ((found - 1) * len(codes) - 1).round().long().clamp(0, len(codes) - 1)
    label = order.argsort()[rank]
    exact = (found - codes[label]).abs() < 0.25 / len(codes)
    if not bool(((apart & exact) | silent).all()):
        return None
    same = one.shape == x.shape
    return labelled(label.double().masked_fill(silent, torch.nan), channels.axis if same else None)
