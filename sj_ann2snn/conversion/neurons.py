"""Has the neuron maker make a neuron for every site, and checks each neuron."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn

from ..compat import MemoryModule
from ..contracts.neuron_maker import NeuronMaker, NeuronSite
from ..errors import OptionError, PluginError
from ..hooks.registry import Registry
from ..support.blame import Culprit, blame
from ..support.untouched import Untouched
from ..support.wording import shown
from .channel_layout import ChannelLayout
from .draft import Draft
from .named_readout import NamedReadout, require_readout
from .neuron_bounds import check_bound
from .neuron_rates import require_steady

__all__ = ["Neurons"]


class Neurons:
    """The neurons of one conversion.

    Args:
        choose: Returns the maker of the neurons of a site, and its name for messages, by the site's name.
        registry: What plugins contribute: makers may name their readouts.
    """

    def __init__(self, choose: Callable[[str], tuple[NeuronMaker, Culprit]], registry: Registry) -> None:
        self._choose, self._registry = choose, registry
        self._steady: list[NeuronMaker] = []

    def who(self, draft: Draft, node: fx.Node) -> Culprit:
        """The maker of a node's neuron, for messages."""
        return self._of(draft, node)[1]

    def with_readout(self, draft: Draft) -> Draft:
        """The draft with the readout that the makers of the neurons name, unless it has one.

        Raises:
            OptionError: Two of them name different ones.
            PluginError: A maker fails, or returns something else than the name and options of a known readout.
        """
        found: dict[str, NamedReadout] = {}
        makers: list[Culprit] = []
        for node in draft.plan.spikes:
            maker, who = self._of(draft, node)
            with blame(who, "asked for the readout of its networks", maker, "readout"):
                named: Any = maker.readout()
            if named is None:
                continue
            readout = require_readout(self._registry, named, who, "returned {} from readout()")
            found.setdefault(draft.plan.decisions[node].site.name, readout)
            makers.append(who)
        different = [(site, one) for site, one in found.items() if one != next(iter(found.values()))]
        if different:
            (first, wanted), (other, another) = next(iter(found.items())), different[0]
            raise OptionError(
                f"The neurons of {first} need the readout {shown(wanted)}, those of {other} {shown(another)}, and a "
                "network has one. Give both layers the same neuron and options in layers=."
            )
        if not found or draft.readout is not None:
            return draft
        name, options = named = next(iter(found.values()))
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        note = f"{makers[0]} asks for the readout {name!r}{f' ({given})' if given else ''}, which is the default"
        return draft.evolve(readout=named, notes=(*draft.notes, note))

    def unit(self, draft: Draft, node: fx.Node, scale: Tensor) -> Tensor:
        """The value of one spike of a spiking node where λ is `scale`.

        Raises:
            PluginError: The maker fails, or returns anything but a finite, positive tensor of that shape.
        """
        maker, who = self._of(draft, node)
        before = Untouched([scale], exact=True)
        with blame(who, "asked for the value of a spike", maker, "unit"):
            unit: Any = maker.unit(scale)
        _require_untouched(before, maker, who, "unit", "the value of a spike")
        if not (
            isinstance(unit, Tensor) and unit.shape == scale.shape and bool((unit > 0).all() & unit.isfinite().all())
        ):
            raise PluginError(
                f"{who} returned {shown(unit)} from unit() for λ of shape {tuple(scale.shape)}; it must be a "
                "finite, positive tensor of that shape."
            )
        return unit

    def make(
        self, draft: Draft, node: fx.Node, layout: ChannelLayout | None = None, *, negative: bool = False
    ) -> nn.Module:
        """The neuron of a spiking node.

        Args:
            draft: Calibrated.
            node: The node.
            layout: Moves the channels to the front of what the neuron receives; by default they stay in their place.
            negative: Make the neuron for negative currents of an activation of both signs.

        Raises:
            PluginError: The maker fails, makes anything but a module with memory, or makes a neuron that exceeds
                the upper bound of the activation.
        """
        maker, who = self._of(draft, node)
        decision, found = draft.plan.decisions[node], draft.record[node]
        maximum = draft.plan.spikes[node].maximum
        shape, scale, axis = found.shape[1:], draft.lambdas[node], 0
        adjusted = draft.adjustments.get(node) if negative else None
        if adjusted is not None and adjusted.negative is not None:
            scale = adjusted.negative.scale
        if layout is not None:
            shape = layout.shape(shape)
        elif scale.dim():
            axis = (draft.channels.axis(node) or 1) - 1
        site = NeuronSite(decision.site.name, shape, scale, found.dtype, maximum, axis)
        before = Untouched([site.scale], exact=True)
        with blame(who, f"asked for {site.name}", maker, "make"):
            made: Any = maker.make(site)
        _require_untouched(before, maker, who, "make", site.name)
        if not isinstance(made, MemoryModule):
            raise PluginError(
                f"{who} made {shown(made)} for {decision.site.name}; it must make a SpikingJelly "
                f"MemoryModule, which reset_net clears and which has the step modes 's' and 'm'. {who.advice}"
            )
        neuron: nn.Module = made
        if site.maximum is not None:
            with blame(who, f"tried at {site.name}", neuron, "forward"):
                check_bound(neuron, site, self.unit(draft, node, site.scale), who)
        if not any(one is maker for one in self._steady) and node is self._smallest(draft, maker):
            with blame(who, f"tried at {site.name}", neuron, "forward"):
                require_steady(maker, neuron, site, self.unit(draft, node, site.scale), who)
            self._steady.append(maker)
        return neuron

    def _of(self, draft: Draft, node: fx.Node) -> tuple[NeuronMaker, Culprit]:
        return self._choose(draft.plan.decisions[node].site.name)

    def _smallest(self, draft: Draft, maker: NeuronMaker) -> fx.Node:
        """The node with the smallest samples among those of `maker`, where a neuron is tried fastest."""
        own = [node for node in draft.plan.spikes if self._of(draft, node)[0] is maker]
        return min(own, key=lambda node: math.prod(draft.record[node].shape[1:]))


def _require_untouched(before: Untouched, maker: NeuronMaker, who: Culprit, method: str, what: str) -> None:
    if before.changed():
        raise PluginError(
            f"{who}, asked for {what}, changed λ in {type(maker).__name__}.{method}; it must not write to the tensors "
            f"that it receives. {who.advice}"
        )
