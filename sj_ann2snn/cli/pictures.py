"""The pictures of `demo` and `compare`.

They leave Matplotlib's global state alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..evaluation.result import short
from ..support.plotting import COLOURS, DARK, figure_of_size
from .firing import neuron_rates
from .sweep import Sweep, metric_title, shown_steps

__all__ = ["LayerRates", "firing_rate_picture", "metric_picture", "spread"]

LINES = ("-", (0, (4, 1.5)), (0, (1, 1)))
ANN_LINE = {"color": DARK, "linestyle": (0, (5, 2)), "linewidth": 1.2}
SMALL_SHARE = 0.2
"""Values that never exceed this fill too little of an axis from 0 to 1."""


@dataclass(frozen=True)
class LayerRates:
    """The neurons of one layer in one mode: the ANN's input of the activation over λ, and the firing rate."""

    name: str
    inputs: Tensor
    rates: Tensor

    @property
    def saturated(self) -> float:
        """Share of the inputs above zero that exceed λ, where the rate saturates."""
        active = self.inputs > 0
        return float((self.inputs > 1).sum() / active.sum()) if active.any() else 0.0


def metric_picture(sweep: Sweep, metric: str, title: str, path: Path) -> None:
    """A metric over time steps, one line per mode, the ANN as a dashed line; the right half magnifies its end."""
    curves = [run.result.values[metric] for run in sweep.runs]
    final, ann = [curve[-1] for curve in curves], sweep.ann_values[metric]
    names = [*(run.mode for run in sweep.runs), "ANN"]
    plots, labels = 5.95, 1.12 + 0.07 * max(map(len, names))  # inches
    between = all(0 <= value <= 1 for value in itertools.chain(*curves, (ann,)))
    share = metric == "top1" or (between and max(*final, ann) > SMALL_SHARE)
    with figure_of_size(plots + labels, max(3.3, 1.0 + 0.21 * len(names))) as figure:
        whole, close = figure.subplots(1, 2, width_ratios=(1.15, 1))
        width = plots + labels
        left, gap = (0.55, 0.24) if share else (0.78, 0.32)  # long numbers
        figure.subplots_adjust(left=left / width, right=plots / width, bottom=0.14, top=0.9, wspace=gap)
        steps = range(1, sweep.steps + 1)
        for axes in (whole, close):
            axes.axhline(ann, **ANN_LINE)
            for index, curve in enumerate(curves):
                axes.plot(steps, curve, **_line(index), marker="o" if sweep.steps == 1 else None)
            axes.set_xlabel("time steps t")
        if share:
            whole.set_ylim(0, 1.03)
        whole.set_ylabel(metric_title(metric))
        whole.set_title(title, loc="left")
        _time_axis(whole, 1, sweep.steps)
        low, high = _close_up(final, ann) if share else _around(final, ann)
        close.set_ylim(low, high)
        close.set_title("magnified", loc="left")
        reached = [t for t in steps if any(low <= curve[t - 1] <= high for curve in curves)] or [1]
        _time_axis(close, max((t for t in shown_steps(sweep.steps)[:-1] if t <= reached[0]), default=1), sweep.steps)
        lines = [*(_line(index) for index in range(len(final))), ANN_LINE]
        _label_ends(close, [*final, ann], names, lines, room=labels)
        figure.savefig(path)


def firing_rate_picture(modes: Mapping[str, Sequence[LayerRates]], steps: int, path: Path) -> None:
    """Firing rate against input: one IF neuron on the left, the neurons of some layers in every mode on the right."""
    columns = min(3, len(modes))
    rows = math.ceil(len(modes) / columns)
    widths = (3.2, 0.7 + max(2.5, 1.6 * columns))
    with figure_of_size(sum(widths), max(3.4, 0.9 + 1.5 * rows)) as figure:
        left, right = figure.subfigures(1, 2, width_ratios=widths)
        _one_neuron(left.subplots(), steps)
        left.subplots_adjust(left=0.16, right=0.97, bottom=0.14, top=0.87)
        left.text(0.16, 0.94, "one IF neuron", fontsize=9)
        grid = right.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        right.subplots_adjust(left=0.62 / widths[1], right=0.985, bottom=0.14, top=0.87, wspace=0.1, hspace=0.3)
        _many_neurons(list(grid.flat), modes)
        for axes in list(grid.flat)[max(0, len(modes) - columns) : len(modes)]:
            axes.tick_params(labelbottom=True)  # the lowest plot of its column, which may not be in the last row
        middle = (0.62 / widths[1] + 0.985) / 2
        right.supxlabel("ANN input of the activation / λ", fontsize=9, x=middle, y=0.015)
        right.supylabel(f"firing rate, T = {steps}", fontsize=9, x=0.1 / widths[1], y=0.505)
        if columns > 2:  # fewer leave no room beside the legend
            right.text(0.62 / widths[1], 0.94, "neurons of the network", fontsize=9)
        legend = right.legend(
            *grid.flat[0].get_legend_handles_labels(),
            loc="lower right",
            ncols=3,
            frameon=False,
            bbox_to_anchor=(0.985, 0.933),
            borderpad=0,
            borderaxespad=0,
            columnspacing=1.2,
            handletextpad=0.4,
            handlelength=1.6,
            markerscale=3,
        )
        for handle in legend.legend_handles:
            handle.set_alpha(1)
        figure.savefig(path)


def _one_neuron(axes: Any, steps: int) -> None:
    inputs = torch.linspace(-0.3, 1.4, 3401, dtype=torch.float64)
    shown = [steps, *(t for t in (10, 4) if t < steps)]
    for t, colour in zip(shown, (COLOURS[0], COLOURS[1], COLOURS[3]), strict=False):
        axes.plot(inputs, neuron_rates(inputs, t), color=colour, linewidth=1.3, label=f"T = {t}")
    _ideal(axes, inputs)
    axes.set_xlim(-0.3, 1.4)
    axes.set_ylim(-0.04, 1.08)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1, 1.25], ["0", "0.25", "0.5", "0.75", "1", "1.25"])
    axes.set_xlabel("input current / λ")
    axes.set_ylabel("firing rate (spikes per step)")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.06), handlelength=1.6)


def _many_neurons(grid: Sequence[Any], modes: Mapping[str, Sequence[LayerRates]]) -> None:
    far = max(float(one.inputs.double().quantile(0.999)) for layers in modes.values() for one in layers)
    low, high = -0.5, min(max(1.4, far), 2.5)
    for axes in grid[len(modes) :]:
        axes.set_axis_off()
    for axes, (mode, layers) in zip(grid, modes.items(), strict=False):
        for place, one in enumerate(layers):
            shown = _some((one.inputs >= low) & (one.inputs <= high))
            axes.scatter(
                one.inputs[shown],
                one.rates[shown],
                color=COLOURS[place % len(COLOURS)],
                s=3.5,
                alpha=0.5,
                linewidths=0,
                label=one.name,
                zorder=4 - place / len(layers),  # the first layer, exact and narrow, on top
            )
        _ideal(axes, torch.linspace(low, high, 200))
        axes.set_xlim(low, high)
        axes.set_ylim(-0.06, 1.12)
        axes.set_xticks([0, 1, 2], ["0", "1", "2"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_title(mode, loc="left", fontsize=8.5, pad=3)
        axes.text(
            0.98,
            0.07,
            "above λ\n" + "\n".join(f"{one.name} {100 * one.saturated:.1f} %" for one in layers),
            transform=axes.transAxes,
            ha="right",
            fontsize=7,
            linespacing=1.25,
            color=DARK,
            zorder=6,
            bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.5},
        )


def _some(chosen: Tensor, limit: int = 4000) -> Tensor:
    """Indices of at most `limit` true elements, always the same ones."""
    indices = chosen.nonzero().flatten()
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))
    return indices[order[:limit]]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions at least `gap` apart within [low, high], as close to `wanted` as possible.

    >>> spread([0.0, 0.0, 5.0], gap=1.0, low=-9.0, high=9.0)
    [-0.5, 0.5, 5.0]

    If there is no room for the gap, the positions are evenly spaced.
    """
    count = len(wanted)
    if count > 1:
        gap = min(gap, (high - low) / (count - 1))
    order = sorted(range(count), key=lambda index: wanted[index])
    # Without the gaps, positions only have to rise: pool neighbours that do not, and place each pool at its mean.
    pools: list[list[float]] = []
    for place, index in enumerate(order):
        pools.append([wanted[index] - place * gap])
        while len(pools) > 1 and _mean(pools[-2]) > _mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    levels = [_mean(pool) for pool in pools for _ in pool]
    placed = [0.0] * count
    for place, (index, level) in enumerate(zip(order, levels, strict=True)):
        placed[index] = min(max(level, low), high - (count - 1) * gap) + place * gap
    return placed


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _line(index: int) -> dict[str, Any]:
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": LINES[index // len(COLOURS) % len(LINES)],
    }


def _time_axis(axes: Any, first: int, steps: int) -> None:
    """Logarithmic if it spans enough steps, because accuracy changes most in the first steps."""
    axes.set_xlim(first - 0.5 if steps == first else first, steps + 0.5 if steps == first else steps)
    if steps < 10:
        axes.set_xticks(range(first, steps + 1))
        return
    axes.set_xscale("log")
    ticks = [t for t in shown_steps(steps) if t >= first]
    if len(ticks) > 2 and steps / ticks[-2] < 1.5:
        del ticks[-2]  # its label would touch the last one
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.set_xticks([], minor=True)


def _close_up(final: Sequence[float], ann: float) -> tuple[float, float]:
    """Limits that separate the end values within ten points of the ANN, or the best values if there are none."""
    near = [value for value in final if value >= ann - 0.1] or [max(final)]
    low, high = min(*near, ann), max(*near, ann)
    margin = max(0.3 * (high - low), 0.01)
    return max(0.0, low - 1.5 * margin), min(1.002, high + 0.5 * margin)


def _around(final: Sequence[float], ann: float) -> tuple[float, float]:
    """Limits that separate the end values of a metric of any range."""
    found = [value for value in (*final, ann) if math.isfinite(value)] or [0.0]
    low, high = min(found), max(found)
    margin = 0.15 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _label_ends(
    axes: Any, values: Sequence[float], names: Sequence[str], lines: Sequence[Mapping[str, Any]], *, room: float
) -> None:
    """Label every line at its right end, in the order of the values; an arrow marks lines below the limits.

    Args:
        axes: The axes with the lines.
        values: End values of the lines.
        names: Names of the lines.
        lines: Styles of the lines.
        room: Inches to the right of the axes.
    """
    low, high = axes.get_ylim()
    box, (figure_width, figure_height) = axes.get_position(), axes.figure.get_size_inches()
    inch, gap = 1 / (box.width * figure_width), 8.5 * 1.3 / 72 / (box.height * figure_height)
    heights = [(value - low) / (high - low) if math.isfinite(value) else 0.0 for value in values]
    # Lines below the limits are labelled at the bottom; a tiny part of their value keeps them in order.
    places = spread([max(height, 1e-3 * height) for height in heights], gap, gap / 4, 1.0)
    for value, height, place, name, line in zip(values, heights, places, names, lines, strict=True):
        free: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
        if height >= 0:
            leader = [1 + 0.02 * inch, 1 + 0.13 * inch]
            axes.plot(leader, [height, place], color=line["color"], linewidth=0.8, **free)
        axes.plot([1 + 0.14 * inch, 1 + 0.3 * inch], [place, place], **line, **free)
        axes.text(1 + 0.36 * inch, place, name, va="center", color=DARK, transform=axes.transAxes)
        text = short(value) + ("" if height >= 0 else " ↓")
        left = 1 + (room - 0.64) * inch
        axes.text(left, place, text, va="center", color=DARK, transform=axes.transAxes)


def _ideal(axes: Any, inputs: Tensor) -> None:
    axes.plot(
        inputs,
        inputs.clamp(0, 1),
        color=DARK,
        linestyle=(0, (4, 2)),
        linewidth=1.0,
        label="clamp(x, 0, 1)",
        zorder=5,
    )
