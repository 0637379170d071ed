"""Selects the mode, neuron, corrections and mappers of a conversion from the caller's arguments and the plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..contracts.correction import Correction
from ..contracts.layer_mapper import LayerMapper
from ..contracts.neuron_maker import NeuronMaker
from ..contracts.normalization import Normalization
from ..contracts.replacements import Replacement
from ..contracts.site import Site
from ..errors import ModeError, OptionError, PluginError
from ..hooks import discovery
from ..hooks.choice import choose, class_given, find
from ..hooks.conflicts import find_mapper
from ..hooks.kinds import CORRECTIONS, LAYER_MAPPERS, MODES, NEURONS
from ..hooks.modes import find_mode
from ..hooks.options import declared_options, instantiate
from ..hooks.registry import CALLER, Owner
from ..hooks.validation import register_plugin
from ..support.blame import blame
from ..support.wording import did_you_mean, listed, shown
from .legacy_arguments import instead_of
from .neurons import Neurons

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
        own_keywords: The converter's own keywords, for the message about an unknown one.

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
        own_keywords: Sequence[str] = (),
    ) -> None:
        self._registry = discovery.load_plugins()
        if plugins:
            self._registry = self._registry.copy()
            for plugin in plugins:
                with blame(f"The plugin {shown(plugin)}, asked for its classes,"):
                    register_plugin(self._registry, plugin, CALLER)
        self._prefer = (prefer,) if isinstance(prefer, str) else tuple(prefer)
        self.normalization, self.mode_owner = self._find_mode(mode, options)
        suggested = dict(self.normalization.suggests)
        self.channel_wise: bool = suggested.pop("channel_wise", False) if channel_wise is None else channel_wise
        neuron = suggested.pop("neuron", "if") if neuron is None else neuron
        neuron_class, self.neuron_owner = self._find_neuron(neuron)
        own = suggested.pop("corrections", ())
        if corrections is None:
            found = [self._suggested_correction(one) for one in _as_sequence(own)]
        else:
            found = [self._find_correction(one) for one in _as_sequence(corrections)]
        # An instance already has its options, so options given here would have no effect.
        mode_class = None if isinstance(mode, Normalization) else type(self.normalization)
        named = [cls for cls, instance, _ in found if instance is None]
        self._check_options(
            options, mode_class, None if isinstance(neuron, NeuronMaker) else neuron_class, named, own_keywords
        )
        options = {**{name: suggested[name] for name in suggested if name not in options}, **options}
        self.corrections: list[tuple[Correction, str]] = [
            (instantiate(cls, options) if instance is None else instance, f"Correction {shown(cls.name)} ({owner})")
            for cls, instance, owner in found
        ]
        self.neuron: NeuronMaker = neuron if isinstance(neuron, NeuronMaker) else instantiate(neuron_class, options)
        self.neurons = Neurons(self.neuron, str(self.neuron_owner))
        self._mappers = {id(one.cls): instantiate(one.cls, options) for one in self._registry.registered(LAYER_MAPPERS)}
        self._own_mappers = {name: self._own_mapper(mapper) for name, mapper in mappers.items()}

    @property
    def mode_label(self) -> str:
        """Name of the mode in messages."""
        return f"Mode {shown(str(self.normalization))} ({self.mode_owner})"

    @property
    def claimed_types(self) -> frozenset[type[nn.Module]]:
        """Module types that some mapper claims."""
        own = {claim for mapper in self._own_mappers.values() for claim in mapper.claims if isinstance(claim, type)}
        return self._registry.claimed_types() | own

    def check_sites(self, names: Sequence[str]) -> None:
        """Raises:
        OptionError: The caller named a mapper for a layer that is not among `names`, the sites of the network.
        """
        for name in self._own_mappers:
            if name not in names:
                raise OptionError(
                    f"mappers names the layer {shown(name)}, which is not a site of the network. "
                    f"The sites are {listed(names)}."
                )

    def find_replacement(self, site: Site) -> tuple[Replacement | None, str, str]:
        """The replacement of `site`, the mapper's name and its owner; None if no mapper claims it."""
        if site.name in self._own_mappers:
            mapper, owner = self._own_mappers[site.name], str(CALLER)
        else:
            found = find_mapper(self._registry, site, self._prefer)
            if found is None:
                return None, "", ""
            mapper, owner = self._mappers[id(found.cls)], str(found.owner)
        with blame(f"Mapper {shown(mapper.name)} ({owner}), asked about {site.name} ({site.operation_name}),"):
            replacement: Any = mapper.map(site)
        if not isinstance(replacement, Replacement):
            raise PluginError(
                f"Mapper {shown(mapper.name)} ({owner}) returned {shown(replacement)} for {site.name} "
                f"({site.operation_name}); it must return a Replacement such as Spike(), Average() or Refuse(...)."
            )
        return replacement, mapper.name, owner

    def _own_mapper(self, mapper: str | LayerMapper) -> LayerMapper:
        if isinstance(mapper, LayerMapper):
            return mapper
        if not isinstance(mapper, str):
            raise OptionError(
                f"mappers holds {shown(mapper)}; allowed is the name of a mapper or an instance of LayerMapper."
            )
        named: LayerMapper = self._mappers[id(find(self._registry, LAYER_MAPPERS, mapper, self._prefer).cls)]
        return named

    def _find_mode(self, mode: object, options: Mapping[str, Any]) -> tuple[Normalization, Owner]:
        if isinstance(mode, Normalization):
            return mode, CALLER
        if isinstance(mode, type):
            raise ModeError(class_given(MODES, mode))
        normalization, found = find_mode(self._registry, mode, options, self._prefer)
        return normalization, found.owner

    def _find_neuron(self, neuron: str | NeuronMaker) -> tuple[type, Owner]:
        found = choose(self._registry, NEURONS, neuron, self._prefer).found
        return found.cls, found.owner

    def _suggested_correction(self, correction: object) -> tuple[type[Correction], Correction | None, Owner]:
        """A correction that the mode suggests, which may be a class of the mode's own distribution."""
        if isinstance(correction, type) and issubclass(correction, Correction):
            return correction, None, self.mode_owner
        return self._find_correction(correction)

    def _find_correction(self, correction: object) -> tuple[type[Correction], Correction | None, Owner]:
        choice = choose(self._registry, CORRECTIONS, correction, self._prefer)
        return choice.found.cls, choice.instance, choice.found.owner

    def _check_options(
        self,
        options: Mapping[str, Any],
        mode: type | None,
        neuron: type | None,
        corrections: Sequence[type],
        own_keywords: Sequence[str],
    ) -> None:
        owners: list[tuple[str, Any]] = [
            (kind, cls) for kind, cls in (("mode", mode), ("neuron", neuron)) if cls is not None
        ]
        owners += [("correction", cls) for cls in corrections]
        owners += [("mapper", one.cls) for one in self._registry.registered(LAYER_MAPPERS)]
        known = {name: f"{name} ({kind} {shown(cls.name)})" for kind, cls in owners for name in declared_options(cls)}
        unknown = sorted(set(options) - set(known) - {"T"})
        if unknown:
            hint = instead_of(unknown[0]) or did_you_mean(unknown[0], [*known, *own_keywords], count=1)
            raise OptionError(
                f"Converter got the unknown keyword{'s' if len(unknown) > 1 else ''} {listed(unknown)}. "
                f"{hint}{' ' if hint else ''}Converter itself takes {', '.join(own_keywords)}; mode "
                f"{shown(str(self.normalization))} and the neuron, corrections and mappers in use take "
                f"{listed(sorted(known.values()))}."
            )


def _as_sequence(corrections: object) -> Sequence[object]:
    if isinstance(corrections, (str, Correction, type)):
        return (corrections,)
    if not isinstance(corrections, Sequence):
        raise OptionError(
            f"corrections={shown(corrections)} is not allowed: give the name of a correction, an instance of "
            "Correction, or a list of these in the order in which to apply them."
        )
    return corrections
