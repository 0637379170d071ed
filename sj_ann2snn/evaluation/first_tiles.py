"""Lets every rank cut its batches as one process would, so that floating-point sums have the same bits.

A simulation learns from its first sample how large a network's activations are, and takes more samples at a time from
then on. How many are computed together may decide about the last bit of a sum.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from torch import fx, nn

from ..distributed.ranks import Ranks
from ..errors import Ann2SnnError, DistributedError
from ..simulation.engine import Collector, Simulator
from ..simulation.partwise import PartwiseSimulator
from ..support.batches import Signature, first_samples, forward_signature
from ..support.trees import map_tensors, tensors

__all__ = ["FirstTiles"]


class FirstTiles:
    """Simulates one sample of the batches that stand before this rank's own, wherever its shape is new.

    Args:
        snn: The network.
        simulator: Runs it.
        ranks: The processes.
    """

    def __init__(self, snn: nn.Module, simulator: Simulator | PartwiseSimulator, ranks: Ranks) -> None:
        self._snn, self._simulator, self._ranks = snn, simulator, ranks
        self._seen: set[Any] = set()

    def note(self, inputs: tuple[Any, ...]) -> None:
        """The rank is going to simulate these inputs itself."""
        self._seen.add(_shapes(first_samples(inputs, 1)))

    def of(self, batch: Any) -> None:
        """Simulate a sample of another rank's batch."""
        self._simulate(self._first(batch))

    def of_parts(self, batches: Iterable[Any]) -> Iterator[Any]:
        """This rank's batches, after a sample of every part of the data that stands before its own."""
        iterator = iter(batches)
        first = list(itertools.islice(iterator, 1))
        found = self._ranks.exchanged([self._first(batch) for batch in first])
        for part in found[: self._ranks.rank]:
            for inputs in part:
                self._simulate(inputs)
        yield from first
        yield from iterator

    def _first(self, batch: Any) -> tuple[Any, ...] | None:
        """The inputs of the first sample, copied out of the batch; None if there are none."""
        try:
            snn = self._snn
            signature = Signature.of(snn) if isinstance(snn, fx.GraphModule) else forward_signature(snn, batch)
            inputs = first_samples(signature.inputs_of(batch), 1)
        except Ann2SnnError:
            return None  # the rank that has the batch will say so
        return tuple(map_tensors(value, lambda x: x.clone()) for value in inputs)

    def _simulate(self, inputs: tuple[Any, ...] | None) -> None:
        shapes = None if inputs is None else _shapes(inputs)
        if inputs is None or shapes in self._seen:
            return
        self._seen.add(shapes)
        try:
            self._simulator.run_all(inputs, lambda _: _Unread())
        except DistributedError:
            raise
        except Ann2SnnError:
            return


class _Unread(Collector):
    """Takes in nothing."""

    def add(self, outputs: Any) -> None:
        """The answer does not matter."""

    def result(self) -> None:
        """There is none."""


def _shapes(inputs: tuple[Any, ...]) -> Any:
    return tuple((tuple(x.shape), x.dtype) for x in tensors(inputs))
