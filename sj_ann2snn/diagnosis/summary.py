"""Turns the sums over all samples into the figures of the layers, and what was observed into what is drawn."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .._version import __version__
from ..compat import spikingjelly_version
from ..evaluation.costs.result import Costs
from ..evaluation.metrics.measures import Measure
from ..hooks.discovery import load_plugins
from ..hooks.registry import BUILTIN, Registry
from ..support.wording import shown
from .advice import call_of
from .layer_graph import layer_graph
from .measuring import LayerSums
from .network import Layer
from .observed import Observed
from .passes import Passes
from .result import LayerDiagnosis, MetricFigures
from .scores import directed
from .split import TERMS, TermSums

__all__ = ["layer_figures", "metric_figures", "observed"]


def metric_figures(
    values: Mapping[str, float],
    references: Mapping[str, float],
    over_time: Mapping[int, Mapping[str, float]],
    measures: Sequence[Measure],
) -> tuple[dict[str, MetricFigures], list[str]]:
    """What the metrics say of the whole network, by name, and notes about them.

    Args:
        values: Of the network.
        references: Of the ANN.
        over_time: Of the network after numbers of steps.
        measures: The metrics.
    """
    found: dict[str, MetricFigures] = {}
    notes: list[str] = []
    for name, value in values.items():
        better, share = directed(measures, name)
        found[name] = MetricFigures(
            name=name,
            value=value,
            ann_value=references[name],
            unit="points" if share else "",
            higher_is_better=better is not False,
            over_time={steps: one[name] for steps, one in over_time.items()},
        )
        if better is None:
            notes.append(
                f"the metric {shown(name)} does not say whether a higher value is better, and is read as if it were; "
                "for an error, set its attribute higher_is_better = False"
            )
    return found, notes


def layer_figures(
    passes: Passes,
    mismatches: Mapping[str, float],
    metrics: Mapping[str, MetricFigures],
    costs: Costs | None = None,
) -> tuple[LayerDiagnosis, ...]:
    """The figures of every layer, in order.

    Args:
        passes: All of them.
        costs: The costs of the layers with weights.
        mismatches: By layer, what the conversion itself changes in the answer.
        metrics: Those of the whole network.
    """
    return tuple(_layers(passes, mismatches, metrics, costs))


def observed(passes: Passes, network: str, plugins: Sequence[Any]) -> Observed:
    """What is drawn beside the figures of the layers.

    Args:
        passes: All of them.
        network: Name of the network's class.
        plugins: Plugin objects that were used in addition to the installed ones.
    """
    call = dict(passes.network.call)
    return Observed(
        network=network,
        layers={
            layer.name: passes.samplers[layer.target].result(passes.rasters.get(layer.target))
            for layer in passes.network.layers
        },
        graph=layer_graph(passes.network),
        call=call,
        made_by=call_of(call, {}) if call else "",
        versions={
            "sj-ann2snn": __version__,
            "SpikingJelly": spikingjelly_version(),
            "torch": torch.__version__,
            "Python": platform.python_version(),
        },
        plugins=_plugins(load_plugins() if plugins == () else load_plugins(plugins)),
    )


def _plugins(registry: Registry) -> tuple[str, ...]:
    """The distributions that contribute classes, with their versions."""
    owners = {one.owner for classes in registry.classes.values() for one in classes}
    return tuple(sorted({str(owner) for owner in owners if owner.distribution != BUILTIN}))


def _layers(
    passes: Passes, mismatches: Mapping[str, float], metrics: Mapping[str, MetricFigures], costs: Costs | None
) -> Iterator[LayerDiagnosis]:
    weighted = [] if costs is None else list(costs)
    synops = _by_source(passes, passes.measured.totals.events)
    macs = _by_source(passes, {one.name: one.ann_macs for one in weighted})
    energy = _by_source(passes, {one.name: one.energy for one in weighted})
    whole = passes.spiking.divergence
    right = passes.folded.values
    for layer in passes.network.layers:
        sums = passes.measured.sums[layer.target]
        terms = sums.terms[passes.steps]
        norm = _norm(terms, sums, layer)
        alone, without = passes.alone[layer.target], passes.without[layer.target]
        drops = _drops(metrics, right, alone.values, without.values)
        points = next(iter(drops.values()), {"alone": None, "all_but_this": None})
        gained = whole - passes.corrected[layer.target].divergence
        error = terms.norm("error")
        active = float(torch.as_tensor(sums.active).sum())
        count = terms.count * max(1, terms.squares["error"].numel())
        samples = passes.measured.samples
        shares = {name: terms.norm(name) / norm for name in ("error", *TERMS)}
        yield LayerDiagnosis(
            name=layer.name,
            kind="neuron" if layer.is_neuron else layer.stands_for,
            error=shares["error"],
            inherited=shares["inherited"],
            clipping=shares["clipping"],
            rounding=None if "rounding" in sums.missing else shares["rounding"],
            unevenness=shares["unevenness"],
            sqnr=20 * math.log10(norm / error) if error and norm else math.inf,
            cosine=_cosine(terms),
            saturated=float(torch.as_tensor(sums.saturated).sum()) / count,
            silent=float(torch.as_tensor(sums.silent).sum()) / active if active else 0.0,
            unused=0.0 if sums.used is None else 1.0 - float(sums.used.double().mean()),
            spikes=sums.spikes / samples,
            emissions=sums.emissions / samples,
            synops=synops.get(layer.target, 0.0) / samples,
            neurons=count // samples if layer.is_neuron else 0,
            scale=_scale(layer, sums) if passes.network.noted else None,
            alone=alone.divergence,
            all_but_this=without.divergence,
            alone_points=points["alone"],
            all_but_this_points=points["all_but_this"],
            effect=(alone.divergence + gained) / 2 + mismatches.get(layer.name, 0.0),
            over_time={
                steps: {name: found.norm(name) / norm for name in ("error", *TERMS)}
                for steps, found in sums.terms.items()
            },
            missing=dict(sums.missing),
            channels=_channels(terms, sums) if layer.is_neuron else {},
            macs=macs.get(layer.target, 0.0),
            energy=energy.get(layer.target, 0.0),
            drops=drops,
        )


def _drops(
    metrics: Mapping[str, MetricFigures],
    reference: Mapping[str, float],
    alone: Mapping[str, float],
    without: Mapping[str, float],
) -> dict[str, dict[str, float]]:
    """What every metric loses if a layer alone spikes, and if every other layer does."""
    return {
        name: {
            "alone": one.drop_from(alone[name], reference[name]),
            "all_but_this": one.drop_from(without[name], reference[name]),
        }
        for name, one in metrics.items()
    }


def _norm(terms: TermSums, sums: LayerSums, layer: Layer) -> float:
    """The norm of the activation; where that is zero, of one that is λ everywhere."""
    norm = terms.norm("activation")
    if norm or sums.largest is None:
        return norm or 1.0
    scale = float((sums.largest * layer.unit.cpu()).max())
    return scale * math.sqrt(terms.count * terms.squares["error"].numel())


def _cosine(terms: TermSums) -> float:
    norms = terms.norm("activation") * terms.norm("rate")
    if not norms:
        return 1.0 if terms.norm("error") == 0 else 0.0
    return float(terms.product.sum()) / norms


def _scale(layer: Layer, sums: LayerSums) -> tuple[float, float] | None:
    """λ, smallest and largest over the channels."""
    if sums.largest is None:
        return None
    scale = sums.largest * layer.unit.cpu()
    return float(scale.min()), float(scale.max())


def _channels(terms: TermSums, sums: LayerSums) -> dict[str, tuple[float, ...]]:
    activation = terms.squares["activation"].sqrt().reshape(-1)
    safe = torch.where(activation > 0, activation, torch.ones_like(activation))

    def row(value: Tensor | float) -> Tensor:
        return torch.as_tensor(value).double().reshape(-1).expand(activation.shape)

    active = row(sums.active)
    figures = {name: terms.squares[name].sqrt().reshape(-1) / safe for name in ("error", *TERMS)}
    figures["activation"] = activation
    figures["mean_error"] = terms.means["error"].reshape(-1) / max(1, terms.count)
    figures["saturated"] = row(sums.saturated) / max(1, terms.count)
    figures["silent"] = torch.where(active > 0, row(sums.silent) / active.clamp(min=1), torch.zeros_like(active))
    return {name: tuple(value.tolist()) for name, value in figures.items()}


def _by_source(passes: Passes, figures: Mapping[str, float]) -> dict[str, float]:
    """Figures of layers with weights, by the layer whose spikes reach them; of several, the last."""
    found: dict[str, float] = {}
    neurons = {layer.target for layer in passes.network.layers}
    for target, figure in figures.items():
        sources = [] if target in neurons else passes.network.sources(target)
        if sources:
            found[sources[-1].target] = found.get(sources[-1].target, 0.0) + figure
    return found
