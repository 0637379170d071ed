"""Single pictures of a diagnosis by Matplotlib; those that SpikingJelly draws are SpikingJelly's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..compat import spikingjelly_figure
from ..errors import InputError, OptionError
from ..support.plotting import DARK, figure_of_size, require_matplotlib
from ..support.wording import did_you_mean, listed, shown
from .markup import visible
from .tables import brief, name_of
from .terms import TERMS

__all__ = ["figure_of"]

COLOURS = {"inherited": "#aab1b9", "clipping": "#c4502e", "rounding": "#2f6fb5", "unevenness": "#e2a52c"}
"""Of the terms, as on the page; distinguishable with all common kinds of colour blindness."""

SNN = "#235f9e"

AXES = ("time step", "neuron, strongest first")
SIZE: dict[str, Any] = {"figsize": (8, 5), "dpi": 120}
"""Of the pictures by SpikingJelly, for every step and some neurons."""

LONGEST = 28
"""Letters of a layer's name."""


def figure_of(found: Mapping[str, Any], kind: str, layer: str | None) -> Any:
    """One picture, as a `matplotlib.figure.Figure`.

    Args:
        found: A diagnosis as plain data.
        kind: Which picture.
        layer: Which layer, for pictures of one; None for the worst.

    Raises:
        InputError: There is no such layer, nothing was observed of it, or Matplotlib is not installed.
        OptionError: `kind` is unknown, or takes no layer.
    """
    if not isinstance(kind, str) or kind not in (*OF_ALL, *OF_ONE):
        known = [*OF_ALL, *OF_ONE]
        hint = did_you_mean(kind, known) if isinstance(kind, str) else ""
        raise OptionError(f"kind={shown(kind)} is not known. {hint}{' ' if hint else ''}Allowed are {listed(known)}.")
    if layer is not None and kind in OF_ALL:
        raise OptionError(f"kind={kind!r} shows all layers: leave layer={shown(layer)} out.")
    require_matplotlib()
    return OF_ALL[kind](found) if kind in OF_ALL else OF_ONE[kind](_layer(found, kind, layer), found)


def _layer(found: Mapping[str, Any], kind: str, name: str | None) -> Mapping[str, Any]:
    """The layer called `name`, or the worst of which there is such a picture."""
    layers = {one["name"]: one for one in found["layers"]}
    ranked: list[Mapping[str, Any]] = [layers[one] for one in found["worst"]]
    if name is not None:
        if name not in layers:
            raise InputError(f"layer={shown(name)} is no layer of the diagnosis; it has {listed(layers)}.")
        ranked = [layers[name]]
    for one in ranked:
        seen = _seen(found, one)
        if kind == "over_time" or (seen and (kind == "scatter" or seen["raster"])):
            return one
    where = "any layer" if name is None else shown(name)
    raise InputError(f"Nothing was observed that kind={kind!r} could show of {where}: only neurons have spikes.")


def _seen(found: Mapping[str, Any], layer: Mapping[str, Any]) -> Any:
    return found.get("observed", {}).get("layers", {}).get(layer["name"])


def _terms(found: Mapping[str, Any]) -> Any:
    layers = found["layers"]
    with figure_of_size(7.0, 1.1 + 0.27 * len(layers)) as figure:
        axes = figure.subplots()
        names = [_short(name_of(layer)) for layer in layers]
        starts = np.zeros(len(layers))
        for name, title, _ in TERMS:
            values = np.array([100 * (layer[name] or 0.0) for layer in layers])
            axes.barh(range(len(layers)), values, left=starts, color=COLOURS[name], label=title, height=0.72)
            starts += values
        errors = [100 * layer["error"] for layer in layers]
        axes.plot(
            errors,
            range(len(layers)),
            linestyle="",
            marker="|",
            color=DARK,
            markersize=11,
            markeredgewidth=2,
            label="whole error",
        )
        axes.set_yticks(range(len(layers)), names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("norm in % of the activation")
        _legend_above(figure, axes)
    return figure


def _over_time(layer: Mapping[str, Any], found: Mapping[str, Any]) -> Any:
    over = {int(steps): terms for steps, terms in layer["over_time"].items()}
    steps = sorted(over)
    with figure_of_size(6.4, 3.4) as figure:
        axes = figure.subplots()
        starts = np.zeros(len(steps))
        for name, title, _ in TERMS:
            values = np.array([100 * (over[one].get(name) or 0.0) for one in steps])
            axes.bar(range(len(steps)), values, bottom=starts, color=COLOURS[name], label=title, width=0.72)
            starts += values
        errors = [100 * over[one]["error"] for one in steps]
        axes.plot(
            range(len(steps)),
            errors,
            linestyle="",
            marker="_",
            color=DARK,
            markersize=14,
            markeredgewidth=2,
            label="whole error",
        )
        axes.set_xticks(range(len(steps)), [str(one) for one in steps])
        axes.grid(visible=False, axis="x")
        axes.set_xlabel(f"time steps, layer {_short(name_of(layer))}")
        axes.set_ylabel("norm in % of the activation")
        _legend_above(figure, axes)
    return figure


def _answer(found: Mapping[str, Any]) -> Any:
    curves = {"difference from the ANN in %": found["divergence_over_time"]}
    if found["accuracy_over_time"]:
        curves = {"accuracy in %": found["accuracy_over_time"], **curves}
    with figure_of_size(3.4 * len(curves), 2.9) as figure:
        for axes, (title, values) in zip(
            figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True
        ):
            steps = [int(one) for one in values]
            axes.plot(steps, [100 * one for one in values.values()], color=SNN, marker="o", markersize=3.5, label="SNN")
            if title.startswith("accuracy"):
                axes.axhline(100 * found["ann_accuracy"], color=DARK, linestyle=(0, (5, 3)), linewidth=1.1, label="ANN")
                axes.legend(frameon=False)
            else:
                axes.set_ylim(bottom=0)
            if len(steps) > 1:
                axes.set_xscale("log", base=2)
            ticks = steps[:: max(1, len(steps) // 7)]
            axes.set_xticks(ticks, [str(one) for one in ticks])
            axes.set_xticks([], minor=True)
            axes.set_xlabel("time steps")
            axes.set_title(title, loc="left")
        figure.tight_layout()
    return figure


def _scatter(layer: Mapping[str, Any], found: Mapping[str, Any]) -> Any:
    seen = _seen(found, layer)
    with figure_of_size(3.8, 3.4) as figure:
        axes = figure.subplots()
        axes.scatter(seen["activations"], seen["rates"], s=6, alpha=0.4, linewidths=0, color=SNN)
        right = max([1.2, *seen["activations"]])
        axes.plot([0, 1, right], [0, 1, 1], color=DARK, linestyle=(0, (4, 2)), linewidth=1.0)
        axes.set_xlabel("ANN's activation / λ")
        axes.set_ylabel(f"firing rate / λ, T = {found['T']}")
        axes.set_title(_short(name_of(layer)), loc="left")
        figure.tight_layout()
    return figure


def _raster(layer: Mapping[str, Any], found: Mapping[str, Any]) -> Any:
    spikes = _spikes(_seen(found, layer)["raster"])
    title = f"{_short(name_of(layer))}, first sample"
    return spikingjelly_figure("plot_1d_spikes", (spikes != 0).astype(float), title, *AXES, **SIZE)


def _rates(layer: Mapping[str, Any], found: Mapping[str, Any]) -> Any:
    spikes = _spikes(_seen(found, layer)["raster"])
    rates = spikes.cumsum(0) / np.arange(1, len(spikes) + 1)[:, None]
    title = f"firing rate so far, {_short(name_of(layer))}, first sample"
    return spikingjelly_figure("plot_2d_heatmap", rates, title, *AXES, colorbar_y_label="spikes per step", **SIZE)


def _spikes(raster: Mapping[str, Any]) -> Any:
    """``[T, neurons]``."""
    spikes = np.zeros((raster["steps"], len(raster["neurons"])))
    for neuron, (times, values) in enumerate(zip(raster["times"], raster["values"], strict=True)):
        spikes[[time - 1 for time in times], neuron] = values
    return spikes


def _legend_above(figure: Any, axes: Any) -> None:
    line, *bars = zip(*axes.get_legend_handles_labels(), strict=True)
    figure.legend(*zip(*bars, line, strict=True), loc="upper center", ncols=5, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / figure.get_size_inches()[1]))


def _short(name: str) -> str:
    """A name for a picture, in which a dollar sign would begin a formula."""
    return brief(visible(name), LONGEST).replace("$", r"\$")


OF_ALL: dict[str, Callable[[Mapping[str, Any]], Any]] = {"terms": _terms, "answer": _answer}
OF_ONE: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Any]] = {
    "over_time": _over_time,
    "scatter": _scatter,
    "raster": _raster,
    "rates": _rates,
}
