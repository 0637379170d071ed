"""What is registered by whom, and who wins.

Registration order never decides anything: a class takes the place of another only by naming it in
`replaces`, and what is left open the caller settles with `prefer`.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..contracts.correction import Correction
from ..contracts.exit_rule import ExitRule
from ..contracts.exporter import Exporter
from ..contracts.layer_mapper import Claim, LayerMapper
from ..contracts.network_description import qualified_type
from ..contracts.neuron_maker import NeuronMaker
from ..contracts.normalization import Normalization
from ..contracts.readout import Readout
from ..contracts.site import Site
from ..errors import Ann2SnnError, ConflictError, ModeError, OptionError, PluginWarning
from .options import declared_options

__all__ = ["CALLER", "HOOK_BASES", "Owner", "PluginFailure", "Registered", "Registry", "resolve"]

HOOK_BASES: dict[str, type] = {
    "ann2snn_normalizations": Normalization,
    "ann2snn_layer_mappers": LayerMapper,
    "ann2snn_neurons": NeuronMaker,
    "ann2snn_corrections": Correction,
    "ann2snn_exit_rules": ExitRule,
    "ann2snn_readouts": Readout,
    "ann2snn_exporters": Exporter,
}
"""For every hook the base class of the classes that it returns."""


@dataclass(frozen=True, order=True)
class Owner:
    """The distribution that a plugin comes from."""

    distribution: str
    version: str = ""
    entry_point: str = ""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


CALLER = Owner("your own argument")
"""Owner of what the caller hands over directly; it wins every conflict."""


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


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that could not be loaded, and why."""

    owner: Owner
    error: str
    traceback: str = ""

    def __str__(self) -> str:
        where = f" (entry point {self.owner.entry_point!r})" if self.owner.entry_point else ""
        return f"{self.owner}{where}: {self.error}"


BUILTIN = "sj-ann2snn"
"""The distribution of the built-ins."""

CONVERTER_SAYS = "Say it with Converter(prefer={first!r}) (the name of a distribution or of a class)"
"""How to settle a conflict in a conversion."""

INSTANCE_SAYS = "Give an instance instead of the name"
"""How to settle one over anything else."""

ARGUMENTS = {
    "ann2snn_normalizations": "mode",
    "ann2snn_layer_mappers": "mappers",
    "ann2snn_neurons": "neuron",
    "ann2snn_corrections": "corrections",
    "ann2snn_exit_rules": "early_exit",
    "ann2snn_readouts": "readout",
    "ann2snn_exporters": "format",
}
"""For every hook the argument by which a user names a class of it."""

SETTLED_BY_CONVERTER = ("ann2snn_normalizations", "ann2snn_layer_mappers", "ann2snn_neurons")


def resolve(
    candidates: Sequence[Registered], prefer: Iterable[str], what: str, settled_by: str = CONVERTER_SAYS
) -> Registered:
    """The one candidate that is left once replaced ones are dropped and `prefer` has spoken.

    Args:
        candidates: At least one.
        prefer: Names of distributions or of classes that win an open conflict.
        what: What they all claim, for the message.
        settled_by: What the caller can do about an open conflict, for the message; ``{first}`` is a distribution.

    Raises:
        ConflictError: More than one is left, or they replace each other.
    """
    alive = [
        one
        for one in candidates
        if not any(one.name.lower() in other.replaces for other in candidates if other is not one)
    ]
    if len(alive) == 1:
        return alive[0]
    own = [one for one in alive if one.owner == CALLER]
    if len(own) == 1:
        return own[0]
    wanted = {name.lower() for name in prefer}
    preferred = [
        one for one in alive or candidates if one.name.lower() in wanted or one.owner.distribution.lower() in wanted
    ]
    if len(preferred) == 1:
        return preferred[0]
    claimants = " and ".join(
        f"{one.name!r} of {one.owner}" for one in sorted(candidates, key=lambda one: (one.owner, one.name))
    )
    first = min(one.owner.distribution for one in candidates)
    raise ConflictError(
        f"{what} is claimed by {claimants}, and nothing says which one wins. "
        f"{settled_by.format(first=first)}, uninstall one of them, or leave one out with SJ_ANN2SNN_DISABLE_PLUGINS."
    )


@dataclass
class Registry:
    """All classes that plugins contributed, by hook, and the plugins that failed."""

    classes: dict[str, list[Registered]] = field(default_factory=lambda: {hook: [] for hook in HOOK_BASES})
    failures: list[PluginFailure] = field(default_factory=list)

    def copy(self) -> Registry:
        return Registry({hook: list(found) for hook, found in self.classes.items()}, list(self.failures))

    def add(self, contributed: Mapping[str, Iterable[type]], owner: Owner) -> None:
        """Add the classes of one plugin, by hook."""
        for hook, classes in contributed.items():
            self.classes[hook].extend(Registered(cls, owner) for cls in classes)

    def alone(self, distribution: str) -> Registry:
        """The built-ins and what one distribution contributed, as if nothing else were installed."""
        return Registry(
            {
                hook: [one for one in found if one.owner.distribution in (BUILTIN, distribution)]
                for hook, found in self.classes.items()
            }
        )

    def conflicts(self) -> list[tuple[str, str]]:
        """What several claim and nothing settles: the hook, and what the error will say."""
        found = []
        for hook in HOOK_BASES:
            said = CONVERTER_SAYS if hook in SETTLED_BY_CONVERTER else INSTANCE_SAYS
            for shown, candidates in _claimed(hook, self._sorted(hook)).items():
                try:
                    resolve(candidates, (), shown, said)
                except ConflictError as error:
                    found.append((hook, str(error)))
        return found

    @property
    def normalizations(self) -> list[Registered]:
        return self._sorted("ann2snn_normalizations")

    @property
    def mappers(self) -> list[Registered]:
        return self._sorted("ann2snn_layer_mappers")

    @property
    def neurons(self) -> list[Registered]:
        return self._sorted("ann2snn_neurons")

    @property
    def corrections(self) -> list[Registered]:
        return self._sorted("ann2snn_corrections")

    @property
    def exit_rules(self) -> list[Registered]:
        return self._sorted("ann2snn_exit_rules")

    @property
    def readouts(self) -> list[Registered]:
        return self._sorted("ann2snn_readouts")

    @property
    def exporters(self) -> list[Registered]:
        return self._sorted("ann2snn_exporters")

    def _sorted(self, hook: str) -> list[Registered]:
        return sorted(self.classes[hook], key=lambda one: (one.name, one.owner))

    def find_mode(
        self, mode: object, options: Mapping[str, Any], prefer: Sequence[str] = ()
    ) -> tuple[Normalization, Registered]:
        """The strategy that `mode` means.

        Raises:
            ModeError: No strategy knows it, or it is out of range.
            ConflictError: Several claim it.
        """
        instances: dict[int, Normalization] = {}
        candidates = []
        broken: list[str] = []
        for one in self.normalizations:
            known = declared_options(one.cls)
            given = {name: value for name, value in options.items() if name in known}
            try:
                instance = one.cls.parse(mode, **given)
            except Ann2SnnError:
                raise
            except Exception as error:
                # The mode that is asked for may well be another one's.
                broken.append(f"{one.name!r} of {one.owner} failed in parse({mode!r}) with {error!r}")
                continue
            if instance is not None and not isinstance(instance, Normalization):
                broken.append(f"{one.name!r} of {one.owner} answered {instance!r} in parse({mode!r})")
                continue
            if instance is not None:
                instances[id(one)] = instance
                candidates.append(one)
        for what in broken:
            warnings.warn(f"A mode does not work: {what}. Report it to that distribution.", PluginWarning, stacklevel=4)
        if not candidates:
            raise ModeError(self._unknown_mode(mode, broken))
        winner = resolve(candidates, prefer, f"mode={mode!r}")
        return instances[id(winner)], winner

    def _unknown_mode(self, mode: object, broken: Sequence[str]) -> str:
        written = {one.cls.example or one.name: one for one in self.normalizations}
        known = ", ".join(f"{text} ({one.owner})" for text, one in sorted(written.items()))
        message = f"mode={mode!r} is not known."
        close = difflib.get_close_matches(str(mode).lower(), [text.lower() for text in written], n=3)
        if close:
            message += f" Did you mean {' or '.join(repr(name) for name in close)}?"
        message += f" Known modes: {known}. A mode may also be given as an instance of Normalization."
        failed = [*map(str, self.failures), *broken]
        if failed:
            message += " These plugins do not work and may be what is missing: " + "; ".join(failed) + "."
        return message

    def find_neuron(self, name: str, prefer: Sequence[str] = ()) -> Registered:
        """The neuron maker called `name`.

        Raises:
            OptionError: There is none.
            ConflictError: There are several.
        """
        return _find(self.neurons, "neurons", "neuron", name, prefer, CONVERTER_SAYS)

    def find_correction(self, name: str, prefer: Sequence[str] = ()) -> Registered:
        """The correction called `name`.

        Raises:
            OptionError: There is none.
            ConflictError: There are several.
        """
        return _find(self.corrections, "corrections", "corrections", name, prefer)

    def find_exit_rule(self, name: str) -> Registered:
        """The exit rule called `name`.

        Raises:
            OptionError: There is none.
            ConflictError: There are several.
        """
        return _find(self.exit_rules, "exit rules", "early_exit", name)

    def find_readout(self, name: str) -> Registered:
        """The readout called `name`.

        Raises:
            OptionError: There is none.
            ConflictError: There are several.
        """
        return _find(self.readouts, "readouts", "readout", name)

    def find_exporter(self, name: str) -> Registered:
        """The exporter called `name`.

        Raises:
            OptionError: There is none.
            ConflictError: There are several.
        """
        return _find(self.exporters, "formats", "format", name)

    def exported_layers(self) -> dict[str, type[nn.Module]]:
        """The layers that plugins declare in `exports`, by qualified name."""
        declared = [layer for one in (*self.neurons, *self.mappers) for layer in one.cls.exports]
        return {qualified_type(layer): layer for layer in declared}

    def claimed_types(self) -> frozenset[type[nn.Module]]:
        """Module types that some mapper claims."""
        return frozenset(claim for one in self.mappers for claim in one.cls.claims if isinstance(claim, type))

    def find_mapper(self, site: Site, prefer: Sequence[str] = ()) -> Registered | None:
        """The mapper that claims `site`, or None.

        Raises:
            ConflictError: Several claim it.
        """
        candidates = [one for one in self.mappers if claims(one.cls.claims, site.operation)]
        if not candidates:
            return None
        return resolve(candidates, prefer, f"{site.name} ({site.operation_name})")


def _claimed(hook: str, known: Sequence[Registered]) -> dict[str, list[Registered]]:
    """Every name and operation that one of `known` claims, with all that do."""
    mappers = hook == "ann2snn_layer_mappers"
    # Several mappers may replace one, each for operations of its own.
    found = {
        f"{ARGUMENTS[hook]}={name!r}": [
            one for one in known if name == one.name.lower() or (not mappers and name in one.replaces)
        ]
        for name in sorted({one.name.lower() for one in known})
    }
    for claimant in known if mappers else ():
        for claim in claimant.cls.claims:
            shown = claim if isinstance(claim, str) else _qualified_name(claim)
            found[shown] = [one for one in known if claims(one.cls.claims, claim)]
    return found


def _find(
    known: Sequence[Registered],
    what: str,
    option: str,
    name: str,
    prefer: Sequence[str] = (),
    settled_by: str = INSTANCE_SAYS,
) -> Registered:
    """The one of `known`, which are `what`, that `name`, the value of `option`, means."""
    candidates = [one for one in known if one.name.lower() == name.lower() or name.lower() in one.replaces]
    if not candidates:
        listed = ", ".join(f"{one.name!r} ({one.owner})" for one in known)
        raise OptionError(f"{option}={name!r} is not known. Known {what}: {listed}.")
    return resolve(candidates, prefer, f"{option}={name!r}", settled_by)


def claims(claimed: Sequence[Claim], operation: type[nn.Module] | Callable[..., Any] | str) -> bool:
    """True if `operation` is among `claimed`: types and functions by identity, methods and functions also by name."""
    if isinstance(operation, str):
        return operation in claimed
    named = "" if isinstance(operation, type) else _qualified_name(operation)
    return any(claim == named if isinstance(claim, str) else claim is operation for claim in claimed)


def _qualified_name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
