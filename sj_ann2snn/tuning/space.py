"""What the installed plugins offer to try."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..hooks.kinds import CORRECTIONS, MODES, NEURONS, READOUTS
from ..hooks.options import declared_options
from ..hooks.registry import Registry
from .candidates import Candidate
from .defaults import Defaults

__all__ = ["Space"]

ANCHORS = ("99.9%", "max")
"""Modes with which the neurons are compared at first."""


class Space:
    """The candidates of one search.

    Args:
        registry: What plugins contribute.
        fixed: Arguments of the converter that every candidate has.
        readout: True if the caller has chosen the readout.
    """

    def __init__(self, registry: Registry, fixed: Mapping[str, Any], *, readout: bool = False) -> None:
        self.registry, self.fixed = registry, dict(fixed)
        self._defaults = Defaults(registry)
        self.readout_is_fixed = readout

    def starts(self) -> list[Candidate]:
        """Every neuron, with every value of its options, in the modes of `ANCHORS`, and every mode as it suggests."""
        modes = [{}] if "mode" in self.fixed else [{"mode": mode} for mode in ANCHORS]
        found = [{**self._finest_scale(), **neuron, **mode} for neuron in self._neurons() for mode in modes]
        return list(dict.fromkeys([*(self._candidate(arguments) for arguments in found), *self.suggested()]))

    def suggested(self) -> list[Candidate]:
        """Every mode that suggests something, with what it suggests."""
        if "mode" in self.fixed:
            return [self._candidate({})]
        return [self._candidate({"mode": text}) for cls in self._classes(MODES) if cls.suggests for text in _modes(cls)]

    def anytime(self, like: Candidate, steps: int) -> list[Candidate]:
        """`like` as one network for every number of steps up to `steps`, if its mode offers that."""
        mode = self._defaults.mode(like.arguments)
        if mode is None or not mode.anytime:
            return []
        return [self._candidate({**like.arguments, **mode.anytime, "T": steps}, like)]

    def modes(self, like: Candidate) -> list[Candidate]:
        """`like` in every mode."""
        if "mode" in self.fixed:
            return []
        arguments = self._defaults.completed(like.arguments)
        found = [
            self._candidate({**arguments, "mode": text}, like) for cls in self._classes(MODES) for text in _modes(cls)
        ]
        return list(dict.fromkeys(found))

    def neighbours(self, like: Candidate) -> list[Candidate]:
        """`like` with one argument changed: an option that a class in use declares as tunable, or the channels."""
        found: list[dict[str, Any]] = []
        if "channel_wise" not in self.fixed:
            suggested = self._defaults.suggested(like.arguments).get("channel_wise", False)
            found.append({"channel_wise": not like.arguments.get("channel_wise", suggested)})
        for cls in self._defaults.classes(like.arguments):
            found += [{name: value} for name, value in _options(cls) if name not in self.fixed]
        changed = [self._candidate({**like.arguments, **change}, like) for change in found]
        return [one for one in dict.fromkeys(changed) if one != like]

    def corrected(self, like: Candidate) -> list[Candidate]:
        """`like` with every correction."""
        if "corrections" in self.fixed:
            return []
        found = [
            self._candidate({**like.arguments, "corrections": cls.name, **options}, like)
            for cls in self._classes(CORRECTIONS)
            for options in self._variants(cls)
        ]
        return list(dict.fromkeys(found))

    def read_otherwise(self, like: Candidate) -> list[Candidate]:
        """`like` with every readout that declares what to tune, be it nothing."""
        if self.readout_is_fixed:
            return []
        return [
            like.read_by(cls.name, **options)
            for cls in self._classes(READOUTS)
            if "tunable" in vars(cls)
            for options in [{name: value} for name, value in _options(cls)] or [{}]
        ]

    def neuron(self, candidate: Candidate) -> str:
        """The name of a candidate's neuron."""
        return self._defaults.neuron(candidate.arguments)

    def corrections(self, candidate: Candidate) -> tuple[str, ...]:
        """The names of the corrections that adjust a candidate's networks."""
        return self._defaults.corrections(candidate.arguments)

    def read_late(self, like: Candidate, delay: int) -> list[Candidate]:
        """`like` without its first steps, whose number was estimated from the data."""
        return [] if self.readout_is_fixed or not delay else [like.read_by("delayed", delay=delay)]

    def layer_modes(self, like: Candidate, layer: str) -> list[Candidate]:
        """`like` with another mode, of those that take no T, in one layer."""
        if "layers" in self.fixed:
            return []
        found = []
        for cls in self._classes(MODES):
            if "T" in declared_options(cls) or cls.suggests.get("corrections"):
                continue
            for text in _modes(cls):
                if text != like.arguments.get("mode", "max"):
                    layers = {**like.arguments.get("layers", {}), layer: {"mode": text}}
                    found.append(self._candidate({**like.arguments, "layers": layers}, like))
        return found

    def advised(self, like: Candidate, arguments: Mapping[str, Any]) -> list[Candidate]:
        """`like` with the arguments that a diagnosis advises."""
        if "readout" in arguments:
            options = {name: value for name, value in arguments.items() if name != "readout"}
            return [] if self.readout_is_fixed else [like.read_by(str(arguments["readout"]), **options)]
        if not arguments or "T" in arguments or set(arguments) & set(self.fixed):
            return []
        return [self._candidate({**self._defaults.completed(like.arguments), **arguments}, like)]

    def _candidate(self, arguments: Mapping[str, Any], like: Candidate | None = None) -> Candidate:
        """A candidate without arguments that change nothing, so that no conversion is tried twice."""
        shortened = self._defaults.shortened({**arguments, **self.fixed}, self.fixed)
        return Candidate(shortened, None if like is None else like.readout)

    def _neurons(self) -> Iterator[dict[str, Any]]:
        if "neuron" in self.fixed:
            named = self.fixed["neuron"]
            classes = [cls for cls in self._classes(NEURONS) if cls.name == named]
            yield from self._variants(classes[0]) if classes else [{}]
            return
        for cls in self._classes(NEURONS):
            for options in self._variants(cls):
                yield {"neuron": cls.name, **options}

    def _variants(self, cls: Any) -> list[dict[str, Any]]:
        """The class's options as they are, and with one of the values that it declares."""
        options = [{name: value} for name, value in _options(cls) if name not in self.fixed]
        return [{}, *options]

    def _finest_scale(self) -> dict[str, Any]:
        return {} if "channel_wise" in self.fixed else {"channel_wise": True}

    def _classes(self, kind: Any) -> Sequence[Any]:
        return [one.cls for one in self.registry.registered(kind)]


def _modes(cls: Any) -> Sequence[Any]:
    """What a class of modes offers to try, as users write it."""
    texts: Sequence[Any] = cls.tunable.get("mode", (cls.example or cls.name,))
    return texts


def _options(cls: Any) -> Iterator[tuple[str, Any]]:
    """The values of a class's options that may be tried."""
    declared = declared_options(cls)
    for name, values in cls.tunable.items():
        if name in declared:
            yield from ((name, value) for value in values)
