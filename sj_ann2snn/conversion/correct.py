"""Lets corrections adjust a converted network before it is built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..compat import starting_potential
from ..contracts.correction import Correction
from ..contracts.trial import Trial, TrialSite
from ..errors import CorrectionError
from ..support.blame import Culprit, blame
from .absorb import absorb_bias, layer_behind
from .draft import Adjustment, Draft
from .neurons import Neurons
from .rewrite import rewrite_spiking
from .scale import scale_values
from .trial_runner import GraphRunner, Probe

__all__ = ["correct"]


def correct(
    draft: Draft,
    corrections: Sequence[tuple[Correction, Culprit]],
    neurons: Neurons,
    batches: Iterable[Any],
    *,
    progress: bool,
) -> Draft:
    """Have `corrections` adjust the network, one after the other.

    Args:
        draft: With scales.
        corrections: Each with its name and owner for messages.
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
    trial, runner = _make_trial(draft, neurons, sites, batches, progress)
    for correction, who in corrections:
        try:
            with blame(who, "", correction, "correct"), runner.watched(who):
                correction.correct(trial)
        except CorrectionError as error:
            raise CorrectionError(f"{error} ({who})") from error
        _check_adjustments(trial, who)
    return _apply(draft, trial, sites, neurons)


def _make_trial(
    draft: Draft, neurons: Neurons, sites: dict[fx.Node, TrialSite], batches: Iterable[Any], progress: bool
) -> tuple[Trial, GraphRunner]:
    """The trial that the corrections receive, and its runner; `sites` is filled with the nodes that they may adjust."""

    def probe(draft: Draft, node: fx.Node) -> nn.Module:
        neuron = neurons.make(draft, node)
        found = draft.record[node]
        if draft.plan.spikes[node].two_sided or len(found.shape) < 2:
            return neuron
        sites[node] = _make_site(draft, node, neuron, neurons.who)
        return Probe(sites[node])

    network = rewrite_spiking(draft, probe, neurons.who)
    answer = draft.output
    adjustable = isinstance(answer, fx.Node) and layer_behind(draft, answer) is not None
    dtypes = [site.scale.dtype for site in sites.values()]
    units = {node: (site.name, _broadcast_unit(draft.units[node], site)) for node, site in sites.items()}
    runner = GraphRunner(network, draft, units, batches)
    trial = Trial(
        sites.values(),
        runner,
        output_channels=draft.record[answer].shape[1] if adjustable else None,
        like=torch.zeros((), dtype=dtypes[0] if dtypes else None, device=draft.device),
        progress=progress,
    )
    return trial, runner


def _check_adjustments(trial: Trial, who: Culprit) -> None:
    """Check the adjustments, which a correction may have written to without `trial.adjust`.

    Raises:
        CorrectionError: A value is not finite, or a scale is not positive.
    """
    for site in trial.sites:
        for what, value in (("scale", site.scale), ("bias", site.bias), ("initial potential", site.initial_potential)):
            good = value.isfinite() & (value > 0) if what == "scale" else value.isfinite()
            if not bool(good.all()):
                wanted = "finite and positive" if what == "scale" else "finite"
                raise CorrectionError(
                    f"{who} left values from {float(value.min()):.4g} to {float(value.max()):.4g} in the {what} of "
                    f"{site.name}; they must be {wanted}. {who.advice}"
                )
    if not bool(trial.output_bias.isfinite().all()):
        raise CorrectionError(f"{who} left a value that is not finite in the output's bias. {who.advice}")


def _make_site(draft: Draft, node: fx.Node, neuron: nn.Module, who: Culprit) -> TrialSite:
    found, maximum = draft.record[node], draft.plan.spikes[node].maximum
    like = torch.zeros((), dtype=found.dtype, device=draft.device)
    largest = None
    if maximum is not None:
        largest = (maximum / draft.lambdas[node]).to(like).expand(found.shape[1]).clone()
    name, shape = draft.plan.decisions[node].site.name, found.shape[1:]
    return TrialSite(name, shape, neuron, starting_potential(neuron), like, largest, who)


def _apply(draft: Draft, trial: Trial, sites: dict[fx.Node, TrialSite], neurons: Neurons) -> Draft:
    """The draft with the adjustments that the corrections made to `trial` and its `sites`."""
    adjustments: dict[fx.Node, Adjustment] = {}
    for node, site in sites.items():
        bias: Tensor | None = None
        if bool(site.bias.any()):
            bias = site.bias * draft.units[node].to(site.bias)
            # If the neuron stands behind an operation, a layer's bias would have to pass through that operation.
            behind = draft.plan.spikes[node].behind
            absorbed = None if behind else absorb_bias(draft, node.all_input_nodes[0], bias)
            if absorbed is not None:
                draft, bias = absorbed, None
        adjustments[node] = Adjustment(bias, site.added_potential)
    if bool(trial.output_bias.any()):
        draft = absorb_bias(draft, draft.output, trial.output_bias) or draft
    lambdas = {
        node: _adjust_scale(draft, node, sites[node]) if node in sites else scale
        for node, scale in draft.lambdas.items()
    }
    draft = draft.evolve(adjustments=adjustments, readout=trial.readout)
    if all(lambdas[node] is scale for node, scale in draft.lambdas.items()):
        return draft
    return scale_values(draft.evolve(lambdas=lambdas), neurons.unit)


def _broadcast_unit(unit: Tensor, site: TrialSite) -> Tensor:
    return site.along_channels(unit.to(site.scale))


def _adjust_scale(draft: Draft, node: fx.Node, site: TrialSite) -> Tensor:
    """λ times the site's factor, at most the activation's own maximum."""
    scale, maximum = draft.lambdas[node], draft.plan.spikes[node].maximum
    if bool((site.scale == 1).all()):
        return scale
    adjusted = scale * site.scale.to(scale)
    return adjusted if maximum is None else adjusted.clamp(max=maximum)
