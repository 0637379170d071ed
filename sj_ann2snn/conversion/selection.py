"""Selects the mode, neuron, corrections and mappers of a conversion from the caller's arguments and the plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import nn

from ..contracts.correction import Correction
from ..contracts.layer_mapper import LayerMapper
from ..contracts.neuron_maker import NeuronMaker
from ..contracts.normalization import Normalization
from ..contracts.replacements import NeuronAfterPool, Replacement, Spike
from ..contracts.site import Site
from ..errors import Ann2SnnError, ModeError, OptionError, PluginError
from ..hooks import discovery
from ..hooks.choice import choose, class_given, find
from ..hooks.class_checks import CONVERTER_KEYWORDS
from ..hooks.conflicts import claims, find_mapper
from ..hooks.kinds import CORRECTIONS, LAYER_MAPPERS, MODES, NEURONS
from ..hooks.modes import find_mode
from ..hooks.options import declared_options, instantiate
from ..hooks.registry import CALLER, Owner, culprit
from ..support.blame import Culprit, blame
from ..support.wording import did_you_mean, listed, shown
from .draft import Decision
from .layer_settings import OF_A_LAYER, LayerSettings
from .legacy_arguments import instead_of

__all__ = ["Selection"]


class Selection:
    """The caller's choice among everything that plugins offer.

    Args:
        mode: A mode by name or number, or an instance.
        neuron: A neuron maker by name, or an instance; None for the mode's suggestion, otherwise "if".
        channel_wise: One scale per channel; None for the mode's suggestion, otherwise False.
        corrections: Corrections by name or as instances, one or several; None for the mode's suggestion, otherwise
            none.
        mappers: Mappers by qualified layer name, each given by name or as an instance.
        prefer: Distributions or classes that win open conflicts.
        plugins: Plugin objects in addition to the installed ones.
        options: Options of the mode, the neuron and the mappers.
        layers: Arguments for single layers, by pattern.
        inherited: Options that are used where they are declared; nothing needs to declare them.
        name: Whose arguments these are, for messages.

    Attributes:
        registry: What plugins contribute.

    Raises:
        ModeError, OptionError, ConflictError, PluginError: See `sj_ann2snn.Converter`.
    """

    def __init__(
        self,
        *,
        mode: object,
        neuron: str | NeuronMaker | None,
        channel_wise: bool | None,
        corrections: str | Correction | Sequence[str | Correction] | None,
        mappers: Mapping[str, str | LayerMapper],
        prefer: str | Sequence[str],
        plugins: Sequence[Any],
        options: Mapping[str, Any],
        layers: object = MappingProxyType({}),
        inherited: Mapping[str, Any] = MappingProxyType({}),
        name: str = "Converter",
    ) -> None:
        self._name = name
        self._given: dict[str, Any] = {"mode": mode, "neuron": neuron, "channel_wise": channel_wise}
        self._shared: dict[str, Any] = {"prefer": prefer, "plugins": plugins, "inherited": options}
        self.registry = discovery.load_plugins(plugins)
        self._prefer = (prefer,) if isinstance(prefer, str) else tuple(prefer)
        self.normalization, self.mode_owner = self._find_mode(mode, {**inherited, **options})
        suggested = dict(self.normalization.suggests)
        self.channel_wise: bool = suggested.pop("channel_wise", False) if channel_wise is None else channel_wise
        suggestion, neuron_is_suggested = suggested.pop("neuron", "if"), neuron is None
        if neuron is None:
            neuron_class, self.neuron_owner = self._suggested_neuron(suggestion)
            neuron = suggestion if isinstance(suggestion, NeuronMaker) else str(neuron_class.name)
        else:
            neuron_class, self.neuron_owner = self._find_neuron(neuron)
        own = suggested.pop("corrections", ())
        if corrections is None:
            found = [self._suggested_correction(one) for one in _as_sequence(own)]
        else:
            found = [self._find_correction(one) for one in _as_sequence(corrections)]
        # An instance already has its options, so options given here would have no effect.
        mode_class = None if isinstance(mode, Normalization) else type(self.normalization)
        named = [cls for cls, instance, _ in found if instance is None]
        self._check_options(options, mode_class, None if isinstance(neuron, NeuronMaker) else neuron_class, named)
        # Its own options also hold for what it suggests, unless the caller says something else about them.
        of_mode = _own_options(mode) if isinstance(mode, Normalization) else {}
        for_suggested = {**suggested, **inherited, **of_mode, **options}
        options = {**suggested, **inherited, **options}
        given_corrections = for_suggested if corrections is None else options
        self.corrections: list[tuple[Correction, Culprit]] = []
        for cls, instance, owner in found:
            who = culprit(CORRECTIONS, cls.name, owner)
            self.corrections.append((instantiate(cls, given_corrections, who) if instance is None else instance, who))
        self.neuron_label = culprit(NEURONS, str(neuron_class.name), self.neuron_owner)
        given_neuron = for_suggested if neuron_is_suggested else options
        self.neuron: NeuronMaker = (
            neuron if isinstance(neuron, NeuronMaker) else instantiate(neuron_class, given_neuron, self.neuron_label)
        )
        self._mappers = {
            id(one.cls): instantiate(one.cls, options, culprit(LAYER_MAPPERS, one.name, one.owner))
            for one in self.registry.registered(LAYER_MAPPERS)
        }
        self._own_mappers = {name: self._own_mapper(mapper) for name, mapper in mappers.items()}
        given = [one for one in (mode, neuron, *(one for _, one, _ in found), *mappers.values()) if one is not None]
        self.settings = self._settings(options, given, mappers)
        self._mapper_names = {name for name, mapper in mappers.items() if isinstance(mapper, str)}
        self._layers = LayerSettings(layers)
        self._at: dict[tuple[str, ...], Selection] = {}
        if self._layers:
            self.settings["layers"] = {
                pattern: self._as_given_by_name(arguments) for pattern, arguments in self._layers.by_pattern.items()
            }
            for pattern in self._layers.by_pattern:
                self._of_patterns((pattern,))  # so that errors come before a network is converted

    def _settings(
        self, options: Mapping[str, Any], given: Sequence[object], mappers: Mapping[str, str | LayerMapper]
    ) -> dict[str, Any]:
        """What reproduces the selection besides the names, for the report: plain values.

        Args:
            options: Options given by keyword, or suggested by the mode.
            given: What the caller gave; instances carry options of their own.
            mappers: Mappers for single layers.
        """
        found: dict[str, Any] = {"channel_wise": self.channel_wise}
        for one in given:
            if isinstance(one, (Normalization, NeuronMaker, Correction, LayerMapper)):
                found |= _own_options(one)
        found |= options
        if mappers:
            found["mappers"] = {name: one if isinstance(one, str) else one.name for name, one in mappers.items()}
        return {name: _as_plain(value) for name, value in found.items()}

    def _as_given_by_name(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a layer with the name and the options of a plugin's class in place of an instance.

        A class that no plugin registers has no name that another conversion could find; the text says so.
        """
        found: dict[str, Any] = {}
        for name, value in arguments.items():
            kind = MODES if isinstance(value, Normalization) else NEURONS if isinstance(value, NeuronMaker) else None
            if kind is None:
                found[name] = _as_plain(value)
            elif any(type(value) is one.cls for one in self.registry.registered(kind)):
                found[name] = str(value) if kind is MODES else value.name
                found |= {option: one for option, one in _own_options(value).items() if option not in arguments}
            else:
                found[name] = f"<your own {type(value).__name__}: give it as an object>"
        return {name: _as_plain(value) for name, value in found.items()}

    def at(self, name: str) -> Selection:
        """What is selected for the layer called `name`: this selection, unless `layers` has a pattern that matches."""
        patterns = self._layers.matching(name)
        return self._of_patterns(patterns) if patterns else self

    def _of_patterns(self, patterns: tuple[str, ...]) -> Selection:
        """The selection of the layers that match exactly these patterns of `layers`.

        Raises:
            OptionError, ModeError, ConflictError: As for the selection of a whole network; the message names a pattern.
        """
        if patterns not in self._at:
            name = f"layers[{shown(patterns[-1])}]"
            arguments = self._layers.merged(patterns)
            own = {key: arguments.pop(key, given) for key, given in self._given.items()}
            try:
                self._at[patterns] = Selection(
                    **own, **self._shared, corrections=(), mappers={}, options=arguments, name=name
                )
            except Ann2SnnError as error:
                if error.args and isinstance(error.args[0], str) and name not in error.args[0]:
                    error.args = (f"In {name}: {error.args[0]}", *error.args[1:])
                raise
        return self._at[patterns]

    @property
    def mode_label(self) -> Culprit:
        """The mode in messages."""
        who = culprit(MODES, self.normalization.name, self.mode_owner)
        with blame(who, "asked for its name", self.normalization, "__str__"):
            return culprit(MODES, str(self.normalization), self.mode_owner)

    @property
    def claimed_types(self) -> frozenset[type[nn.Module]]:
        """Module types that some mapper claims."""
        own = {claim for mapper in self._own_mappers.values() for claim in mapper.claims if isinstance(claim, type)}
        return self.registry.claimed_types() | own

    def check_sites(self, sites: Sequence[tuple[str, Decision]]) -> None:
        """Check the names and patterns of layers against the network.

        Args:
            sites: What was decided for every site of the network, with its qualified name.

        Raises:
            OptionError: The caller named a mapper for something that is not a site, or a pattern of `layers` has no
                effect.
        """
        for pattern, arguments in self._layers.by_pattern.items():
            self._check_pattern(pattern, arguments, sites)
        names = list(dict.fromkeys(name for name, _ in sites))
        for name, mapper in self._own_mappers.items():
            if name not in names:
                hint = did_you_mean(name, names)
                raise OptionError(
                    f"mappers names the layer {shown(name)}, which is not a site of the network. "
                    f"{hint}{' ' if hint else ''}The sites are {listed(names)}. A layer of your own is a site only "
                    f"if its mapper claims its type; {shown(mapper.name)} claims {_claimed(mapper)}."
                )

    def _check_pattern(self, pattern: str, arguments: Mapping[str, Any], sites: Sequence[tuple[str, Decision]]) -> None:
        declared = {type(mapper).name: set(declared_options(type(mapper))) for mapper in self._mappers.values()}
        of_mappers = set(arguments) & set().union(*declared.values())
        for option in sorted(of_mappers):
            taking = [name for name, one in sites if option in declared.get(one.mapper, ())]
            self._layers.require_effect(pattern, taking, f"layer whose mapper takes {option}")
        if set(arguments) - of_mappers:
            spiking = [name for name, one in sites if isinstance(one.replacement, (Spike, NeuronAfterPool))]
            self._layers.require_effect(pattern, spiking, "layer that becomes a spiking neuron")

    def find_replacement(self, site: Site, prefix: str = "") -> tuple[Replacement | None, str, str]:
        """The replacement of `site`, the mapper's name and its owner; None if no mapper claims it.

        Args:
            site: A site of the part that is converted.
            prefix: What the site's name begins with in the whole network.
        """
        name = prefix + site.name
        if name in self._own_mappers:
            mapper, owner = self._own_mappers[name], str(CALLER)
            if name in self._mapper_names:
                _require_claimed(mapper, site)
                mapper = next(one for one in self.at(name)._mappers.values() if type(one) is type(mapper))
        else:
            found = find_mapper(self.registry, site, self._prefer)
            if found is None:
                return None, "", ""
            mapper, owner = self.at(name)._mappers[id(found.cls)], str(found.owner)
        who = Culprit(f"Mapper {shown(mapper.name)}", owner)
        claimed = "" if claims(mapper.claims, site.operation) else ", which it does not claim"
        with blame(who, f"asked about {site.name} ({site.operation_name}){claimed}", mapper, "map"):
            replacement: Any = mapper.map(site)
        if not isinstance(replacement, Replacement):
            raise PluginError(
                f"{who} returned {shown(replacement)} for {site.name} ({site.operation_name}); it must return a "
                f"Replacement such as Spike(), Average() or Refuse(...). {who.advice}"
            )
        return replacement, mapper.name, owner

    def _own_mapper(self, mapper: str | LayerMapper) -> LayerMapper:
        if isinstance(mapper, LayerMapper):
            return mapper
        if not isinstance(mapper, str):
            raise OptionError(
                f"mappers holds {shown(mapper)}; allowed is the name of a mapper or an instance of LayerMapper."
            )
        named: LayerMapper = self._mappers[id(find(self.registry, LAYER_MAPPERS, mapper, self._prefer).cls)]
        return named

    def _find_mode(self, mode: object, options: Mapping[str, Any]) -> tuple[Normalization, Owner]:
        if isinstance(mode, Normalization):
            return mode, CALLER
        if isinstance(mode, type):
            raise ModeError(class_given(MODES, mode))
        normalization, found = find_mode(self.registry, mode, options, self._prefer)
        return normalization, found.owner

    def _find_neuron(self, neuron: str | NeuronMaker) -> tuple[type[NeuronMaker], Owner]:
        found = choose(self.registry, NEURONS, neuron, self._prefer).found
        return found.cls, found.owner

    def _suggested_neuron(self, neuron: Any) -> tuple[type[NeuronMaker], Owner]:
        """The neuron that the mode suggests, which may be a class of the mode's own distribution."""
        if isinstance(neuron, type) and issubclass(neuron, NeuronMaker):
            return neuron, self.mode_owner
        return self._find_neuron(neuron)

    def _suggested_correction(self, correction: object) -> tuple[type[Correction], Correction | None, Owner]:
        """A correction that the mode suggests, which may be a class of the mode's own distribution."""
        if isinstance(correction, type) and issubclass(correction, Correction):
            return correction, None, self.mode_owner
        return self._find_correction(correction)

    def _find_correction(self, correction: object) -> tuple[type[Correction], Correction | None, Owner]:
        choice = choose(self.registry, CORRECTIONS, correction, self._prefer)
        return choice.found.cls, choice.instance, choice.found.owner

    def _check_options(
        self,
        options: Mapping[str, Any],
        mode: type | None,
        neuron: type | None,
        corrections: Sequence[type],
    ) -> None:
        whole = self._name == "Converter"
        own_keywords = [*(one for one in CONVERTER_KEYWORDS if one != "momentum"), "T"] if whole else [*OF_A_LAYER]
        owners: list[tuple[str, Any]] = [
            (kind, cls) for kind, cls in (("mode", mode), ("neuron", neuron)) if cls is not None
        ]
        owners += [("correction", cls) for cls in corrections]
        owners += [("mapper", one.cls) for one in self.registry.registered(LAYER_MAPPERS)]
        known = {name: f"{name} ({kind} {shown(cls.name)})" for kind, cls in owners for name in declared_options(cls)}
        unknown = sorted(set(options) - set(known) - {"T"})
        if unknown:
            hint = instead_of(unknown[0]) or did_you_mean(unknown[0], [*known, *own_keywords], count=1)
            raise OptionError(
                f"{self._name} got the unknown keyword{'s' if len(unknown) > 1 else ''} {listed(unknown)}. "
                f"{hint}{' ' if hint else ''}{self._name} itself takes {', '.join(own_keywords)}; mode "
                f"{shown(str(self.normalization))} and the neuron, corrections and mappers in use take "
                f"{listed(sorted(known.values()))}."
            )


def _own_options(one: object) -> dict[str, Any]:
    """The options of an instance that differ from the defaults of its class."""
    return {
        name: value
        for name, parameter in declared_options(type(one)).items()
        if (value := getattr(one, name, parameter.default)) is not parameter.default
        and repr(value) != repr(parameter.default)
    }


def _as_plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str, type(None), dict)) else shown(value)


def _require_claimed(mapper: LayerMapper, site: Site) -> None:
    """Raises:
    OptionError: The caller named a mapper for an operation that it does not claim. (An instance may serve any.)
    """
    if not claims(mapper.claims, site.operation):
        raise OptionError(
            f"mappers={{{shown(site.name)}: {shown(mapper.name)}}} is not allowed: {site.name} is "
            f"{site.operation_name}, which the mapper {shown(mapper.name)} does not claim; it claims "
            f"{_claimed(mapper)}."
        )


def _claimed(mapper: LayerMapper) -> str:
    return ", ".join(one if isinstance(one, str) else Site("", one).operation_name for one in mapper.claims)


def _as_sequence(corrections: object) -> Sequence[object]:
    if isinstance(corrections, (str, Correction, type)):
        return (corrections,)
    if not isinstance(corrections, Sequence):
        raise OptionError(
            f"corrections={shown(corrections)} is not allowed: give the name of a correction, an instance of "
            "Correction, or a list of these in the order in which to apply them."
        )
    return corrections
