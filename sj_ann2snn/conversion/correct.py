"""Lets corrections adjust a converted network before it is built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..compat import starting_potential
from ..contracts.correction import Correction
from ..contracts.trial import Trial, TrialSite
from ..support.blame import blame
from .absorb import absorb_bias, layer_behind
from .channel_layout import ChannelLayout
from .draft import Adjustment, Draft
from .neurons import Neurons
from .rewrite import rewrite_spiking
from .scale import scale_values
from .trial_runner import GraphRunner, Probe, Unit

__all__ = ["correct"]


def correct(
    draft: Draft,
    corrections: Sequence[tuple[Correction, str]],
    neurons: Neurons,
    batches: Iterable[Any],
    *,
    progress: bool,
) -> Draft:
    """Have `corrections` adjust the network, one after the other.

    Args:
        draft: With scales.
        corrections: Each with its name and owner, for messages.
        neurons: Makes the neurons.
        batches: The calibration data.
        progress: Show progress bars.

    Returns:
        The draft with the λ, biases, initial potentials and readout that they chose.

    Raises:
        CorrectionError: A correction set a value that the network cannot take.
        PluginError: A correction failed.
    """
    if not corrections:
        return draft
    sites: dict[fx.Node, TrialSite] = {}
    trial = _make_trial(draft, neurons, sites, batches, progress)
    for correction, who in corrections:
        with blame(who):
            correction.correct(trial)
    return _apply(draft, trial, sites, neurons)


def _make_trial(
    draft: Draft, neurons: Neurons, sites: dict[fx.Node, TrialSite], batches: Iterable[Any], progress: bool
) -> Trial:
    """The trial that the corrections receive; `sites` is filled with the nodes that they may adjust."""

    def probe(draft: Draft, node: fx.Node) -> nn.Module:
        if draft.plan.spikes[node].two_sided or len(draft.record[node].shape) < 2:
            return neurons.make(draft, node)
        layout = _layout(draft, node)
        sites[node] = _make_site(draft, node, neurons.make(draft, node, layout), layout)
        return Probe(sites[node], layout)

    network = rewrite_spiking(draft, probe)
    answer = draft.output
    adjustable = isinstance(answer, fx.Node) and layer_behind(draft, answer, 1) is not None
    dtypes = [site.scale.dtype for site in sites.values()]
    units = {
        node: Unit(site.name, _broadcast_unit(draft.units[node], site), _layout(draft, node))
        for node, site in sites.items()
    }
    return Trial(
        sites.values(),
        GraphRunner(network, draft, units, batches),
        output_channels=draft.record[answer].shape[1] if adjustable else None,
        like=torch.zeros((), dtype=dtypes[0] if dtypes else None, device=draft.device),
        progress=progress,
    )


def _make_site(draft: Draft, node: fx.Node, neuron: nn.Module, layout: ChannelLayout) -> TrialSite:
    found, maximum = draft.record[node], draft.plan.spikes[node].maximum
    like = torch.zeros((), dtype=found.dtype, device=draft.device)
    name, shape = draft.plan.decisions[node].site.name, layout.shape(found.shape[1:])
    largest = None
    if maximum is not None:
        largest = (maximum / draft.lambdas[node]).to(like).expand(shape[0]).clone()
    return TrialSite(name, shape, neuron, starting_potential(neuron), like, largest)


def _apply(draft: Draft, trial: Trial, sites: dict[fx.Node, TrialSite], neurons: Neurons) -> Draft:
    """The draft with the adjustments that the corrections made to `trial` and its `sites`."""
    adjustments: dict[fx.Node, Adjustment] = {}
    for node, site in sites.items():
        bias: Tensor | None = None
        if bool(site.bias.any()):
            bias = site.bias * draft.units[node].to(site.bias)
            # If the neuron stands behind an operation, a layer's bias would have to pass through that operation.
            behind = draft.plan.spikes[node].behind
            axis = draft.channels.axis(node)
            absorbed = None if behind or axis is None else absorb_bias(draft, node.all_input_nodes[0], bias, axis)
            if absorbed is not None:
                draft, bias = absorbed, None
        potential = site.added_potential
        if potential is not None:
            potential = _layout(draft, node).to_place(potential, before=0)
        adjustments[node] = Adjustment(bias, potential)
    if bool(trial.output_bias.any()):
        draft = absorb_bias(draft, draft.output, trial.output_bias, 1) or draft
    lambdas = {
        node: _adjust_scale(draft, node, sites[node]) if node in sites else scale
        for node, scale in draft.lambdas.items()
    }
    draft = draft.evolve(adjustments=adjustments, readout=trial.readout)
    if all(lambdas[node] is scale for node, scale in draft.lambdas.items()):
        return draft
    return scale_values(draft.evolve(lambdas=lambdas), neurons.unit)


def _layout(draft: Draft, node: fx.Node) -> ChannelLayout:
    return ChannelLayout(draft.channels.axis(node))


def _broadcast_unit(unit: Tensor, site: TrialSite) -> Tensor:
    return site.along_channels(unit.to(site.scale))


def _adjust_scale(draft: Draft, node: fx.Node, site: TrialSite) -> Tensor:
    """λ times the site's factor, at most the activation's own maximum."""
    scale, maximum = draft.lambdas[node], draft.plan.spikes[node].maximum
    if bool((site.scale == 1).all()):
        return scale
    adjusted = scale * site.scale.to(scale)
    if draft.channels.axis(node) is None:
        adjusted = adjusted.reshape(())
    return adjusted if maximum is None else adjusted.clamp(max=maximum)
