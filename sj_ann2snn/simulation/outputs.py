"""Arithmetic on outputs; an output may be a tensor, or tuples, lists and dicts of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..trees import map_leaves, map_tensors, tensors

__all__ = ["Constant", "concatenated", "mean", "plain", "total"]


class Constant:
    """An output that depends neither on the input nor on time."""

    def __init__(self, value: Any) -> None:
        self.value = value


def plain(tree: Any) -> Any:
    """Outputs with constants taken out of their wrapping."""
    return map_leaves(tree, lambda leaf: leaf.value if isinstance(leaf, Constant) else leaf)


def total(before: Any, stretch: Any) -> tuple[Any, int]:
    """The sum over time of ``[n, ...]``, or None, and of a further stretch ``[t, n, ...]``; and the number t."""
    found = tensors(stretch)
    steps = int(found[0].shape[0]) if found else 1
    summed = map_tensors(stretch, lambda x: x.sum(0))
    return summed if before is None else _zipped([before, summed], lambda parts: parts[0] + parts[1]), steps


def mean(summed: Any, steps: int) -> Any:
    """The mean over time from the sum over time."""
    return map_tensors(summed, lambda x: x / steps)


def concatenated(pieces: list[Any]) -> Any:
    """Outputs as one: ``[n, ...]`` of tiles of samples, or ``[t, n, ...]`` of stretches of time."""
    return _zipped(pieces, lambda parts: torch.cat(parts))


def _zipped(trees: list[Any], join: Callable[[list[Tensor]], Any]) -> Any:
    first = trees[0]
    if isinstance(first, Tensor):
        return join(trees)
    if isinstance(first, (tuple, list)):
        return type(first)(_zipped(list(items), join) for items in zip(*trees, strict=True))
    if isinstance(first, dict):
        return {name: _zipped([tree[name] for tree in trees], join) for name in first}
    return first
