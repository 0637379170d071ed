"""What local threshold balancing and SPIKE-NORM do, on a small network for scikit-learn's digits, in one picture.

    python benchmarks/plugin_thresholds.py [--out benchmarks/results/plugin_thresholds]

Both plugins must be installed; it takes half a minute. It trains the network and writes FILE.png and FILE.md (the
numbers of the right-hand picture).

left    The bound that mode "ltb" minimises, for one channel and several T, with the thresholds that the update passes.
middle  The largest activation of every layer, and the largest current that arrives there while the network spikes.
right   Accuracy over time steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from mnist_modes import markdown_table
from plugin_modes import MODES
from sj_ann2snn_ltb import Bound
from torch import Tensor, nn

from sj_ann2snn import Converter, Correction, QuantileSketch, Trial, TrialSite, __version__, channels_first_2d, evaluate
from sj_ann2snn.cli.data import ImageData, digits
from sj_ann2snn.evaluation.evaluate import accuracy_of

STEPS = (2, 4, 8, 16, 32, 64)
BOUND_STEPS = (2, 4, 8, 32)
LEFT_OUT = ("spike-norm, 99.9% by channel, from θ/2", "ltb, T=64")
"""Modes of `plugin_modes.py` for which the picture has no room."""


class Currents(Correction):
    """Keeps the largest current of every layer while the network runs, in units of the threshold."""

    name = "currents"

    def __init__(self) -> None:
        self.largest: dict[str, float] = {}

    @torch.no_grad()
    def correct(self, trial: Trial) -> None:
        def emit(site: TrialSite, currents: Tensor) -> Tensor:
            self.largest[site.name] = float(currents.max())
            return site.fire(currents)

        trial.run(trial.inputs(64), STEPS[-1], emit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "plugin_thresholds")
    out = parser.parse_args().out
    data = digits()
    ann = trained(data)
    curves: dict[str, tuple[float, ...]] = {}
    for name, arguments in MODES.items():
        if name in LEFT_OUT:
            continue
        snn = Converter([data.train_images], progress=False, **arguments)(ann)
        curves[name] = evaluate(snn, data.test, STEPS[-1], progress=False).accuracy
        if arguments["mode"] == "ltb":
            delayed = evaluate(snn, data.test, STEPS[-1], readout="delayed", progress=False)
            curves[f"{name}, delayed readout"] = delayed.accuracy
    reached = accuracy_of(ann, data.test)
    out.parent.mkdir(parents=True, exist_ok=True)
    page = table(curves, reached, len(data.test_labels))
    out.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)
    draw(ann, data, curves, reached, out.with_suffix(".png"))


def trained(data: ImageData) -> nn.Sequential:
    """A network of five convolutions."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 16), (16, 32), (32, 32), (32, 32)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    ann = nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(ann.parameters(), lr=2e-3)
    for _ in range(15):
        for rows in torch.randperm(len(data.train_images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(ann(data.train_images[rows]), data.train_labels[rows]).backward()
            optimizer.step()
    return ann.eval()


def table(curves: dict[str, tuple[float, ...]], reached: float, samples: int) -> str:
    rows = [("mode", *(f"T={t}" for t in STEPS))]
    rows += [(name, *(f"{curve[t - 1]:.3f}" for t in STEPS)) for name, curve in curves.items()]
    lines = [f"scikit-learn's digits, five convolutions; the ANN: {reached:.3f} of {samples} images.", ""]
    return "\n".join([*lines, *markdown_table(rows), "", f"sj-ann2snn {__version__}, torch {torch.__version__}.", ""])


def draw(ann: nn.Sequential, data: ImageData, curves: dict[str, Any], reached: float, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15.5, 4.4))
    draw_bound(left, ann, data)
    draw_currents(middle, ann, data)
    right.axhline(100 * reached, color="black", linewidth=0.8, linestyle=":", label="ANN")
    for index, (name, curve) in enumerate(curves.items()):
        line = "dashed" if "delayed" in name else "solid"
        colour = plt.get_cmap("tab10")(index - sum("delayed" in one for one in list(curves)[: index + 1]))
        right.plot(range(1, len(curve) + 1), [100 * a for a in curve], color=colour, linestyle=line, label=name)
    right.set_xscale("log", base=2)
    right.set_xticks(STEPS, [str(t) for t in STEPS])
    right.set_xlabel("time steps T")
    right.set_ylabel("accuracy, %")
    right.set_title("Accuracy over time steps")
    right.legend(fontsize=7)
    for panel in (left, middle, right):
        panel.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


@torch.no_grad()
def draw_bound(panel: Any, ann: nn.Sequential, data: ImageData) -> None:
    """For the channel of the second layer whose largest activation is largest."""
    x = channels_first_2d(ann[:4](data.train_images), 1)
    x = x[x.amax(1).argmax()][None]
    counted = QuantileSketch(1, bits=7, octaves=16)
    counted.update(x)
    fired = int((x > 0).sum())
    shown = torch.linspace(0.02, 1.0, 300, dtype=torch.float64) * x.max()
    for steps in BOUND_STEPS:
        bound = Bound(*counted.histogram(), steps)
        error = [float(bound(one[None])) / fired for one in shown]
        (line,) = panel.plot(shown, error, label=f"T={steps}")
        passed = bound.updates()
        panel.plot(passed, [float(bound(one)) / fired for one in passed], ".", color=line.get_color(), markersize=5)
        panel.plot(
            passed[-1], float(bound(passed[-1])) / fired, "o", color=line.get_color(), markersize=8, fillstyle="none"
        )
    panel.set_yscale("log")
    panel.set_xlabel("threshold θ")
    panel.set_ylabel("bound on the squared error, per activation")
    panel.set_title("ltb: the update climbs to the minimum")
    panel.legend(fontsize=8)


def draw_currents(panel: Any, ann: nn.Sequential, data: ImageData) -> None:
    """λ of the mode "max", what arrives there, and λ of SPIKE-NORM."""
    seen = Currents()
    plain = Converter([data.train_images[:64]], mode="max", corrections=seen, progress=False)
    plain(ann)
    normed = Converter([data.train_images[:64]], mode="spike-norm", progress=False)
    normed(ann)
    names = list(seen.largest)
    activation = [plain.report.scales[name][0] for name in names]
    rows = {
        "largest activation (mode max)": activation,
        "largest current, thresholds of mode max": [
            a * seen.largest[n] for a, n in zip(activation, names, strict=True)
        ],
        "threshold by spike-norm": [normed.report.scales[name][0] for name in names],
    }
    for index, (label, values) in enumerate(rows.items()):
        panel.bar([place + 0.27 * (index - 1) for place in range(len(names))], values, width=0.25, label=label)
    panel.set_xticks(range(len(names)), [str(place + 1) for place in range(len(names))])
    panel.set_xlabel("layer")
    panel.set_ylabel("in the ANN's units")
    panel.set_title("spike-norm: currents exceed activations")
    panel.legend(fontsize=8)


if __name__ == "__main__":
    main()
