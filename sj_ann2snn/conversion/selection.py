"""Which mode, neuron and mappers a conversion uses: what the caller asked for, settled with the plugins."""

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
from ..hooks.options import declared_options, instantiate
from ..hooks.registry import CALLER, Owner, resolve
from ..hooks.validation import register_plugin
from ..support.blame import blame
from ..support.wording import did_you_mean
from .legacy_arguments import instead_of
from .neurons import Neurons

__all__ = ["Selection"]


class Selection:
    """The caller's choice among everything that plugins offer.

    Args:
        mode: A mode by name or number, or an instance.
        neuron: A neuron maker by name, or an instance; None for what the mode suggests, or "if".
        channel_wise: One scale per channel; None for what the mode suggests, or not.
        corrections: Corrections by name or as instances, one or several; None for what the mode suggests, or none.
        mappers: Mappers by qualified layer name, each by name or as an instance.
        prefer: Who wins open conflicts.
        plugins: Plugin objects besides the installed ones.
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
        # An instance comes with its options; given here they would have no effect.
        mode_class = None if isinstance(mode, Normalization) else type(self.normalization)
        named = [cls for cls, instance, _ in found if instance is None]
        self._check_options(
            options, mode_class, None if isinstance(neuron, NeuronMaker) else neuron_class, named, own_keywords
        )
        options = {**{name: suggested[name] for name in suggested if name not in options}, **options}
        self.corrections: list[tuple[Correction, str]] = [
            (instantiate(cls, options) if instance is None else instance, f"Correction {cls.name!r} ({owner})")
            for cls, instance, owner in found
        ]
        self.neuron: NeuronMaker = neuron if isinstance(neuron, NeuronMaker) else instantiate(neuron_class, options)
        self.neurons = Neurons(self.neuron, str(self.neuron_owner))
        self._mappers = {id(one.cls): instantiate(one.cls, options) for one in self._registry.mappers}
        self._own_mappers = {name: self._own_mapper(mapper) for name, mapper in mappers.items()}

    @property
    def mode_label(self) -> str:
        """What to call the mode in messages."""
        return f"Mode {str(self.normalization)!r} ({self.mode_owner})"

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
                    f"mappers names the layer {name!r}, which is not a site of the network. "
                    f"Its sites are {', '.join(names)}."
                )

    def find_replacement(self, site: Site) -> tuple[Replacement | None, str, str]:
        """What becomes of `site`, by which mapper, owned by whom; None if no mapper claims it."""
        if site.name in self._own_mappers:
            mapper, owner = self._own_mappers[site.name], str(CALLER)
        else:
            found = self._registry.find_mapper(site, self._prefer)
            if found is None:
                return None, "", ""
            mapper, owner = self._mappers[id(found.cls)], str(found.owner)
        with blame(f"Mapper {mapper.name!r} ({owner}), asked about {site.name} ({site.operation_name}),"):
            replacement: Any = mapper.map(site)
        if not isinstance(replacement, Replacement):
            raise PluginError(
                f"Mapper {mapper.name!r} ({owner}) answered {replacement!r} for {site.name} ({site.operation_name}); "
                "it must answer a Replacement such as Spike(), Average() or Refuse(...)."
            )
        return replacement, mapper.name, owner

    def _own_mapper(self, mapper: str | LayerMapper) -> LayerMapper:
        if isinstance(mapper, LayerMapper):
            return mapper
        if not isinstance(mapper, str):
            raise OptionError(
                f"mappers holds {mapper!r}; allowed are the name of a mapper and an instance of LayerMapper."
            )
        found = [one for one in self._registry.mappers if one.name.lower() == mapper.lower()]
        if not found:
            known = ", ".join(f"{one.name!r} ({one.owner})" for one in self._registry.mappers)
            raise OptionError(f"mappers names {mapper!r}, which is not known. Known mappers: {known}.")
        named: LayerMapper = self._mappers[id(resolve(found, self._prefer, f"The mapper {mapper!r}").cls)]
        return named

    def _find_mode(self, mode: object, options: Mapping[str, Any]) -> tuple[Normalization, Owner]:
        if isinstance(mode, Normalization):
            return mode, CALLER
        if isinstance(mode, type):
            raise ModeError(f"mode={mode.__name__} is a class; give an instance, mode={mode.__name__}(...).")
        normalization, found = self._registry.find_mode(mode, options, self._prefer)
        return normalization, found.owner

    def _find_neuron(self, neuron: str | NeuronMaker) -> tuple[type, Owner]:
        if isinstance(neuron, NeuronMaker):
            return type(neuron), CALLER
        if not isinstance(neuron, str):
            raise OptionError(
                f"neuron={neuron!r} is not allowed: give the name of a neuron or an instance of NeuronMaker."
            )
        found = self._registry.find_neuron(neuron, self._prefer)
        return found.cls, found.owner

    def _suggested_correction(self, correction: object) -> tuple[type[Correction], Correction | None, Owner]:
        """One that the mode suggests, which may be a class of its own distribution."""
        if isinstance(correction, type) and issubclass(correction, Correction):
            return correction, None, self.mode_owner
        return self._find_correction(correction)

    def _find_correction(self, correction: object) -> tuple[type[Correction], Correction | None, Owner]:
        if isinstance(correction, Correction):
            return type(correction), correction, CALLER
        if not isinstance(correction, str):
            raise OptionError(
                f"corrections holds {correction!r}; allowed are names of corrections and instances of Correction."
            )
        found = self._registry.find_correction(correction, self._prefer)
        return found.cls, None, found.owner

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
        owners += [("mapper", one.cls) for one in self._registry.mappers]
        known = {name: f"{name} ({kind} {cls.name!r})" for kind, cls in owners for name in declared_options(cls)}
        unknown = sorted(set(options) - set(known) - {"T"})
        if unknown:
            hint = instead_of(unknown[0]) or did_you_mean(unknown[0], [*known, *own_keywords], count=1)
            raise OptionError(
                f"Converter got the unknown keyword{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}. "
                f"{hint}{' ' if hint else ''}Besides its own ({', '.join(own_keywords)}), mode "
                f"{str(self.normalization)!r} and the neuron, corrections and mappers in use know: "
                f"{', '.join(sorted(known.values()))}."
            )


def _as_sequence(corrections: object) -> Sequence[object]:
    if isinstance(corrections, (str, Correction)):
        return (corrections,)
    if isinstance(corrections, type):
        raise OptionError(f"corrections={corrections.__name__} is a class; give an instance, {corrections.__name__}().")
    if not isinstance(corrections, Sequence):
        raise OptionError(
            f"corrections={corrections!r} is not allowed: give the name of a correction, an instance of Correction, or "
            "several of them in the order in which to apply them."
        )
    return corrections
