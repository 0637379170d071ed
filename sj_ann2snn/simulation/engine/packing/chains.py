"""Neurons with what can be computed together with them, in one loop."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

__all__ = ["Chain", "Difference"]


@dataclass(frozen=True)
class Difference:
    """Spikes less others, as an activation of both signs makes them.

    Attributes:
        spikes: The node of the spikes.
        others: The node of the others.
        scaler: The node that scales these, which has no value of its own.
    """

    spikes: fx.Node
    others: fx.Node
    scaler: fx.Node | None

    @property
    def merged(self) -> tuple[fx.Node, ...]:
        """The nodes that have no value of their own."""
        return () if self.scaler is None else (self.scaler,)


@dataclass(frozen=True)
class Chain:
    """A neuron, and what is computed together with it.

    Attributes:
        neuron: The node.
        source: Whose currents it takes, unless there is a convolution.
        convolution: The node of the convolution in front of it.
        addend: The node that is added to the convolution's currents.
        scaler: The node that scales the addend.
        second: The node of a convolution of the addend.
        potential: The node of the initial potential.
        negated: The node that negates the currents, without a convolution.
        merged: The nodes that have no value of their own, in order of execution.
    """

    neuron: fx.Node
    source: fx.Node
    convolution: fx.Node | None = None
    addend: fx.Node | None = None
    scaler: fx.Node | None = None
    second: fx.Node | None = None
    potential: fx.Node | None = None
    negated: fx.Node | None = None
    merged: tuple[fx.Node, ...] = ()

    @property
    def sources(self) -> list[fx.Node]:
        """The nodes whose values it reads."""
        return [one for one in (self.source, self.addend) if one is not None]
