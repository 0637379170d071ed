"""What holds for a conversion where its arguments do not say it: the suggestions of its mode, and the defaults."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ..contracts.normalization import Normalization
from ..errors import ConflictError, ModeError
from ..hooks.kinds import CORRECTIONS, MODES, NEURONS
from ..hooks.modes import find_mode
from ..hooks.options import declared_options
from ..hooks.registry import Registry

__all__ = ["Defaults"]

MODE, NEURON = "max", "if"
"""The mode and the neuron of the converter, if nobody says otherwise."""


class Defaults:
    """Completes the arguments of a conversion, and shortens them.

    Args:
        registry: What plugins contribute.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._modes: dict[str, type[Normalization] | None] = {}

    def mode(self, arguments: Mapping[str, Any]) -> type[Normalization] | None:
        """The class of the mode; None if none is known by that name."""
        mode = arguments.get("mode", MODE)
        if isinstance(mode, Normalization):
            return type(mode)
        if repr(mode) not in self._modes:
            try:
                self._modes[repr(mode)] = type(find_mode(self._registry, mode, {})[0])
            except (ModeError, ConflictError):
                self._modes[repr(mode)] = None
        return self._modes[repr(mode)]

    def suggested(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the mode suggests."""
        mode = self.mode(arguments)
        return {} if mode is None else mode.suggests

    def neuron(self, arguments: Mapping[str, Any]) -> str:
        """The name of the neuron."""
        return _name(arguments.get("neuron") or self.suggested(arguments).get("neuron", NEURON))

    def corrections(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the corrections."""
        given = arguments.get("corrections")
        return tuple(map(_name, _several(self.suggested(arguments).get("corrections") if given is None else given)))

    def classes(self, arguments: Mapping[str, Any]) -> Iterator[Any]:
        """The classes of the mode, the neuron and the corrections."""
        mode = self.mode(arguments)
        if mode is not None:
            yield mode
        for kind, names in ((NEURONS, (self.neuron(arguments),)), (CORRECTIONS, self.corrections(arguments))):
            own = [one for one in _several(self.suggested(arguments).get(kind.argument)) if isinstance(one, type)]
            known = [*own, *(one.cls for one in self._registry.registered(kind))]
            for name in names:
                yield from [cls for cls in known if cls.name == name][:1]

    def completed(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with what the mode suggests, except for corrections, so that it also holds in another mode."""
        taken = {"channel_wise", *(name for cls in self.classes(arguments) for name in declared_options(cls))}
        suggested = {name: value for name, value in self.suggested(arguments).items() if name in taken}
        return {**suggested, "neuron": self.neuron(arguments), **arguments}

    def shortened(self, arguments: Mapping[str, Any], kept: Collection[str] = ()) -> dict[str, Any]:
        """The arguments of the same conversion without what holds anyway, and without options that nothing takes.

        Args:
            arguments: Those of the converter.
            kept: Names of arguments to leave as they are.
        """
        arguments, kept = self._without_steps(arguments), {*kept, "T"}
        used = [declared_options(cls) for cls in self.classes(arguments)]
        known = {name for cls in self._every_class() for name in declared_options(cls)}
        found = {}
        for name, value in arguments.items():
            taking = [options[name].default for options in used if name in options]
            idle = name in known and not taking
            if name in kept or not (idle or self._holds_anyway(name, value, arguments, taking)):
                found[name] = value
        return found

    def _without_steps(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments without T, which follows from where a network is measured, unless it suits all T up to that."""
        mode = self.mode(arguments)
        anytime = {} if mode is None else mode.anytime
        if anytime and all(arguments.get(name) == value for name, value in anytime.items()):
            return arguments
        return {name: value for name, value in arguments.items() if name != "T"}

    def _holds_anyway(self, name: str, value: Any, arguments: Mapping[str, Any], defaults: Sequence[Any]) -> bool:
        suggested = self.suggested(arguments)
        if name == "neuron":
            return bool(value == self.neuron({**arguments, "neuron": None}))
        if name == "corrections":
            return self.corrections(arguments) == self.corrections({**arguments, "corrections": None})
        if name == "channel_wise":
            return bool(value == suggested.get("channel_wise", False))
        if name in suggested:
            return bool(value == suggested[name])
        return bool(defaults) and all(value == default for default in defaults)

    def _every_class(self) -> list[Any]:
        return [one.cls for kind in (MODES, NEURONS, CORRECTIONS) for one in self._registry.registered(kind)]


def _name(one: Any) -> str:
    """The name of a neuron or a correction that is given by its name, its class or an instance."""
    return one if isinstance(one, str) else str(getattr(one, "name", one))


def _several(given: Any) -> Sequence[Any]:
    if given is None:
        return ()
    return given if isinstance(given, (tuple, list)) else (given,)
