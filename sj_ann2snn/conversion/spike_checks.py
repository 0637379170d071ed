"""Checks that something spikes in a planned network."""

from __future__ import annotations

import warnings

from ..errors import ConversionError, NoSpikesWarning, NotConvertedWarning
from .draft import Plan

__all__ = ["require_spikes"]


def require_spikes(plan: Plan) -> None:
    """Warn if no layer of the network spikes, or if layers stay as they are in the ANN.

    Raises:
        ConversionError: The network has no analog operations either, so there is nothing to convert.
    """
    if plan.spikes:
        _warn_of_unclaimed(plan)
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


def _warn_of_unclaimed(plan: Plan) -> None:
    """Say what is not converted although it looks so: an activation that nothing claims, in front of every neuron."""
    if not plan.unclaimed:
        return
    shown = [f"{one.site.name} ({one.site.operation_name})" for one in plan.unclaimed[:5]]
    more = f" and {len(plan.unclaimed) - 5} more" if len(plan.unclaimed) > 5 else ""
    first = next(iter(plan.spikes))
    warnings.warn(
        f"No mapper claims {', '.join(shown)}{more}. Nothing spikes in front of {plan.decisions[first].site.name!r}, "
        "the first spiking neuron, so the ANN's own layers compute everything up to there, once per input. That is "
        "exact, but these layers do not spike. Replace the operations by a ReLU, or install a plugin that claims them "
        "(`sj-ann2snn plugins`), to have these layers spike as well.",
        NotConvertedWarning,
        stacklevel=5,
    )
