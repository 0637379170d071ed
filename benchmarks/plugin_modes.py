"""Accuracy over time steps with the modes of sj-ann2snn-ltb and sj-ann2snn-spikenorm, beside the built-in ones.

    python benchmarks/plugin_modes.py --shared DIR [--networks resnet20 vgg_max mnist_cnn] [--samples 200]

DIR (or the environment variable SJ_ANN2SNN_SHARED) holds the CIFAR-10 files of `low_latency.py`, the MNIST files of
`mnist_modes.py` and in models/, reference_models.py with the weights of the networks. Both plugins must be installed.
It goes on where it was stopped, and writes into --out

    plugin_modes.json   every measurement
    plugin_modes.md     the tables
    plugin_modes.png    accuracy over T

The first `--calibration` training images calibrate, without their labels; the first `--samples` test images test. One
run over the largest T tells the accuracy at all of them, so that mode "ltb" is calibrated for a T of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from low_latency import Batches, Store, accuracy, images
from mnist_modes import markdown_table
from reference_networks import VARIABLE, reference_network
from torch import Tensor, nn

from sj_ann2snn import Converter, __version__, evaluate
from sj_ann2snn.cli.data import mnist

READOUTS = {"mean": "solid", "delayed": "dashed"}
ROBUST = {"channel_wise": True, "initial_potential": 0.5}
MODES: dict[str, dict[str, Any]] = {
    "max": {"mode": "max"},
    "spike-norm": {"mode": "spike-norm"},
    "99.9%": {"mode": "99.9%"},
    "spike-norm, 99.9% of currents": {"mode": "spike-norm", "current_percentile": 99.9},
    "max, by channel, from θ/2": {"mode": "max", **ROBUST},
    "spike-norm, 99.9% by channel, from θ/2": {
        "mode": "spike-norm",
        "current_percentile": 99.9,
        "current_channel_wise": True,
        **ROBUST,
    },
    "99.9%, by channel, from θ/2": {"mode": "99.9%", **ROBUST},
    "ltb, T=4": {"mode": "ltb", "T": 4},
    "ltb, T=16": {"mode": "ltb", "T": 16},
    "ltb, T=64": {"mode": "ltb", "T": 64},
}
COLOURS = {"max": "Greys", "99.9": "Greens", "spike": "Oranges", "ltb": "Blues"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shared", type=Path, default=os.environ.get(VARIABLE), help=f"default: ${VARIABLE}")
    parser.add_argument("--networks", nargs="+", default=["resnet20", "vgg_max", "mnist_cnn"])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), metavar="MODE")
    parser.add_argument("--steps", nargs="+", type=int, default=[4, 8, 16, 32, 64])
    parser.add_argument("--samples", type=int, default=200, help="test images (default: %(default)s)")
    parser.add_argument("--calibration", type=int, default=500, help="calibration images (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "plugin_modes")
    args = parser.parse_args()
    if args.shared is None:
        parser.error(f"name the folder with the data and the networks: --shared DIR, or set {VARIABLE}")
    args.out.mkdir(parents=True, exist_ok=True)
    store = Store(args.out / "plugin_modes.json")
    steps = max(args.steps)
    for name in args.networks:
        ann = reference_network(args.shared, name)
        calibration, test = data(args.shared, name, args.calibration, args.samples)
        store.keep((name, "ANN", 0), partial(accuracy, ann, test))
        for mode in args.modes:
            print(f"{name}, {mode}", file=sys.stderr, flush=True)
            store.keep((name, mode, steps), partial(measure, ann, MODES[mode], calibration, test, steps))
    page = tables(store, args.steps, args.calibration)
    (args.out / "plugin_modes.md").write_text(page, encoding="utf-8")
    draw(store, args.steps, args.out / "plugin_modes.png")
    print(page)
    return 0


def data(shared: Path, network: str, calibration: int, samples: int) -> tuple[list[Tensor], Batches]:
    """Calibration batches without labels, and test batches."""
    if network.startswith("mnist"):
        found = mnist(shared / "data")
        seen, x, labels = found.train_images[:calibration], found.test_images[:samples], found.test_labels[:samples]
    else:
        seen, (x, labels) = images(shared, "train", calibration)[0], images(shared, "test", samples)
    return list(seen.split(100)), list(zip(x.split(200), labels.split(200), strict=True))


def measure(
    ann: nn.Module, arguments: dict[str, Any], calibration: list[Tensor], test: Batches, steps: int
) -> dict[str, Any]:
    """Convert once and read out, where the paper delays the answer in both ways."""
    start = time.perf_counter()
    snn = Converter(calibration, progress=False, **arguments)(ann)
    converted = time.perf_counter() - start
    readouts = READOUTS if arguments["mode"] == "ltb" else ("mean",)
    results = {readout: evaluate(snn, test, steps, readout=readout, progress=False) for readout in readouts}
    mean = results["mean"]
    return {
        **{readout: result.accuracy for readout, result in results.items()},
        "rate": mean.spikes_per_sample / steps / sum(layer.neurons for layer in mean.layers),
        "conversion_seconds": converted,
    }


def tables(store: Store, steps: list[int], calibration: int) -> str:
    """Accuracy by T, firing rate and time, one table for every network."""
    lines = [
        "# Modes of plugins over time steps",
        "",
        f'{calibration} images calibrate. Of two numbers the second is that of `readout="delayed"` (by 4 steps).',
    ]
    for network in store.networks():
        ann = store.get(network, "ANN", 0)
        assert ann is not None
        rows = [("mode", *(f"T={t}" for t in steps), "spikes per neuron and step", "conversion")]
        for mode in MODES:
            found = store.get(network, mode, max(steps))
            if found is None:
                continue
            read = [found[readout] for readout in READOUTS if readout in found]
            cells = [" / ".join(f"{accuracy[t - 1]:.3f}" for accuracy in read) for t in steps]
            rows.append((mode, *cells, f"{found['rate']:.3f}", f"{found['conversion_seconds']:.0f} s"))
        header = f"The ANN: {ann['accuracy']:.3f} of {ann['samples']:,} images."
        lines += ["", f"## {network}", "", header, "", *markdown_table(rows)]
    lines += ["", f"sj-ann2snn {__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads.", ""]
    return "\n".join(lines)


def draw(store: Store, steps: list[int], file: Path) -> None:
    """Accuracy over T, one panel for each network."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    networks = store.networks()
    figure, panels = plt.subplots(1, len(networks), figsize=(4.8 * len(networks), 4.2), squeeze=False)
    for panel, network in zip(panels[0], networks, strict=True):
        ann = store.get(network, "ANN", 0)
        assert ann is not None
        panel.axhline(100 * ann["accuracy"], color="black", linewidth=0.8, linestyle=":", label="ANN")
        for prefix, colours in COLOURS.items():
            names = [name for name in MODES if name.startswith(prefix)]
            for index, name in enumerate(names):
                found = store.get(network, name, max(steps))
                if found is None:
                    continue
                shade = plt.get_cmap(colours)(0.4 + 0.5 * index / max(1, len(names) - 1))
                for readout, line in READOUTS.items():
                    if readout in found:
                        label = f"{name}, delayed" if readout == "delayed" else name
                        shown = [(t, 100 * found[readout][t - 1]) for t in range(1, max(steps) + 1)]
                        panel.plot(*zip(*shown, strict=True), color=shade, linestyle=line, linewidth=1.3, label=label)
        panel.set_xscale("log", base=2)
        panel.set_xticks(steps, [str(t) for t in steps])
        panel.set_xlabel("time steps T")
        panel.set_title(network)
        panel.grid(alpha=0.25)
    panels[0][0].set_ylabel("accuracy, %")
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
