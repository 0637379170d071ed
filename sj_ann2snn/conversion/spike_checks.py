"""Checks that something spikes in a planned network."""

from __future__ import annotations

import warnings

from ..errors import ConversionError, NoSpikesWarning
from .draft import Plan

__all__ = ["require_spikes"]


def require_spikes(plan: Plan) -> None:
    """Warn if no layer of the network spikes.

    Raises:
        ConversionError: The network has no analog operations either, so there is nothing to convert.
    """
    if plan.spikes:
        return
    if not plan.analog:
        raise ConversionError(
            "The network has no activation that becomes a spiking neuron (ReLU and its relatives); "
            "there is nothing to convert."
        )
    owners = sorted({one.owner for one in plan.analog.values()})
    warnings.warn(
        "No layer of the converted network spikes: none of its activations is a ReLU or a relative, and "
        f"{' and '.join(owners)} computes {len(plan.analog)} operation(s) on analog values. The mean output is the "
        "ANN's, and every step costs as much as the ANN. An option of that plugin may add neurons after them.",
        NoSpikesWarning,
        stacklevel=4,
    )
