"""What the nodes of a network yield for a few samples: shapes, constants, and which elements are only moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from sj_ann2snn import (
    Exporter,
    ExportError,
    NetworkDescription,
    call_operation,
    load_network,
    map_tensors,
    moved_elements,
    tensors,
)

from .drawing import NoFormError

__all__ = ["Recording", "batch_first", "record", "sizes_of"]

FEW, MORE = 2, 3
"""Numbers of samples: what differs between the two runs follows from that number."""


class _Given(Exporter):
    """Hands a description to `load_network`, which builds the network."""

    name = "given"

    def __init__(self, network: NetworkDescription) -> None:
        self.network = network

    def export(self, network: NetworkDescription, path: Path) -> None:
        raise NotImplementedError

    def load(self, path: Path) -> NetworkDescription:
        return self.network


@dataclass(frozen=True)
class Recording:
    """What every node yields, for two and for three samples.

    Attributes:
        network: The network.
        few: Results for two samples, by the name of the node.
        more: Results for three samples.
    """

    network: fx.GraphModule
    few: Mapping[str, Any]
    more: Mapping[str, Any]

    def sizes(self, name: str) -> tuple[int, ...]:
        """The sizes of a result; -k for one that is k times the number of samples."""
        return sizes_of(self.few[name], self.more[name])

    def moves(self, node: fx.Node, operands: Sequence[fx.Node]) -> list[Any] | None:
        """For each result of an operation that only moves elements, which element of its operands each one is.

        Counted through the operands, flat and joined; -1 is a zero. None for any other operation: it is run on random
        numbers, which are all different, and what comes out must be among them, or zero.
        """
        drawn = {
            one: torch.randn(self.few[one.name].shape, generator=torch.Generator().manual_seed(place)).double() * 1e9
            for place, one in enumerate(operands)
        }
        try:
            with torch.no_grad():
                result = _call(self.network, node, lambda one: drawn.get(one, self.few.get(one.name)))
        except Exception:  # an operation that does not take these numbers is no such operation
            return None
        given = [torch.cat([drawn[one][sample].flatten() for one in operands]).numpy() for sample in range(FEW)]
        found = [moved_elements(one, given) for one in tensors(result)]
        return None if any(one is None for one in found) else found


def record(network: NetworkDescription, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> Recording:
    """Run a network on zeros, for two and for three samples.

    Args:
        network: The network.
        shapes: Of a sample, by the name of the input's node.
        dtype: Of the inputs.

    Raises:
        ExportError: It cannot be run on samples of these shapes.
    """
    built = load_network("a network in memory", _Given(network))
    found = []
    for samples in (FEW, MORE):
        try:
            found.append(
                _run(built, {name: torch.zeros(samples, *shape, dtype=dtype) for name, shape in shapes.items()})
            )
        except Exception as error:
            told = ", ".join(f"{list(shape)}" for shape in shapes.values())
            reason = next(iter(str(error).splitlines()), "no reason given")
            raise ExportError(
                f"the network cannot be run on samples of the shape {told} ({type(error).__name__}: {reason[:200]}). "
                "Is input_shape that of a sample?"
            ) from error
        for module in built.modules():
            reset: Any = getattr(module, "reset", None)
            if reset is not None:
                reset()
    return Recording(built, *found)


@torch.no_grad()
def _run(network: fx.GraphModule, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    values: dict[fx.Node, Any] = {}
    for node in network.graph.nodes:
        if node.op == "placeholder":
            values[node] = inputs[node.name] if node.name in inputs else node.args[0]
        elif node.op != "output":
            values[node] = _call(network, node, values.__getitem__)
    return {node.name: map_tensors(value, lambda x: x.detach().clone()) for node, value in values.items()}


def _call(network: fx.GraphModule, node: fx.Node, read: Any) -> Any:
    args: Any = fx.map_arg(node.args, read)
    kwargs: Any = fx.map_arg(node.kwargs, read)
    if node.op == "get_attr":
        value: Any = network
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return value
    if node.op == "call_module":
        module: nn.Module = network.get_submodule(str(node.target))
        return module(*args, **kwargs)
    return call_operation(node.target, *args, **kwargs)


def sizes_of(few: Tensor, more: Tensor) -> tuple[int, ...]:
    """The sizes of a result; -k for one that is k times the number of samples.

    >>> sizes_of(torch.zeros(4, 3, 1), torch.zeros(6, 3, 1))
    (-2, 3, 1)
    """
    if few.dim() != more.dim():
        raise NoFormError("its number of dimensions depends on the number of samples")
    found = []
    for one, other in zip(few.shape, more.shape, strict=True):
        if one != other and one * MORE != other * FEW:
            raise NoFormError(f"its sizes, {list(few.shape)} for {FEW} samples, do not follow from that number")
        found.append(one if one == other else -one // FEW)
    return tuple(found)


def batch_first(sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes with the rows of a sample in front, 1 but for windows.

    Raises:
        NoFormError: The samples are not in the first dimension.
    """
    if not sizes or sizes[0] >= 0 or any(size < 0 for size in sizes[1:]):
        raise NoFormError("samples are not in its first dimension")
    return (-sizes[0], *sizes[1:])
