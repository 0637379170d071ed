"""The registered classes and the distributions that they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..contracts.network_description import qualified_type
from ..support.blame import OWN, Culprit
from ..support.wording import shown
from .kinds import KINDS, LAYER_MAPPERS, NEURONS, HookKind

__all__ = ["BUILTIN", "CALLER", "Owner", "PluginFailure", "Registered", "Registry", "culprit"]


@dataclass(frozen=True, order=True)
class Owner:
    """The distribution that a plugin comes from."""

    distribution: str
    version: str = ""
    entry_point: str = ""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


CALLER = Owner(OWN)
"""Owner of objects that the caller passes directly; they win every conflict."""


@dataclass(frozen=True)
class Registered:
    """A class that a plugin contributed."""

    cls: Any
    owner: Owner

    @property
    def name(self) -> str:
        return str(self.cls.name)

    @property
    def replaces(self) -> frozenset[str]:
        return frozenset(name.lower() for name in self.cls.replaces)


def culprit(kind: HookKind, name: str, owner: Owner = CALLER) -> Culprit:
    """A class of `kind` in messages."""
    return Culprit(f"{kind.noun.capitalize()} {shown(name)}", str(owner))


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that could not be loaded, with the reason."""

    owner: Owner
    error: str
    traceback: str = ""

    def __str__(self) -> str:
        where = f" (entry point {shown(self.owner.entry_point)})" if self.owner.entry_point else ""
        return f"{self.owner}{where}: {self.error}"


BUILTIN = "sj-ann2snn"
"""The distribution of the built-ins."""


@dataclass
class Registry:
    """All classes that plugins contributed, by hook, and the plugins that failed."""

    classes: dict[str, list[Registered]] = field(default_factory=lambda: {hook: [] for hook in KINDS})
    failures: list[PluginFailure] = field(default_factory=list)

    def copy(self) -> Registry:
        return Registry({hook: list(found) for hook, found in self.classes.items()}, list(self.failures))

    def add(self, contributed: Mapping[str, Iterable[type]], owner: Owner) -> None:
        """Add the classes of one plugin, by hook."""
        for hook, classes in contributed.items():
            self.classes[hook].extend(Registered(cls, owner) for cls in classes)

    def alone(self, distribution: str) -> Registry:
        """The built-ins and the classes of one distribution, as if no other were installed."""
        return Registry(
            {
                hook: [one for one in found if one.owner.distribution in (BUILTIN, distribution)]
                for hook, found in self.classes.items()
            }
        )

    def registered(self, kind: HookKind) -> list[Registered]:
        """The classes of one kind, sorted by name and owner."""
        return sorted(self.classes[kind.hook], key=lambda one: (one.name, one.owner))

    def exported_layers(self) -> dict[str, type[nn.Module]]:
        """The layers that plugins declare in `exports`, by qualified name."""
        declared = [
            layer for one in (*self.registered(NEURONS), *self.registered(LAYER_MAPPERS)) for layer in one.cls.exports
        ]
        return {qualified_type(layer): layer for layer in declared}

    def maker_of(self, layer: type[nn.Module]) -> Culprit | None:
        """The neuron or mapper that declares `layer` in `exports`; None if no plugin does."""
        for kind in (NEURONS, LAYER_MAPPERS):
            for one in self.registered(kind):
                if layer in one.cls.exports:
                    return culprit(kind, one.name, one.owner)
        return None

    def claimed_types(self) -> frozenset[type[nn.Module]]:
        """Module types that some mapper claims."""
        return frozenset(
            claim for one in self.registered(LAYER_MAPPERS) for claim in one.cls.claims if isinstance(claim, type)
        )
