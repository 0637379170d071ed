"""A diagnosis as a table and in words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ..support.numbers import percent
from ..support.tables import text_table

__all__ = ["answer_lines", "layer_table", "percent", "verdict"]

GOOD = 0.01
"""A divergence below which nothing needs to be mended."""

HEAD = (
    "layer",
    "error",
    "inherited",
    "clipping",
    "rounding",
    "uneven",
    "SQNR dB",
    "saturated",
    "silent",
    "spikes",
    "synops",
    "alone",
    "without",
    "effect",
)


def layer_table(diagnosis: Any, *, columns: bool = False) -> Any:
    """The layers as lines of text, or as rows of cells."""
    rows = [HEAD, *(_row(layer) for layer in diagnosis.layers)]
    if columns:
        return rows
    return text_table(rows)


def _row(layer: Any) -> tuple[str, ...]:
    sqnr = f"{layer.sqnr:.1f}" if math.isfinite(layer.sqnr) else "∞"
    spiking = layer.kind == "neuron"
    return (
        layer.name if spiking else f"{layer.name} ({layer.kind})",
        percent(layer.error),
        percent(layer.inherited),
        percent(layer.clipping) if spiking else "",
        percent(layer.rounding) if spiking else "",
        percent(layer.unevenness),
        sqnr,
        percent(layer.saturated) if spiking else "",
        percent(layer.silent) if spiking else "",
        f"{layer.spikes:.4g}" if spiking else "",
        f"{layer.synops:.4g}" if spiking else "",
        percent(layer.alone),
        percent(layer.all_but_this),
        percent(layer.effect),
    )


def answer_lines(diagnosis: Any) -> Iterator[str]:
    """The answer over time."""
    over = ", ".join(f"{percent(value)} (T={steps})" for steps, value in diagnosis.divergence_over_time.items())
    yield f"difference from the ANN's output, mean over T steps: {over}"
    for one in diagnosis.metrics.values():
        form = ".4f" if one.unit == "points" else ".4g"
        curve = ", ".join(f"{value:{form}} (T={steps})" for steps, value in one.over_time.items())
        yield f"{_called(one.name)} {curve}; ANN {one.ann_value:{form}}"
    yield (
        f"{diagnosis.samples} samples, {diagnosis.spikes:.4g} spikes and {diagnosis.synops:.4g} synaptic operations "
        "per sample"
    )
    if diagnosis.costs is not None:
        yield diagnosis.costs.verdict


def verdict(diagnosis: Any) -> str:
    """The result in a few words."""
    lost = "".join(f"{_lost(one)}; " for one in diagnosis.metrics.values())
    answer = f"{lost}the answer at T={diagnosis.T} differs from the ANN's by {percent(diagnosis.divergence)}"
    if diagnosis.divergence < GOOD:
        return f"{answer}: nothing{' in the conversion' if diagnosis.advice else ''} needs to be mended."
    worst = diagnosis.worst[0]
    first = next((one for one in diagnosis.advice if one.gain > 0), None)
    if first is not None and (first.cause in _CAUSES or first.layer not in {one.name for one in diagnosis.layers}):
        return f"{answer}, first of all by {_CAUSES.get(first.cause, first.layer)}."
    cause = next(iter(worst.own))
    if worst.kind != "neuron":
        return f"{answer}, most of all by {worst.name}, which only approximates {worst.kind}."
    share = worst.own[cause]
    return f"{answer}, most of all by {worst.name}: {cause} of {percent(share)} of its activation."


def _lost(metric: Any) -> str:
    """What a metric loses against the ANN."""
    name, drop = _called(metric.name), metric.drop
    if not math.isfinite(drop):
        return f"{name} {metric.value:.4g}, of the ANN {metric.ann_value:.4g}"
    if drop <= 0:
        return f"no {name} lost" if metric.higher_is_better else f"no rise of {name}"
    if metric.unit == "points":
        return f"{drop:.1f} points of {name} lost"
    return f"{name} {'fell' if metric.higher_is_better else 'rose'} from {metric.ann_value:.4g} to {metric.value:.4g}"


def _called(metric: str) -> str:
    return "accuracy" if metric == "top1" else metric


_CAUSES = {
    "batchnorm": "a part that computes something else than the ANN",
    "mismatch": "a part that computes something else than the ANN",
    "readout": "its readout",
}
