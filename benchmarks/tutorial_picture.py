"""Draws docs/images/tutorial_staircase.png: the firing rate of an IF neuron against a constant input current.

python benchmarks/tutorial_picture.py

Takes seconds. The tutorial's other picture, docs/images/tutorial_accuracy.png, is accuracy.png of `sj-ann2snn demo`.
"""

from __future__ import annotations

from pathlib import Path

import torch

from sj_ann2snn import make_if_neuron
from sj_ann2snn.support.plotting import COLOURS, DARK, figure_of_size

T = 8
PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "tutorial_staircase.png"


def main() -> None:
    """Draw the staircases on the left, and what they miss on the right."""
    current = torch.linspace(-0.5, 1.5, 4001)
    relu = current.clamp(min=0)
    with figure_of_size(7.4, 3.1) as figure:
        stairs, error = figure.subplots(1, 2)
        for initial, colour, name in ((0.0, COLOURS[0], "V₀ = 0"), (0.5, COLOURS[3], "V₀ = θ/2")):
            neurons = make_if_neuron(initial_potential=initial)
            rate = sum(neurons(current) for _ in range(T)) / T
            stairs.plot(current, rate, color=colour, label=name)
            error.plot(current, relu - rate, color=colour)
        stairs.plot(current, relu, color=DARK, linestyle=(0, (5, 2)), linewidth=1.2, label="ReLU")
        stairs.set(xlabel="input current x/θ", ylabel="firing rate r", ylim=(-0.05, 1.3), title=f"T = {T}")
        stairs.legend(frameon=False, loc="upper left")
        error.set(xlabel="input current x/θ", ylabel="ReLU − r", ylim=(-0.15, 0.3), title="what the rate misses")
        error.set_yticks([-1 / T, -1 / (2 * T), 0, 1 / (2 * T), 1 / T], ["−1/T", "−1/2T", "0", "1/2T", "1/T"])
        figure.tight_layout(w_pad=2)
        figure.savefig(PICTURE)


if __name__ == "__main__":
    main()
