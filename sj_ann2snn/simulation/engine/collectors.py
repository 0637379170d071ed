"""Collectors take in the outputs of a tile, a few steps at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .outputs import concatenate

__all__ = ["Call", "Collector", "OverTime"]


@dataclass(frozen=True)
class Call:
    """One call of a layer or of a function, as a collector may watch it.

    Attributes:
        name: Qualified name of the layer; for a function, of the layer that calls it.
        operation: The module or the function.
        args: What it was called with. Tensors with time and samples are ``[t, n, ...]``.
        kwargs: The same by name.
        result: What it returned; None for a scaling that is computed together with a sum.
        varying: Which tensors among the arguments (in order, including nested ones) vary over time.
        over_time: False in a network that runs step by step: tensors are then ``[n, ...]``, and `varying` are those
            that depend on the network's input.
        loop: The loop over packed spikes that computed a layer; empty for torch's own operations.
    """

    name: str
    operation: nn.Module | Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    varying: tuple[int, ...]
    over_time: bool = True
    loop: str = ""


class Collector:
    """Takes in the outputs of one tile; every tile has its own, and a repeated tile gets a new one."""

    watch: Callable[[Call], None] | None = None
    """Called with every call of a layer whose input varies over time; in a network that runs step by step, with every
    call of a layer and of torch's functions."""

    drops_samples: bool = False
    """True if `add` may let samples leave: the sooner it is asked, the less is computed for nothing."""

    watches_spikes: bool = False
    """True if `watch` reads spikes alone, which may then be `Packed` on a CPU. Currents that charge neurons, and
    other results of layers, may be missing: a tensor of their shape stands for them."""

    def add(self, outputs: Any) -> Tensor | None:
        """Take in the outputs ``[t, n, ...]`` of the next steps.

        Returns:
            Indices, among the n samples, of the samples that continue; None if all do.
        """
        raise NotImplementedError  # subclasses implement it

    def result(self) -> Any:
        """The result for the tile."""
        raise NotImplementedError


class OverTime(Collector):
    """All outputs, ``[T, n, ...]``."""

    def __init__(self) -> None:
        self._stretches: list[Any] = []

    def add(self, outputs: Any) -> None:
        self._stretches.append(outputs)

    def result(self) -> Any:
        return concatenate(self._stretches)
