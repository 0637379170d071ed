"""Walks over nested tuples, lists, dicts and slices: arguments and results of calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["leaves", "map_leaves", "map_tensors", "tensors"]


def map_leaves(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Apply `change` to every leaf of `tree`; a `torch.Size` is a leaf.

    >>> map_leaves({"a": (1, [2])}, lambda leaf: leaf + 1)
    {'a': (2, [3])}
    """
    if isinstance(tree, torch.Size):
        return change(tree)
    if isinstance(tree, tuple):
        mapped = tuple(map_leaves(item, change) for item in tree)
        return type(tree)(*mapped) if hasattr(tree, "_fields") else mapped
    if isinstance(tree, list):
        return [map_leaves(item, change) for item in tree]
    if isinstance(tree, dict):
        return {key: map_leaves(item, change) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(*(map_leaves(item, change) for item in (tree.start, tree.stop, tree.step)))
    return change(tree)


def leaves(tree: Any) -> Iterator[Any]:
    """Every leaf, in the order in which `map_leaves` visits them."""
    if isinstance(tree, (tuple, list)) and not isinstance(tree, torch.Size):
        for item in tree:
            yield from leaves(item)
    elif isinstance(tree, dict):
        yield from leaves(list(tree.values()))
    elif isinstance(tree, slice):
        yield from leaves((tree.start, tree.stop, tree.step))
    else:
        yield tree


def map_tensors(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    """Apply `change` to every tensor of `tree`."""
    return map_leaves(tree, lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf)


def tensors(tree: Any) -> list[Tensor]:
    """Every tensor in `tree`."""
    return [leaf for leaf in leaves(tree) if isinstance(leaf, Tensor)]
