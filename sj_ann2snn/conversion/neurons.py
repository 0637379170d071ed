"""Has the neuron maker make a neuron for every site, and checks each neuron."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, fx, nn

from ..compat import MemoryModule
from ..contracts.neuron_maker import NeuronMaker, NeuronSite
from ..errors import PluginError
from ..support.blame import Culprit, blame
from ..support.untouched import Untouched
from ..support.wording import shown
from .channel_layout import ChannelLayout
from .draft import Draft
from .neuron_bounds import check_bound
from .neuron_rates import require_steady

__all__ = ["Neurons"]


class Neurons:
    """The neurons of one conversion.

    Args:
        maker: Makes them.
        who: The maker, for messages.
    """

    def __init__(self, maker: NeuronMaker, who: Culprit) -> None:
        self.maker, self.who = maker, who
        self._steady = False

    def unit(self, scale: Tensor) -> Tensor:
        """The value of one spike where λ is `scale`.

        Raises:
            PluginError: The maker fails, or returns anything but a finite, positive tensor of that shape.
        """
        before = Untouched([scale], exact=True)
        with blame(self.who, "asked for the value of a spike", self.maker, "unit"):
            unit: Any = self.maker.unit(scale)
        self._require_untouched(before, "unit", "the value of a spike")
        if not (
            isinstance(unit, Tensor) and unit.shape == scale.shape and bool((unit > 0).all() & unit.isfinite().all())
        ):
            raise PluginError(
                f"{self.who} returned {shown(unit)} from unit() for λ of shape {tuple(scale.shape)}; it must be a "
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
        with blame(self.who, f"asked for {site.name}", self.maker, "make"):
            made: Any = self.maker.make(site)
        self._require_untouched(before, "make", site.name)
        if not isinstance(made, MemoryModule):
            raise PluginError(
                f"{self.who} made {shown(made)} for {decision.site.name}; it must make a SpikingJelly "
                f"MemoryModule, which reset_net clears and which has the step modes 's' and 'm'. {self.who.advice}"
            )
        neuron: nn.Module = made
        if site.maximum is not None:
            with blame(self.who, f"tried at {site.name}", neuron, "forward"):
                check_bound(neuron, site, self.unit(site.scale), self.who)
        if not self._steady and node is _smallest(draft):
            with blame(self.who, f"tried at {site.name}", neuron, "forward"):
                require_steady(self.maker, neuron, site, self.unit(site.scale), self.who)
            self._steady = True
        return neuron

    def _require_untouched(self, before: Untouched, method: str, what: str) -> None:
        if before.changed():
            raise PluginError(
                f"{self.who}, asked for {what}, changed λ in {type(self.maker).__name__}.{method}; it must not write "
                f"to the tensors that it receives. {self.who.advice}"
            )


def _smallest(draft: Draft) -> fx.Node:
    """The spiking node with the smallest samples, where a neuron is tried fastest."""
    return min(draft.plan.spikes, key=lambda node: math.prod(draft.record[node].shape[1:]))
