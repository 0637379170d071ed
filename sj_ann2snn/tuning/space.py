"""What the installed plugins offer to try."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..hooks.kinds import CORRECTIONS, MODES, NEURONS, READOUTS
from ..hooks.options import declared_options
from ..hooks.registry import Registry
from .candidates import Candidate

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
        self.readout_is_fixed = readout

    def starts(self) -> list[Candidate]:
        """Every neuron, with every value of its options, in the modes of `ANCHORS`."""
        modes = [{}] if "mode" in self.fixed else [{"mode": mode} for mode in ANCHORS]
        found = [
            self._candidate({**self._finest_scale(), **neuron, **mode}) for neuron in self._neurons() for mode in modes
        ]
        return list(dict.fromkeys(found))

    def modes(self, like: Candidate) -> list[Candidate]:
        """`like` in every mode."""
        if "mode" in self.fixed:
            return []
        found = []
        for cls in self._classes(MODES):
            texts = cls.tunable.get("mode", (cls.example or cls.name,))
            found += [self._candidate({**like.arguments, "mode": text}, like) for text in texts]
        return list(dict.fromkeys(found))

    def neighbours(self, like: Candidate) -> list[Candidate]:
        """`like` with one argument changed: an option that a class in use declares as tunable, or the channels."""
        found = []
        if "channel_wise" not in self.fixed:
            found.append({"channel_wise": not like.arguments.get("channel_wise", False)})
        neuron, mode = str(like.arguments.get("neuron", "if")), str(like.arguments.get("mode", "max"))
        used = [cls for cls in self._classes(NEURONS) if cls.name == neuron]
        used += [cls for cls in self._classes(MODES) if mode in (cls.name, *map(str, cls.tunable.get("mode", ())))]
        for cls in used:
            found += [{name: value} for name, value in _options(cls) if name not in self.fixed]
        changed = [self._candidate({**like.arguments, **change}, like) for change in found]
        return [one for one in dict.fromkeys(changed) if one != like]

    def corrected(self, like: Candidate) -> list[Candidate]:
        """`like` with every correction."""
        if "corrections" in self.fixed:
            return []
        found = []
        for cls in self._classes(CORRECTIONS):
            found += [
                self._candidate({**like.arguments, "corrections": cls.name, **options}, like)
                for options in self._variants(cls)
            ]
        return found

    def read_otherwise(self, like: Candidate) -> list[Candidate]:
        """`like` with every other readout that has something to tune."""
        if self.readout_is_fixed:
            return []
        return [
            like.read_by(cls.name, **{name: value})
            for cls in self._classes(READOUTS)
            for name, values in cls.tunable.items()
            for value in values
        ]

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
            for text in cls.tunable.get("mode", (cls.example or cls.name,)):
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
        return [self._candidate({**like.arguments, **arguments}, like)]

    def _candidate(self, arguments: Mapping[str, Any], like: Candidate | None = None) -> Candidate:
        """A candidate without arguments that nothing in use declares, such as options of another neuron."""
        merged = {**arguments, **self.fixed}
        neuron = merged.get("neuron", "if")
        if isinstance(neuron, str):
            own = {name for cls in self._classes(NEURONS) if cls.name == neuron for name in declared_options(cls)}
            others = {name for cls in self._classes(NEURONS) for name in declared_options(cls)} - own
            merged = {name: value for name, value in merged.items() if name not in others or name in self.fixed}
        if merged.get("neuron") == "if" and "neuron" not in self.fixed:
            del merged["neuron"]
        return Candidate(merged, None if like is None else like.readout)

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


def _options(cls: Any) -> Iterator[tuple[str, Any]]:
    """The values of a class's options that may be tried, without their defaults."""
    declared = declared_options(cls)
    for name, values in cls.tunable.items():
        for value in values:
            if name in declared and value != declared[name].default:
                yield name, value
