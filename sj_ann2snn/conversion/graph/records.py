"""Runs a graph once on real data and records what every node yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ...support.trees import leaves, map_leaves

__all__ = ["Record", "TensorRecord", "record"]


@dataclass(frozen=True)
class TensorRecord:
    """What is known about a tensor: its shape, dtype and memory."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    storage: int
    offset: int
    strides: tuple[int, ...]
    contiguous: bool


@dataclass(frozen=True)
class Record:
    """What every node yielded: tensors as `TensorRecord`, everything else as it is."""

    values: dict[fx.Node, Any]

    def __getitem__(self, node: fx.Node) -> Any:
        return self.values[node]

    def is_tensor(self, node: fx.Node) -> bool:
        """True if the node yields a tensor or a collection with a tensor in it."""
        return bool(self.tensors(node))

    def tensors(self, node: fx.Node) -> list[TensorRecord]:
        """Every tensor that the node yields."""
        return [leaf for leaf in leaves(self.values[node]) if isinstance(leaf, TensorRecord)]


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        # Free nothing during the run, so that equal storages mean shared memory.
        super().__init__(module, garbage_collect_values=False)
        self.extra_traceback = False
        self.records: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.records[n] = map_leaves(result, _tensor_record)
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


def record(module: fx.GraphModule, inputs: tuple[Any, ...]) -> Record:
    """Run `module` on `inputs`, one per placeholder, and record what every node yields."""
    recorder = _Recorder(module)
    with torch.no_grad():
        recorder.run(*inputs)
    return Record(recorder.records)
