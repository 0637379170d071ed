"""Lets corrections adjust a converted network before it is built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..compat import starting_potential
from ..contracts.correction import Correction
from ..contracts.trial import Trial
from ..contracts.trial_layer import TrialLayer
from ..contracts.trial_site import TrialSite
from ..errors import CorrectionError
from ..hooks.registry import Registry
from ..support.blame import Culprit, blame
from ..support.names import NEGATIVE
from .absorb import absorb_bias
from .calibrate import CalibrationData
from .channel_layout import ChannelLayout
from .draft import Adjustment, Draft, NegativeNeuron, TunedLayer
from .named_readout import require_readout
from .neurons import Neurons
from .rewrite import rewrite_spiking
from .scale import scale_values
from .trial_layers import LayerProbe, make_layers, put_weights
from .trial_outputs import add_output_biases, trial_outputs
from .trial_runner import GraphRunner, Probe, Unit

__all__ = ["correct"]


def correct(
    draft: Draft,
    corrections: Sequence[tuple[Correction, Culprit]],
    neurons: Neurons,
    batches: CalibrationData,
    registry: Registry,
    *,
    tunes_weights: bool,
    progress: bool,
) -> Draft:
    """Have `corrections` adjust the network, one after the other.

    Args:
        draft: With scales.
        corrections: Each with its name and owner for messages.
        neurons: Makes the neurons.
        batches: The calibration data.
        registry: What plugins contribute: corrections may name their readouts.
        tunes_weights: They may change weights.
        progress: Show progress bars.

    Returns:
        The draft with the λ, weights, biases, biases per step, initial potentials and readout that they chose.

    Raises:
        CorrectionError: A correction set a value that the network cannot take.
        PluginError: A correction failed, or named a readout that is not known.
    """
    if not corrections:
        return draft
    tried: dict[fx.Node, list[TrialSite]] = {}
    layers = make_layers(draft) if tunes_weights else None
    # The first rank has all of the data and adjusts the network; the others take over what it found.
    whole = list(batches.whole) if batches.ranks.sharded else batches
    trial, runner = _make_trial(draft, neurons, tried, layers, whole, progress and batches.ranks.is_first)
    found = batches.ranks.from_first(lambda: _adjusted(trial, runner, corrections, registry), draft.device)
    if not batches.ranks.is_first:
        found.put_into(trial)
    draft = put_weights(draft.evolve(notes=found.notes, tuned=found.tuned), layers or {})
    return _apply(draft, trial, tried, neurons)


def _adjusted(
    trial: Trial, runner: GraphRunner, corrections: Sequence[tuple[Correction, Culprit]], registry: Registry
) -> _Adjusted:
    """Have the corrections adjust the network on trial."""
    notes: list[str] = []
    by: dict[str, list[str]] = {layer.name: [] for layer in trial.layers}
    for correction, who in corrections:
        before, weights = len(trial.notes), [layer.weight.clone() for layer in trial.layers]
        try:
            with blame(who, "", correction, "correct"), runner.watched(who):
                correction.correct(trial)
        except CorrectionError as error:
            raise CorrectionError(f"{error} ({who})") from error
        _check_adjustments(trial, who)
        if trial.readout is not None:
            require_readout(registry, trial.readout, who, "suggested the readout {}")
        notes += [f"{who}: {note}" for note in trial.notes[before:]]
        for layer, weight in zip(trial.layers, weights, strict=True):
            if not torch.equal(layer.weight, weight):
                by[layer.name].append(str(who))
    tuned = [TunedLayer(one.name, tuple(by[one.name]), one.change) for one in trial.layers if one.changed]
    return _Adjusted.of(trial, tuple(notes), tuple(tuned))


@dataclass(frozen=True)
class _Adjusted:
    """What the corrections found, to be sent to other processes."""

    sites: list[tuple[Tensor, Tensor, Tensor | None, Tensor]]
    outputs: list[Tensor]
    weights: dict[str, Tensor]
    readout: tuple[str, dict[str, Any]] | None
    notes: tuple[str, ...]
    tuned: tuple[TunedLayer, ...]

    @classmethod
    def of(cls, trial: Trial, notes: tuple[str, ...], tuned: tuple[TunedLayer, ...]) -> _Adjusted:
        sites = [(site.scale, site.bias, site.step_bias, site.initial_potential) for site in trial.sites]
        outputs = [output.bias for output in trial.outputs]
        weights = {layer.name: layer.weight for layer in trial.layers if layer.changed}
        return cls(sites, outputs, weights, trial.readout, notes, tuned)

    def put_into(self, trial: Trial) -> None:
        for site, values in zip(trial.sites, self.sites, strict=True):
            site.scale, site.bias, site.step_bias, site.initial_potential = values
        for output, bias in zip(trial.outputs, self.outputs, strict=True):
            output.bias = bias
        for layer in trial.layers:
            layer.weight = self.weights.get(layer.name, layer.weight)
        trial.readout = self.readout


def _make_trial(
    draft: Draft,
    neurons: Neurons,
    tried: dict[fx.Node, list[TrialSite]],
    layers: dict[fx.Node, TrialLayer] | None,
    batches: Iterable[Any],
    progress: bool,
) -> tuple[Trial, GraphRunner]:
    """The trial that the corrections receive, and its runner.

    `tried` is filled with the sites of every node: one, or one per sign. Without `layers`, no weights may change.
    """
    known = layers or {}
    names = {decision.site.name for decision in draft.plan.decisions.values()}

    def probe(draft: Draft, node: fx.Node, *, negative: bool = False) -> nn.Module:
        layout, neuron = _layout(draft, node), neurons.make(draft, node, _layout(draft, node), negative=negative)
        site = _make_site(draft, node, neuron, names, negative, neurons.who(draft, node))
        tried.setdefault(node, []).append(site)
        return Probe(site, layout)

    def wrap(node: fx.Node, layer: nn.Module, folds: tuple[Tensor, Tensor]) -> nn.Module:
        return LayerProbe(known[node], layer, folds) if node in known else layer

    network = rewrite_spiking(draft, probe, neurons.who, wrap)
    sites = [site for node in draft.plan.spikes for site in tried[node]]
    units = {node: _units(draft, node, tried[node]) for node in draft.plan.spikes}
    runner = GraphRunner(network, draft, units, {node: layer.name for node, layer in known.items()}, batches)
    trial = Trial(
        sites,
        runner,
        outputs=trial_outputs(draft),
        progress=progress,
        layers=None if layers is None else layers.values(),
    )
    return trial, runner


def _check_adjustments(trial: Trial, who: Culprit) -> None:
    """Check the adjustments, which a correction may have written to without `trial.adjust`.

    Raises:
        CorrectionError: A value is not finite, or a scale is not positive.
    """
    for site in trial.sites:
        for what, value in _values(site):
            good = value.isfinite() & (value > 0) if what == "scale" else value.isfinite()
            if not bool(good.all()):
                wanted = "finite and positive" if what == "scale" else "finite"
                raise CorrectionError(
                    f"{who} left values from {float(value.min()):.4g} to {float(value.max()):.4g} in the {what} of "
                    f"{site.name}; they must be {wanted}. {who.advice}"
                )
    for layer in trial.layers:
        if layer.weight.shape != layer.shape or not bool(layer.weight.isfinite().all()):
            raise CorrectionError(
                f"{who} left a weight of shape {tuple(layer.weight.shape)} in {layer.name}, or one that is not finite; "
                f"it must be finite and keep its shape, {layer.shape}. {who.advice}"
            )
    if not all(bool(output.bias.isfinite().all()) for output in trial.outputs):
        raise CorrectionError(f"{who} left a value that is not finite in the output's bias. {who.advice}")


def _values(site: TrialSite) -> Iterator[tuple[str, Tensor]]:
    """The adjustments of a site, by what they are called in messages."""
    yield "scale", site.scale
    yield "bias", site.bias
    if site.step_bias is not None:
        yield "step bias", site.step_bias
    yield "initial potential", site.initial_potential


def _make_site(
    draft: Draft, node: fx.Node, neuron: nn.Module, names: set[str], negative: bool, who: Culprit
) -> TrialSite:
    found, maximum = draft.record[node], draft.plan.spikes[node].maximum
    like = torch.zeros((), dtype=found.dtype, device=draft.device)
    name, shape = draft.plan.decisions[node].site.name, _layout(draft, node).shape(found.shape[1:])
    if negative:
        name += NEGATIVE
        while name in names:
            name += "_"
        names.add(name)
    largest = None
    if maximum is not None:
        largest = (maximum / draft.lambdas[node]).to(like).expand(shape[0]).clone()
    return TrialSite(name, shape, neuron, starting_potential(neuron), like, largest, negated=negative, maker=who)


def _units(draft: Draft, node: fx.Node, sites: list[TrialSite]) -> list[Unit]:
    spike, layout = draft.plan.spikes[node], _layout(draft, node)
    current = None
    if spike.two_sided:
        current = node if spike.behind else node.all_input_nodes[0]
    return [
        Unit(site.name, site.along_channels(draft.units[node].to(site.scale)), layout, current, site.negated)
        for site in sites
    ]


def _apply(draft: Draft, trial: Trial, tried: dict[fx.Node, list[TrialSite]], neurons: Neurons) -> Draft:
    """The draft with the adjustments that the corrections made to `trial` and its sites."""
    adjustments: dict[fx.Node, Adjustment] = {}
    for node, (site, *negative) in tried.items():
        bias, absorbed = _bias(draft, node, site), None
        # If the neuron stands behind an operation, a layer's bias would have to pass through that operation.
        axis = None if draft.plan.spikes[node].behind else _layout(draft, node).axis
        if bias is not None and axis is not None:
            absorbed = absorb_bias(draft, node.all_input_nodes[0], bias, axis)
        adjustments[node] = Adjustment(
            bias if absorbed is None else None,
            _steps(draft, node, site),
            _potential(draft, node, site),
            _negative(draft, node, negative[0], neurons, None if absorbed is None else bias) if negative else None,
        )
        draft = absorbed or draft
    draft = add_output_biases(draft, trial.outputs)
    lambdas = {node: _adjust_scale(draft, node, tried[node][0]) for node in draft.lambdas}
    draft = draft.evolve(adjustments=adjustments, readout=trial.readout)
    if all(lambdas[node] is scale for node, scale in draft.lambdas.items()):
        return draft
    return scale_values(draft.evolve(lambdas=lambdas), neurons.unit)


def _negative(
    draft: Draft, node: fx.Node, site: TrialSite, neurons: Neurons, absorbed: Tensor | None
) -> NegativeNeuron:
    """The neuron for negative currents; a layer adds the bias `absorbed` to the current of both neurons."""
    bias, scale = _bias(draft, node, site), _adjust_scale(draft, node, site)
    if absorbed is not None:
        # The current is negated, so the other neuron's bias is added to take it back.
        bias = absorbed if bias is None else bias + absorbed
        bias = bias if bool(bias.any()) else None
    unit, steps = neurons.unit(draft, node, scale), _steps(draft, node, site)
    return NegativeNeuron(scale, unit, bias, steps, _potential(draft, node, site))


def _layout(draft: Draft, node: fx.Node) -> ChannelLayout:
    return ChannelLayout(draft.channels.axis(node))


def _bias(draft: Draft, node: fx.Node, site: TrialSite) -> Tensor | None:
    """A site's bias in the ANN's units; None if it is zero."""
    return site.bias * draft.units[node].to(site.bias) if bool(site.bias.any()) else None


def _steps(draft: Draft, node: fx.Node, site: TrialSite) -> Tensor | None:
    """A site's biases per step in the ANN's units; None if all are zero."""
    found = site.step_bias
    return None if found is None or not bool(found.any()) else found * draft.units[node].to(found)


def _potential(draft: Draft, node: fx.Node, site: TrialSite) -> Tensor | None:
    potential = site.added_potential
    return None if potential is None else _layout(draft, node).to_place(potential, before=0)


def _adjust_scale(draft: Draft, node: fx.Node, site: TrialSite) -> Tensor:
    """λ times the site's factor, at most the activation's own maximum."""
    scale, maximum = draft.lambdas[node], draft.plan.spikes[node].maximum
    if bool((site.scale == 1).all()):
        return scale
    adjusted = scale * site.scale.to(scale)
    if draft.channels.axis(node) is None:
        adjusted = adjusted.reshape(())
    return adjusted if maximum is None else adjusted.clamp(max=maximum)
