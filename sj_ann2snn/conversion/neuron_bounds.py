"""Checks that a neuron keeps to the upper bound of the activation that it replaces."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..compat import is_plain_if, reset_net, set_step_mode
from ..contracts.neuron_maker import NeuronSite
from ..errors import PluginError
from ..support.blame import Culprit

__all__ = ["check_bound"]

STEPS = 16
BEYOND = 2.0
"""The drive, as a multiple of the bound."""
ALLOWED = 1.25
"""The allowed mean output, as a multiple of the bound; two spikes in all are allowed on top."""


@torch.no_grad()
def check_bound(neuron: nn.Module, site: NeuronSite, unit: Tensor, who: Culprit) -> None:
    """Drive a neuron beyond the bound of its activation, and check that it does not follow.

    Plain IF neurons need no check: they emit at most λ, which never exceeds the bound.

    Args:
        neuron: Fresh; it is reset afterwards.
        site: Its site, with a maximum.
        unit: Value of one spike in the ANN's units, a scalar or ``[C]``.
        who: The maker, for the message.

    Raises:
        PluginError: The neuron emits more than the bound.
    """
    assert site.maximum is not None
    if is_plain_if(neuron):
        return
    values = site.along_channels(unit.to(site.dtype))
    drive = (BEYOND * site.maximum / values).expand(site.shape)
    neuron.to(drive.device)
    set_step_mode(neuron, "m")
    mean = neuron(drive.expand(STEPS, 1, *site.shape).contiguous()).mean((0, 1)) * values
    reset_net(neuron)
    set_step_mode(neuron, "s")
    if bool((mean > ALLOWED * site.maximum + 2 * values / STEPS).any()):
        raise PluginError(
            f"{who} emits {float(mean.max()):.4g} for a drive of {BEYOND * site.maximum:.4g} at {site.name}, whose "
            f"activation is at most {site.maximum:.4g}: the network's answer would differ from the ANN's. Such a "
            "neuron must keep to site.maximum; use another neuron, or an activation without an upper bound."
        )
