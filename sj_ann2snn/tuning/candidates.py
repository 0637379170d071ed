"""A conversion that may be tried: the converter's arguments, and the readout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..support.calls import call_text

__all__ = ["Candidate"]


@dataclass(frozen=True)
class Candidate:
    """Arguments of the converter, without T, and the readout with its options.

    >>> one = Candidate({"mode": "max"}).changed(mode="99%", neuron="burst")
    >>> one.arguments
    {'mode': '99%', 'neuron': 'burst'}
    >>> one == Candidate({"neuron": "burst", "mode": "99%"})
    True
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    readout: tuple[str, Mapping[str, Any]] | None = None

    @cached_property
    def key(self) -> str:
        """The same for candidates that are the same conversion."""
        return call_text("", dict(sorted(self.arguments.items()))) + repr(self.readout)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def changed(self, **arguments: Any) -> Candidate:
        """The candidate with these arguments instead of its own."""
        return Candidate({**self.arguments, **arguments}, self.readout)

    def read_by(self, name: str, **options: Any) -> Candidate:
        """The candidate with another readout."""
        return Candidate(self.arguments, (name, options))
