"""A picture of how sj-ann2snn-analog computes: one SiLU at work, and the error of torchvision's models over time.

    python benchmarks/analog_models.py --results rows      # measures
    python benchmarks/analog_figure.py --results rows --picture docs/images/analog.png

Left, three panels of one unit: two IF neurons of SpikingJelly drive it through weights, `TemporalDifference` computes
SiLU of the current, and the mean of what it emits is SiLU of the mean current at every step. Right what
`analog_models.py` measured in the column "spiking", where neurons stand behind every activation.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from analog_models import GOAL, STEPS, Row, read_rows
from matplotlib.figure import Figure
from sj_ann2snn_analog import TemporalDifference
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

DRIVES, WEIGHTS, OFFSET = (0.31, 0.57), (3.0, -2.0), 0.1
T = 40
INPUT, EXACT, NAIVE, GREY = "#4477aa", "#228833", "#cc3311", "#666666"
COLUMN = "spiking"


def main() -> int:
    parser = argparse.ArgumentParser(description="A picture of temporal differences.")
    parser.add_argument("--results", type=Path, required=True, help="folder of the rows of analog_models.py")
    parser.add_argument("--picture", type=Path, required=True, help="the PNG to write")
    args = parser.parse_args()
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    found = [columns[COLUMN] for columns in read_rows(args.results).values() if COLUMN in columns]
    with mpl.rc_context({"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False}):
        picture(current(), found).savefig(args.picture, dpi=130)
    return 0


def current() -> Tensor:
    """What two IF neurons of constant drive send through their weights, ``[T]``."""
    spikes = neuron.IFNode(v_reset=None, step_mode="m")(torch.tensor(DRIVES).expand(T, 1, 2))
    weighted: Tensor = spikes[:, 0] @ torch.tensor(WEIGHTS) + OFFSET
    return weighted


def running_mean(x_seq: Tensor) -> Tensor:
    return x_seq.cumsum(0) / torch.arange(1, len(x_seq) + 1)


def picture(x_seq: Tensor, rows: list[Row]) -> Figure:
    silu = nn.SiLU()
    exact = torch.cat(list(map(TemporalDifference(silu), x_seq.split(1))))
    naive = silu(x_seq)
    steps = torch.arange(1, T + 1)
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    grid = figure.add_gridspec(3, 2, width_ratios=(1.15, 1))
    top, middle, bottom = (figure.add_subplot(grid[row, 0]) for row in range(3))
    right = figure.add_subplot(grid[:, 1])

    top.vlines(steps, 0, x_seq, color=INPUT, linewidth=1.5, label="current x(t) of two IF neurons")
    top.plot(steps, running_mean(x_seq), color="black", linewidth=1.2, label="its mean m(t)")
    top.set_title("What comes in", loc="left")

    middle.vlines(steps, 0, exact, color=EXACT, linewidth=1.5, label="t·SiLU(m(t)) − (t−1)·SiLU(m(t−1)), analog")
    middle.set_title("What the temporal difference emits", loc="left")

    wanted = float(silu(torch.tensor(DRIVES) @ torch.tensor(WEIGHTS) + OFFSET))
    bottom.axhline(wanted, color=GREY, linestyle="--", linewidth=1, label="ANN")
    bottom.plot(steps, running_mean(naive), color=NAIVE, linewidth=1.5, label="SiLU of the current at each step")
    bottom.plot(steps, running_mean(exact), color=EXACT, linewidth=1.5, label="temporal difference")
    bottom.set_title("Mean of the outputs up to step t", loc="left")
    bottom.set_xlabel("step t")
    for axes in (top, middle, bottom):
        axes.axhline(0, color=GREY, linewidth=0.5)
        axes.legend(loc="upper right", frameon=False, fontsize=8, ncols=3 if axes is bottom else 2)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.35 * (high - low))  # room for the legend

    markers = "osD^v<>P*"
    for number, row in enumerate(rows):
        errors = [row.error[str(count)] for count in STEPS]
        name = f"{row.model} ({row.spiking} spiking, {row.analog} analog)"
        right.loglog(STEPS, errors, marker=markers[number % len(markers)], markersize=5, linewidth=1.2, label=name)
    right.axhline(GOAL, color=GREY, linestyle="--", linewidth=1)
    right.annotate(f"{GOAL:g}", (STEPS[0], GOAL), xytext=(0, 3), textcoords="offset points", color=GREY)
    right.set_xticks(STEPS, [str(count) for count in STEPS])
    right.minorticks_off()
    right.set_title("torchvision's models with signed neurons", loc="left")
    right.set_xlabel("number of steps T")
    right.set_ylabel("relative error of the mean output against the ANN")
    _below(right, len(rows))
    return figure


def _below(axes: Any, entries: int) -> None:
    """The legend at the bottom of the axes, with room for it."""
    low, high = axes.get_ylim()
    axes.set_ylim(low / 10 ** (0.28 * entries), high)
    axes.legend(loc="lower left", frameon=False, fontsize=8)


if __name__ == "__main__":
    sys.exit(main())
