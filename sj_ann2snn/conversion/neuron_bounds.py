"""Whether a neuron keeps to the upper bound of the activation that it stands for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..compat import is_plain_if, reset_net, set_step_mode
from ..contracts.neuron_maker import NeuronSite
from ..errors import PluginError

__all__ = ["check_bound"]

STEPS = 16
BEYOND = 2.0
"""The drive, in terms of the bound."""
ALLOWED = 1.25
"""What the mean output may be, in terms of the bound, besides two spikes in all."""


@torch.no_grad()
def check_bound(neuron: nn.Module, site: NeuronSite, unit: Tensor, who: str) -> None:
    """Drive a neuron beyond the bound of its activation.

    Plain IF neurons are spared: they emit λ at the most, which the bound limits.

    Args:
        neuron: Fresh; it is reset afterwards.
        site: Where it is to stand; with a maximum.
        unit: Value of one spike in the ANN's units, a scalar or ``[C]``.
        who: The maker, for the message.

    Raises:
        PluginError: It emits more.
    """
    assert site.maximum is not None
    if is_plain_if(neuron):
        return
    values = unit.to(site.dtype)
    if values.dim():
        values = values.view(-1, *(1,) * (len(site.shape) - 1))
    drive = (BEYOND * site.maximum / values).expand(site.shape)
    neuron.to(drive.device)
    set_step_mode(neuron, "m")
    mean = neuron(drive.expand(STEPS, 1, *site.shape).contiguous()).mean((0, 1)) * values
    reset_net(neuron)
    set_step_mode(neuron, "s")
    if bool((mean > ALLOWED * site.maximum + 2 * values / STEPS).any()):
        raise PluginError(
            f"{who} emits {float(mean.max()):.4g} for a drive of {BEYOND * site.maximum:.4g} at {site.name}, whose "
            f"activation ends at {site.maximum:.4g}: the network would answer otherwise than the ANN. Such a neuron "
            "must keep to site.maximum; take another one, or an activation without an upper bound."
        )
