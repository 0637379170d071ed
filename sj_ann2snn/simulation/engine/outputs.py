"""Operations on outputs: tensors, or tuples, lists and dicts of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...support.trees import map_leaves, tuple_like

__all__ = ["Constant", "concatenate", "plain"]


class Constant:
    """An output that depends neither on the input nor on time."""

    def __init__(self, value: Any) -> None:
        self.value = value


def plain(tree: Any) -> Any:
    """Outputs with every `Constant` unwrapped."""
    return map_leaves(tree, lambda leaf: leaf.value if isinstance(leaf, Constant) else leaf)


def concatenate(pieces: list[Any], join: Callable[[list[Tensor]], Any] = torch.cat) -> Any:
    """Join outputs: ``[n, ...]`` of tiles of samples, or ``[t, n, ...]`` of groups of steps."""
    return _zipped(pieces, join)


def _zipped(trees: list[Any], join: Callable[[list[Tensor]], Any]) -> Any:
    first = trees[0]
    if isinstance(first, Tensor):
        return join(trees)
    if isinstance(first, (tuple, list)):
        items = [_zipped(list(parts), join) for parts in zip(*trees, strict=True)]
        return tuple_like(first, tuple(items)) if isinstance(first, tuple) else items
    if isinstance(first, dict):
        return {name: _zipped([tree[name] for tree in trees], join) for name in first}
    return first
