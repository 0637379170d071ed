"""Runs a graph once on real data and records what every node yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["Record", "TensorRecord", "map_tree", "record"]


@dataclass(frozen=True)
class TensorRecord:
    """What is known of a tensor: its shape and dtype, and where its memory lies."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    storage: int
    offset: int
    strides: tuple[int, ...]
    contiguous: bool


@dataclass(frozen=True)
class Record:
    """For every node what it yielded: tensors as `TensorRecord`, everything else as itself."""

    values: dict[fx.Node, Any]

    def __getitem__(self, node: fx.Node) -> Any:
        return self.values[node]

    def is_tensor(self, node: fx.Node) -> bool:
        """True if the node yields a tensor or a collection with a tensor in it."""
        found = False

        def look(leaf: Any) -> Any:
            nonlocal found
            found = found or isinstance(leaf, TensorRecord)
            return leaf

        map_tree(self.values[node], look)
        return found


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        # Nothing is freed on the way: equal storages must mean shared memory.
        super().__init__(module, garbage_collect_values=False)
        self.extra_traceback = False
        self.records: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.records[n] = map_tree(result, _tensor_record)
        return result


def _tensor_record(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    return TensorRecord(
        tuple(leaf.shape),
        leaf.dtype,
        leaf.untyped_storage().data_ptr(),
        int(leaf.storage_offset()),
        tuple(leaf.stride()),
        leaf.is_contiguous(),
    )


def record(module: fx.GraphModule, inputs: tuple[Any, ...]) -> tuple[Record, Any]:
    """Run `module` on `inputs`, one per placeholder; what every node yields, and the output."""
    recorder = _Recorder(module)
    with torch.no_grad():
        output = recorder.run(*inputs)
    return Record(recorder.records), output


def map_tree(tree: Any, change: Any) -> Any:
    """Apply `change` to the leaves of nested tuples, lists, dicts and slices."""
    if isinstance(tree, tuple):
        mapped = tuple(map_tree(item, change) for item in tree)
        if hasattr(tree, "_fields"):
            return type(tree)(*mapped)
        return mapped
    if isinstance(tree, list):
        return [map_tree(item, change) for item in tree]
    if isinstance(tree, dict):
        return {key: map_tree(item, change) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(map_tree(tree.start, change), map_tree(tree.stop, change), map_tree(tree.step, change))
    return change(tree)
