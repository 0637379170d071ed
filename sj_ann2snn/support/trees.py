"""Walks over nested tuples, lists, dicts and slices: arguments and results of calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["field_names", "leaves", "map_leaves", "map_tensors", "tensors", "tuple_like"]


def map_leaves(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Apply `change` to every leaf of `tree`; a `torch.Size` is a leaf.

    >>> map_leaves({"a": (1, [2])}, lambda leaf: leaf + 1)
    {'a': (2, [3])}
    """
    if isinstance(tree, torch.Size):
        return change(tree)
    if isinstance(tree, tuple):
        return tuple_like(tree, tuple(map_leaves(item, change) for item in tree))
    if isinstance(tree, list):
        return [map_leaves(item, change) for item in tree]
    if isinstance(tree, dict):
        return {key: map_leaves(item, change) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(*(map_leaves(item, change) for item in (tree.start, tree.stop, tree.step)))
    return change(tree)


def tuple_like(like: tuple[Any, ...], items: tuple[Any, ...]) -> Any:
    """A tuple of the kind of `like`: a plain one, a named one, or one of torch's results.

    >>> tuple_like(torch.ones(2, 1).max(1), (3, 4)).indices
    4
    """
    kind: Any = type(like)
    if hasattr(kind, "_fields"):
        return kind(*items)
    return kind(items) if hasattr(kind, "n_sequence_fields") else items


def field_names(value: Any) -> tuple[str, ...]:
    """The names of a tuple's fields, in order; none for other values.

    >>> field_names(torch.ones(2, 1).max(1)), field_names((1, 2))
    (('values', 'indices'), ())
    """
    if not isinstance(value, tuple):
        return ()
    names: Any = getattr(value, "_fields", None) or getattr(value, "__match_args__", ())
    return tuple(names)


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
