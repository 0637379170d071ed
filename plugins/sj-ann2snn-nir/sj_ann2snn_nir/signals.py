"""The values of a network while it becomes a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

__all__ = ["NoNodeError", "NoTensorError", "Part", "Signal", "Translation", "array"]


@dataclass(frozen=True)
class Part:
    """A node of the graph, as the name of its class and the arguments of it."""

    kind: str
    arguments: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Signal:
    """A value of the network: the sum of what some nodes give, times a factor.

    Attributes:
        sources: Names of these nodes.
        shape: Of a sample in the network.
        held: Of a sample in the graph; another than `shape` where a Flatten is left to the next linear layer.
        factor: Of a pool, for the next weights.
        potential: What the next neurons start from, in addition to their own.
    """

    sources: tuple[str, ...]
    shape: tuple[int, ...]
    held: tuple[int, ...]
    factor: float = 1.0
    potential: Any = None


class NoNodeError(Exception):
    """NIR has no node for an operation; the text says why and what helps."""


class NoTensorError(Exception):
    """An operation computes sizes rather than values."""


@dataclass(frozen=True)
class Translation:
    """What became of a network.

    Attributes:
        parts: The nodes by name, in order.
        edges: From node to node.
        labels: For each IF node, the label of the layer.
        kept: Where tensors of the network are, unchanged: node and field by their memory.
        notes: What changes in the last bit.
    """

    parts: Mapping[str, Part]
    edges: Sequence[tuple[str, str]]
    kept: Sequence[tuple[Tensor, str, str]]
    notes: Sequence[str]

    def holds(self, name: str, tensor: Tensor) -> str | None:
        """The path of the node's field that holds just this tensor."""
        for known, node, key in self.kept:
            if known is tensor:
                return f"nodes/{node}/{key}"
        return None

    def graph(self, metadata: Mapping[str, Any]) -> Any:
        """The graph of the package nir, its types checked."""
        import nir

        nodes = {
            name: getattr(nir, part.kind)(**part.arguments, metadata=dict(part.metadata))
            for name, part in self.parts.items()
        }
        return nir.NIRGraph(nodes=nodes, edges=list(self.edges), metadata=dict(metadata))


def array(tensor: Tensor) -> Any:
    try:
        return tensor.detach().contiguous().numpy()
    except TypeError as error:
        raise NoNodeError(f"it holds {tensor.dtype}, which HDF5 lacks; convert the network in float32") from error
