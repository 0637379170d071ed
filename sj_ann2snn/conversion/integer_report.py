"""What a conversion to integers reports: the width of everything, and what is not pure."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import fx

from ..integers.purity import Obstacle
from ..integers.reading import read_network
from ..integers.widths import LayerWidths

__all__ = ["IntegerReport", "integer_report", "joined_integers"]

STEPS = 32
"""Time steps for which widths are given if the conversion names none."""


@dataclass(frozen=True)
class IntegerReport:
    """The integers of a converted network.

    Attributes:
        weights: What was asked for: "int4", "int8" or "int16".
        steps: The number of time steps for which the widths of potentials hold.
        layers: For every layer that adds something up, its bounds, whatever the input is.
        obstacles: What keeps the network from being pure, each with the remedy.
    """

    weights: str
    steps: int
    layers: tuple[LayerWidths, ...]
    obstacles: tuple[Obstacle, ...]

    def lines(self) -> list[str]:
        """A short text."""
        sums = max((one.bits for one in self.layers if one.kind != "neuron"), default=0)
        potentials = max((one.bits for one in self.layers if one.kind == "neuron"), default=0)
        found = [f"weights {self.weights}: sums take {sums} bits at most, potentials {potentials} (T = {self.steps})"]
        if self.obstacles:
            found.append("not pure:")
            found += [f"  - {one}" for one in self.obstacles]
        else:
            found.append("pure: only binary spikes pass between the layers")
        return found


def integer_report(network: fx.GraphModule, weights: str, steps: int | None, prefix: str) -> IntegerReport:
    """The report of a network of integers.

    Args:
        network: The network.
        weights: What was asked for.
        steps: The number of time steps that it is meant for; None for any.
        prefix: What the names of its layers begin with in the whole network.
    """
    found = read_network(copy.deepcopy(network).cpu())
    steps = steps or STEPS
    return IntegerReport(
        weights,
        steps,
        tuple(replace(one, name=prefix + one.name) for one in found.widths(steps)),
        tuple(replace(one, name=prefix + one.name) for one in found.obstacles),
    )


def joined_integers(reports: Sequence[IntegerReport | None]) -> IntegerReport | None:
    """One report for the parts of a network."""
    found = [one for one in reports if one is not None]
    if not found:
        return None
    return IntegerReport(
        found[0].weights,
        found[0].steps,
        tuple(layer for one in found for layer in one.layers),
        tuple(obstacle for one in found for obstacle in one.obstacles),
    )
