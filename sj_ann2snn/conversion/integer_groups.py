"""Which values of a network must be carried in the same unit, because they are added up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

__all__ = ["Group", "Member", "Place", "by_channel"]


@dataclass(frozen=True)
class Place:
    """Where a unit's channels are: the dimension of a sample, their number, and the sample's dimensions."""

    axis: int
    channels: int
    ndim: int


@dataclass
class Member:
    """A layer that makes currents: a weighted layer, or factors on values.

    Attributes:
        node: The node.
        share: Its results are in `share` times the group's unit.
        raised_for: The reader for which a value of a given unit becomes a current; None for a layer.
    """

    node: fx.Node
    share: float
    raised_for: fx.Node | None = None


@dataclass(eq=False)
class Group:
    """Currents that share a unit, perhaps one for each channel.

    Attributes:
        place: Where the channels are; None for one unit for all, "open" until a layer says so.
        members: The layers that make these currents.
        charges: Neurons read them.
        bound: Largest magnitude of any of them, in units of a threshold or of the ANN's.
        reach: Largest magnitude of a sum in one with weights of at most 1, in the integers that they multiply.
        in_a_row: Weighted layers without an activation between them, up to these currents.
        least: The unit must be as coarse as this, or readers that multiply these currents once more have no bits left.
        unit: ``[channels]`` or a scalar, float64, once it is chosen.
        shifts: Its only member is a factor for each channel, which is a power of two in this unit.
    """

    place: Place | str | None = "open"
    members: list[Member] = field(default_factory=list)
    charges: bool = False
    bound: float = 0.0
    reach: float = 1.0
    in_a_row: int = 0
    least: float = 0.0
    unit: Tensor | None = None
    shifts: bool = False
    _into: tuple[Group, float] | None = None

    def root(self) -> tuple[Group, float]:
        """The group that this one has become part of, and the factor from that one's unit to this one's."""
        group, ratio = self, 1.0
        while group._into is not None:
            group, more = group._into
            ratio *= more
        return group, ratio

    def join(self, other: Group, ratio: float) -> None:
        """Take in `other`, whose unit is to be `ratio` times this one's; both are roots."""
        if other is self:
            return
        other._into = (self, ratio)
        self.members += [Member(one.node, one.share * ratio, one.raised_for) for one in other.members]
        self.charges |= other.charges
        self.bound = max(self.bound, other.bound)
        self.reach = max(self.reach, other.reach)
        self.in_a_row = max(self.in_a_row, other.in_a_row)
        self.least = max(self.least, other.least / ratio)
        self.put(other.place)

    def put(self, place: Place | str | None) -> None:
        """Its channels are there."""
        if place == "open" or place == self.place:
            return
        self.place = place if self.place == "open" else None

    @property
    def channels(self) -> int | None:
        """Number of units; None for one."""
        return self.place.channels if isinstance(self.place, Place) else None


def by_channel(values: Tensor, place: Any) -> Tensor:
    """Values that broadcast over a sample as ``[channels, ...]``, or ``[1, ...]`` for one unit for all.

    >>> import torch
    >>> by_channel(torch.ones(4, 1, 1), Place(0, 4, 3)).shape, by_channel(torch.ones(4, 1, 1), None).shape
    (torch.Size([4, 1]), torch.Size([1, 4]))
    """
    if not isinstance(place, Place):
        return values.reshape(1, -1)
    return values.movedim(place.axis, 0).reshape(values.shape[place.axis], -1)
