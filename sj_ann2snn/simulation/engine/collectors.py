"""What becomes of the outputs of a tile, stretch of time by stretch of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .outputs import concatenate

__all__ = ["Collector", "OverTime"]


class Collector:
    """Takes in the outputs of one tile; one is made for every tile, and anew if a tile has to be repeated."""

    watch: Callable[[str, nn.Module, Any, Any], None] | None = None
    """Called for every layer that varies over time with its name, the module, its first input ``[t, n, ...]`` and its
    output. (A scaling that is computed together with a sum is not seen by itself.)"""

    def add(self, outputs: Any) -> Tensor | None:
        """Take in the outputs ``[t, n, ...]`` of the next steps.

        Returns:
            Indices, among the n samples, of those that go on; None if all do.
        """
        raise NotImplementedError  # every collector has its own

    def result(self) -> Any:
        """What was made of them."""
        raise NotImplementedError


class OverTime(Collector):
    """All outputs, ``[T, n, ...]``."""

    def __init__(self) -> None:
        self._stretches: list[Any] = []

    def add(self, outputs: Any) -> None:
        self._stretches.append(outputs)

    def result(self) -> Any:
        return concatenate(self._stretches)
