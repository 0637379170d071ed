"""What the neurons of one layer did: rate against activation, how often which rate occurs, and spikes over time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from ..support.numbers import percent
from .markup import Markup
from .plot import Axis, Plot, nice_ticks, path_of_points

__all__ = ["histogram", "raster", "scatter"]

TALL = 2.0
"""A bin is drawn at most that many times as high as the next one."""

GAP, BOX = 0.06, 0.08
"""Distance and width of the bin for what exceeds λ."""

FARTHEST = 2.5
"""Where the axis of activations ends, in λ, however large some of them are."""


def scatter(name: str, seen: Mapping[str, Any], points: int) -> Markup:
    """Firing rate against the ANN's activation, and the line on which both agree."""
    pairs = list(zip(seen["activations"], seen["rates"], strict=True))[:points]
    far = sorted(a for a, _ in pairs)
    right = min(max(1.2, far[int(0.995 * (len(far) - 1))] * 1.03 if far else 0.0), FARTHEST)
    bottom = min([0.0, *(r for _, r in pairs)])
    x_ticks, _, _ = nice_ticks(0, right, _plain)
    y_ticks, low, _ = nice_ticks(bottom, 1.0, _plain)
    x = Axis(0.0, right, tuple(one for one in x_ticks if one[0] <= right), "ANN's activation / λ")
    label = (
        f"{name}: firing rate against the ANN's activation, both as shares of λ, for {len(pairs):,} active neurons and "
        f"samples. {percent(sum(a > 1 for a, _ in pairs) / max(1, len(pairs)))} of the activations exceed λ."
    )
    plot = Plot(label, x, Axis(low, max(1.06, y_ticks[-1][0]), y_ticks, "firing rate / λ"), (300, 250))
    inside = [pair for pair in pairs if 0 <= pair[0] <= right]
    plot.add("path", d=path_of_points([plot.at(*pair) for pair in inside]) or "M0 0", class_="points")
    plot.line([(0, 0), (1, 1), (right, 1)], "ideal")
    return plot.drawn()


def histogram(name: str, seen: Mapping[str, Any]) -> Markup:
    """How often which rate occurs above zero, as bars, and which activation, as an outline."""
    found = seen["histogram"]
    edges, width = found["edges"], found["edges"][1]
    total = _total(found, 0) or 1
    beyond = any(found["above"])
    box = min(width, BOX)
    right = 1.0 + (GAP + box if beyond else 0)
    bins = [(low, high, index) for index, (low, high) in enumerate(pairwise(edges))]
    rates, activations = ([count / total for count in found[what]] for what in ("rates", "activations"))
    above = [count / total for count in found["above"]]
    tallest, *others = sorted([*rates, *activations, *above], reverse=True)
    # One bin may hold most of all, as where everything saturates; it is cut off rather than flatten the others.
    cut = TALL * max(others, default=0.0)
    ticks, low, high = nice_ticks(0, (min(tallest, cut) if cut else tallest) or 1.0, _percent, count=3)
    zero = [count / total for count in found["zero"]]
    label = (
        f"{name}: how often which firing rate occurs. {percent(zero[0])} of the rates and {percent(zero[1])} of the "
        f"ANN's activations are zero; {percent(above[1])} of the activations exceed λ."
    )
    x_ticks: tuple[tuple[float, str], ...] = ((0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1, "1"))
    if beyond:
        x_ticks = (*x_ticks, (1 + GAP + box / 2, "> 1"))
    plot = Plot(label, Axis(0, right, x_ticks, "firing rate / λ"), Axis(low, high, ticks, "share of all"), (300, 250))
    boxes = [*((a, b, rates[i]) for a, b, i in bins), *([(1 + GAP, right, above[0])] if beyond else [])]
    for start, end, value in boxes:
        if value:
            (left, top), (stop, base) = plot.at(start, value), plot.at(end, 0)
            gap = min(1.0, 0.15 * (stop - left))
            plot.add("rect", x=left + gap, y=top, width=stop - left - 2 * gap, height=base - top, class_="rate")
            if value > high * 1.001:
                plot.text(
                    min((left + stop) / 2, plot.right - 14), plot.top - 4, _percent(round(value, 3)), "middle strong"
                )
    outline = [(0.0, 0.0)]
    for start, end, index in bins:
        outline += [(start, activations[index]), (end, activations[index])]
    plot.line([*outline, (1.0, 0.0)], "activation")
    if beyond:
        plot.line([(1 + GAP, 0), (1 + GAP, above[1]), (right, above[1]), (right, 0)], "activation")
    return plot.drawn()


def raster(name: str, seen: Mapping[str, Any], most: int) -> Markup | None:
    """Spikes over time, one row per neuron; None if nothing was recorded.

    Args:
        name: Of the layer.
        seen: What was observed.
        most: Steps to draw.
    """
    found = seen["raster"]
    if not found or not found["neurons"]:
        return None
    steps, rows = min(found["steps"], most), len(found["neurons"])
    largest = max((abs(value) for values in found["values"] for value in values), default=1.0)
    x_ticks, _, _ = nice_ticks(0, steps, lambda value: f"{value:.10g}")
    labels = tuple(one for one in x_ticks if 1 <= one[0] <= steps and one[0] == round(one[0]))
    rates = [sum(values) / found["steps"] for values in found["values"]]
    label = (
        f"{name}: the spikes of {rows} neurons over {steps:,} time steps for the first sample, from the strongest "
        f"activation to the weakest. The strongest emits {rates[0]:.3g} spikes per step, the weakest {rates[-1]:.3g}."
    )
    x = Axis(0.4, steps + 0.6, ((1.0, "1"), *labels) if not labels or labels[0][0] > 1 else labels, "time steps")
    plot = Plot(label, x, Axis(0, rows, (), "neurons, strongest first"), (300, 250))
    tall = round((plot.bottom - plot.top) / rows * 0.8, 1)
    groups: dict[tuple[bool, int], list[str]] = {}
    for row, (times, values) in enumerate(zip(found["times"], found["values"], strict=True)):
        for time, value in zip(times, values, strict=True):
            if time <= steps:
                strength = min(3, max(1, math.ceil(3 * abs(value) / largest)))
                across, up = plot.at(time, rows - row - 0.1)
                groups.setdefault((value < 0, strength), []).append(f"M{across:g} {up:g}v{tall:g}")
    wide = max(0.8, min(5.0, 0.72 * (plot.right - plot.left) / steps))
    for (negative, strength), marks in sorted(groups.items()):
        kind = f"spikes {'negative' if negative else 'positive'} s{strength}"
        plot.add("path", d="".join(marks), class_=kind, stroke_width=round(wide, 2))
    return plot.drawn()


def _total(found: Mapping[str, Any], which: int) -> int:
    """Number of rates, or of activations."""
    name = ("rates", "activations")[which]
    return int(sum(found[name]) + sum(found[part][which] for part in ("zero", "below", "above")))


def _plain(value: float) -> str:
    return f"{value:.10g}"


def _percent(value: float) -> str:
    return f"{100 * value:.10g} %"
