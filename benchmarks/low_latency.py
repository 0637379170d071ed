"""Accuracy at few time steps: every way that this project offers, and SpikingJelly 2.0's recipes, in one table.

    python benchmarks/low_latency.py --shared DIR [--networks resnet20 vgg_max] [--steps 4 8 16 32]

DIR (or the environment variable SJ_ANN2SNN_SHARED) holds data/cifar10_train_jpeg.npz, data/cifar10_test_jpeg.npz and in
models/, reference_models.py with the weights of the networks; "vgg7" and "vgg8" are those of train_cifar10.py. The
plugins sj-ann2snn-calibration, -offsets, -signed, -burst, -multithreshold and -differential must be installed for the
ways that need them. It takes an hour or two on two cores, goes on where it was stopped, and writes into --out

    low_latency.json              every measurement
    low_latency.md                the tables
    accuracy_over_steps.png, accuracy_over_spikes.png

The first 1,024 training images calibrate, without their labels; the 5,000 test images test. The answer is the mean over
exactly T steps, for the ways that delay it over the last ones of the T steps.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cifar10 import normalized, pixels, trained_network
from reference_networks import DEFINITIONS, VARIABLE, reference_network
from torch import Tensor, nn

from sj_ann2snn import Converter, evaluate
from sj_ann2snn.compat import spikingjelly_version
from sj_ann2snn.evaluation.evaluate import accuracy_of

CALIBRATION, BATCH = 1024, 64
LEVELS = 8
"""Of graded neurons: spikes in a step at the most, of either sign."""

LTB_PASSES = 25
"""Over the calibration data: 400 updates of the thresholds, as many as in SpikingJelly's own example."""

Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Way:
    """One way of converting.

    Attributes:
        group: What its spikes are: "binary", "graded", or "peer" for SpikingJelly's own.
        convert: Makes the network from the ANN and the calibration batches, for T steps.
        any_steps: One run tells of every T: the network is the same for all of them, and its spikes are taken to come
            at a steady rate.
    """

    group: str
    convert: Callable[[nn.Module, list[Tensor], int], nn.Module]
    any_steps: bool = False


def ours(**arguments: Any) -> Callable[[nn.Module, list[Tensor], int], nn.Module]:
    """A conversion with these arguments; of them, those that are functions are given T."""

    def convert(ann: nn.Module, batches: list[Tensor], steps: int) -> nn.Module:
        given = {name: value(steps) if callable(value) else value for name, value in arguments.items()}
        return Converter(batches, progress=False, T=given.pop("T", steps), **given)(ann)

    return convert


def recipe(name: str, passes: int = 1, **arguments: Any) -> Callable[[nn.Module, list[Tensor], int], nn.Module]:
    """A conversion by one of SpikingJelly 2.0's recipes, shown the calibration data so many times."""

    def convert(ann: nn.Module, batches: list[Tensor], steps: int) -> nn.Module:
        from spikingjelly.activation_based import ann2snn

        made = getattr(ann2snn, name)(dataloader=[(x, None) for x in batches] * passes, **arguments)
        network: nn.Module = ann2snn.Converter(made).convert(ann)
        return network.eval()

    return convert


GRADED: dict[str, Any] = {"mode": "staircase", "levels": LEVELS, "T": lambda steps: steps * LEVELS}
WAYS = {
    "SpikingJelly 2.0, max": Way("peer", recipe("RateCodingRecipe", mode="max"), True),
    "SpikingJelly 2.0, 99.9%": Way("peer", recipe("RateCodingRecipe", mode="99.9%"), True),
    "SpikingJelly 2.0, local threshold balancing": Way(
        "peer", recipe("LocalThresholdBalancingRecipe", passes=LTB_PASSES), True
    ),
    "99.9%": Way("binary", ours(mode="99.9%", channel_wise=True)),
    "99.9%, from θ/2": Way("binary", ours(mode="99.9%", channel_wise=True, initial_potential=0.5)),
    "staircase": Way("binary", ours(mode="staircase")),
    "staircase, ftbc": Way("binary", ours(mode="staircase", corrections="ftbc")),
    "staircase, snn-calibration, tuned weights": Way(
        "binary", ours(mode="staircase", corrections="snn-calibration", weights="tuned")
    ),
    "low-latency": Way("binary", ours(mode="low-latency")),
    "low-latency, tuned weights": Way("binary", ours(mode="low-latency", weights="tuned")),
    "signed": Way("graded", ours(mode="staircase", neuron="signed")),
    f"signed, {LEVELS} levels": Way("graded", ours(neuron="signed", **GRADED)),
    f"burst, {LEVELS} levels": Way("graded", ours(neuron="burst", **GRADED)),
    f"multi-threshold, {LEVELS} levels": Way("graded", ours(mode="multi-threshold", levels=LEVELS)),
    "differential": Way("graded", ours(mode="max", channel_wise=True, neuron="differential")),
}

GOALS = {"binary": {4: 4.0, 8: 1.2, 16: 0.4, 32: 0.1}, "graded": {1: 0.5, 2: 0.1}}
"""Points that the best way of a group may lose, by T."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shared", type=Path, default=os.environ.get(VARIABLE), help=f"default: ${VARIABLE}")
    parser.add_argument("--networks", nargs="+", default=["resnet20", "vgg_max"])
    parser.add_argument("--steps", nargs="+", type=int, default=[4, 8, 16, 32])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
    parser.add_argument("--samples", type=int, default=5000, help="test images (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "low_latency")
    args = parser.parse_args()
    if args.shared is None:
        parser.error(f"name the folder with the data and the networks: --shared DIR, or set {VARIABLE}")
    args.out.mkdir(parents=True, exist_ok=True)
    store = Store(args.out / "low_latency.json")
    calibration = images(args.shared, "train", CALIBRATION)[0].split(BATCH)
    x, labels = images(args.shared, "test", args.samples)
    test = list(zip(x.split(250), labels.split(250), strict=True))
    for name in args.networks:
        ann = network(args.shared, name)
        store.keep((name, "ANN", 0), partial(accuracy, ann, test))
        for way in args.ways:
            for steps in args.steps:
                measure(store, name, ann, way, steps, list(calibration), test, max(args.steps))
    (args.out / "low_latency.md").write_text(tables(store), encoding="utf-8")
    draw(store, args.out)
    print(tables(store))
    return 0


def network(shared: Path, name: str) -> nn.Module:
    """The trained network of that name, in eval mode."""
    weights = shared / Path(DEFINITIONS).with_name(f"{name}.pth")
    return reference_network(shared, name) if weights.exists() else trained_network(name)


def accuracy(ann: nn.Module, test: Batches) -> dict[str, Any]:
    """Of the ANN itself."""
    return {"accuracy": accuracy_of(ann, test), "samples": sum(len(labels) for _, labels in test)}


def images(shared: Path, part: str, count: int, *, last: bool = False) -> tuple[Tensor, Tensor]:
    """The first images of a part of CIFAR-10, or the last ones, normalized, and their labels."""
    shown, labels = pixels(shared, part, slice(-count, None) if last else slice(count))
    return normalized(shown), labels


class Store:
    """Measurements by network, way and T, written to a file as soon as they are there."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}

    def keep(self, key: tuple[str, str, int], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        name = "|".join(map(str, key))
        if name not in self.found:
            self.found[name] = make()
            self.file.write_text(json.dumps(self.found, indent=1, sort_keys=True, ensure_ascii=False))
        return self.found[name]

    def get(self, network: str, way: str, steps: int) -> dict[str, Any] | None:
        return self.found.get(f"{network}|{way}|{steps}")

    def networks(self) -> list[str]:
        return list(dict.fromkeys(key.partition("|")[0] for key in self.found))

    def steps(self, network: str | None = None) -> list[int]:
        """The numbers of steps that were measured, with one network or with any."""
        keys = (key.split("|") for key in self.found)
        return sorted({int(key[-1]) for key in keys if network in (None, key[0])} - {0})


def measure(
    store: Store,
    network: str,
    ann: nn.Module,
    name: str,
    steps: int,
    calibration: list[Tensor],
    test: Batches,
    most: int,
) -> None:
    """Convert and test one way, unless that is stored already."""
    way = WAYS[name]

    def run(simulated: int) -> dict[str, Any]:
        print(f"{network}, {name}, T={simulated}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        snn = way.convert(ann, calibration, simulated)
        converted = time.perf_counter() - start
        result = evaluate(snn, test, simulated, progress=False)
        return {
            "accuracy": result.accuracy[-1],
            "curve": result.accuracy,
            "spikes": result.spikes_per_sample,
            "emissions": result.emissions_per_sample,
            "neurons": sum(layer.neurons for layer in result.layers),
            "conversion_seconds": converted,
            "simulation_seconds": result.seconds,
        }

    if not way.any_steps:
        store.keep((network, name, steps), lambda: run(steps))
        return
    # The mean over fewer steps is on the way.
    whole = store.keep((network, name, most), lambda: run(most))
    if steps < most:
        spent = {kind: whole[kind] * steps / most for kind in ("spikes", "emissions")}
        part = {"accuracy": whole["curve"][steps - 1], **spent}
        store.keep((network, name, steps), lambda: {**whole, **part, "curve": whole["curve"][:steps]})


def tables(store: Store) -> str:
    """Points lost against the ANN, spikes and times, for every network."""
    lines = [f"SpikingJelly {spikingjelly_version()}, torch {torch.__version__}.", ""]
    for network in store.networks():
        steps = store.steps(network)
        ann = store.get(network, "ANN", 0)
        assert ann is not None
        lines += [
            f"### {network}",
            "",
            f"The ANN: {ann['accuracy']:.4f} of {ann['samples']:,} images. Points lost; spikes and conversion time are "
            "those of the largest T in a row.",
            "",
        ]
        lines.append(
            "| | " + " | ".join(f"T={t}" for t in steps) + " | spikes per neuron | emissions per neuron | conversion |"
        )
        lines.append("|---|" + "---|" * (len(steps) + 3))
        for name in WAYS:
            found = [store.get(network, name, t) for t in steps]
            if any(found):
                lost = (f"{100 * (ann['accuracy'] - one['accuracy']):.2f}" if one else "" for one in found)
                last = next(one for one in reversed(found) if one)
                spent = " | ".join(f"{last[kind] / last['neurons']:.2f}" for kind in ("spikes", "emissions"))
                lines.append(f"| {name} | " + " | ".join(lost) + f" | {spent} | {last['conversion_seconds']:.0f} s |")
        for group, goals in GOALS.items():
            wanted = (f"≤ {goals[t]}" if t in goals else "" for t in steps)
            lines.append(f"| *goal, {group} spikes* | " + " | ".join(wanted) + " | | | |")
        lines.append("")
    return "\n".join(lines)


LOST = [80, 40, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1]
LEAST = LOST[-1]
"""Points lost: marks of the axis, and what counts as none."""

COLUMNS = 3
"""Panels side by side."""

COLOURS = {"peer": "Greys", "binary": "Blues", "graded": "Oranges"}


def draw(store: Store, out: Path) -> None:
    """Accuracy over T, and over spikes per neuron, one picture each with one panel for each network."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    networks = store.networks()
    for file, across in (
        ("accuracy_over_steps.png", "time steps T"),
        ("accuracy_over_spikes.png", "spikes per neuron"),
    ):
        columns = min(COLUMNS, len(networks))
        rows = math.ceil(len(networks) / columns)
        figure, grid = plt.subplots(rows, columns, figsize=(4.8 * columns, 4.2 * rows), squeeze=False)
        panels = list(grid.flat)
        for panel in panels[len(networks) :]:
            panel.set_axis_off()
        for panel, network in zip(panels, networks, strict=False):
            ann, steps = store.get(network, "ANN", 0), store.steps(network)
            assert ann is not None
            for group, colours in COLOURS.items():
                names = [name for name, way in WAYS.items() if way.group == group]
                for index, name in enumerate(names):
                    points = [(t, one) for t in steps if (one := store.get(network, name, t))]
                    if not points:
                        continue
                    values = [t if "steps" in file else one["spikes"] / one["neurons"] for t, one in points]
                    shade = plt.get_cmap(colours)(0.4 + 0.55 * index / max(1, len(names) - 1))
                    lost = [max(LEAST, 100 * (ann["accuracy"] - one["accuracy"])) for _, one in points]
                    panel.plot(values, lost, marker="o", markersize=4, color=shade, label=name)
            panel.set_xscale("log", base=2)
            panel.set_xlabel(across)
            panel.set_yscale("log")
            panel.invert_yaxis()
            panel.set_yticks(LOST, [f"≤ {one}" if one == LEAST else f"{one:g}" for one in LOST])
            panel.minorticks_off()
            panel.set_title(f"{network} (ANN {100 * ann['accuracy']:.1f} %)")
            panel.grid(alpha=0.25)
            shown = steps if "steps" in file else [2.0**k for k in range(-2, 6)]
            panel.set_xticks(shown, [f"{one:g}" for one in shown])
        for panel in grid[:, 0]:
            panel.set_ylabel("accuracy, in points below the ANN's")
        drawn: dict[str, Any] = {}
        for panel in panels:
            drawn |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
        names = [name for name in WAYS if name in drawn]
        lines = [drawn[name] for name in names]
        figure.legend(lines, names, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, fontsize=9, frameon=False)
        figure.tight_layout()
        figure.savefig(out / file, dpi=130, bbox_inches="tight")
        plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
