"""Collectors take in the outputs of a tile, a few steps at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .outputs import concatenate

__all__ = ["Collector", "OverTime"]


class Collector:
    """Takes in the outputs of one tile; every tile has its own, and a repeated tile gets a new one."""

    watch: Callable[[str, nn.Module, Any, Any], None] | None = None
    """Called for every layer that varies over time, with its name, the module, its first input ``[t, n, ...]`` and its
    output. (Not called for a scaling that is computed together with a sum.)"""

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
