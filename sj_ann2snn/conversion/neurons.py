"""Has the neuron maker make a neuron for every site, and checks each neuron."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn

from ..compat import MemoryModule
from ..contracts.neuron_maker import NeuronMaker, NeuronSite
from ..errors import PluginError
from ..support.blame import blame
from ..support.wording import shown
from .channel_layout import ChannelLayout
from .draft import Draft
from .neuron_bounds import check_bound

__all__ = ["Neurons"]


class Neurons:
    """The neurons of one conversion.

    Args:
        maker: Makes them.
        owner: The distribution that the maker comes from, for messages.
    """

    def __init__(self, maker: NeuronMaker, owner: str) -> None:
        self.maker = maker
        self._who = f"Neuron {shown(maker.name)} ({owner})"

    def unit(self, scale: Tensor) -> Tensor:
        """The value of one spike where λ is `scale`.

        Raises:
            PluginError: The maker fails, or returns anything but a finite, positive tensor of that shape.
        """
        with blame(f"{self._who}, asked for the value of a spike,"):
            unit: Any = self.maker.unit(scale)
        if not (
            isinstance(unit, Tensor) and unit.shape == scale.shape and bool((unit > 0).all() & unit.isfinite().all())
        ):
            raise PluginError(
                f"{self._who} returned {shown(unit)} from unit() for λ of shape {tuple(scale.shape)}; it must be a "
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
        with blame(f"{self._who}, asked for {decision.site.name},"):
            shape, scale, axis = found.shape[1:], draft.lambdas[node], 0
            adjusted = draft.adjustments.get(node) if negative else None
            if adjusted is not None and adjusted.negative is not None:
                scale = adjusted.negative.scale
            if layout is not None:
                shape = layout.shape(shape)
            elif scale.dim():
                axis = (draft.channels.axis(node) or 1) - 1
            site = NeuronSite(decision.site.name, shape, scale, found.dtype, maximum, axis)
            made: Any = self.maker.make(site)
        if not isinstance(made, MemoryModule):
            raise PluginError(
                f"{self._who} made {shown(made)} for {decision.site.name}; it must make a SpikingJelly MemoryModule, "
                "which reset_net clears and which has the step modes 's' and 'm'."
            )
        neuron: nn.Module = made
        if site.maximum is not None:
            with blame(f"{self._who}, tried at {site.name},"):
                check_bound(neuron, site, self.unit(site.scale), self._who)
        return neuron
