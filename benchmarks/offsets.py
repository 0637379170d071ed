"""Accuracy with biases per step (FTBC) and with a probe (COS), on training images that no network was trained on.

    python benchmarks/offsets.py --shared DIR [--networks resnet20 vgg7] [--steps 4 8 16]

The first 1,024 training images calibrate, the first of the last 2,500 judge; no test image is read. Needs the plugins
sj-ann2snn-calibration and sj-ann2snn-offsets. T is the number of all steps: in the ways with a delay or with `cos`,
half of them do not count. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from cifar10 import NETWORKS, normalized, pixels, trained_network

from sj_ann2snn import Converter, Delayed, evaluate

BATCH = 125


def ways(steps: int) -> dict[str, tuple[dict[str, Any], int]]:
    """By name, the arguments of the conversion and the delay of the readout."""
    half = steps // 2
    start = {"initial_potential": 0.5}
    return {
        "99.9%, from θ/2": ({"mode": "99.9%", **start}, 0),
        "99.9%, ftbc": ({"mode": "99.9%", **start, "corrections": "ftbc", "T": steps}, 0),
        "99.9%, delay T/2": ({"mode": "99.9%", **start}, half),
        "99.9%, cos, ρ = T/2": ({"mode": "99.9%", "neuron": "cos", "probe_steps": half}, half),
        "staircase": ({"mode": "staircase", "T": steps}, 0),
        "staircase, ftbc": ({"mode": "staircase", "T": steps, "corrections": "ftbc"}, 0),
        "staircase, delay T/2": ({"mode": "staircase", "T": half}, half),
        "staircase, cos, ρ = T/2": ({"mode": "staircase", "T": half, "neuron": "cos", "probe_steps": half}, half),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shared", type=Path, required=True, help="the folder with data/cifar10_train_jpeg.npz")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--steps", nargs="+", type=int, default=[4, 8, 16])
    parser.add_argument("--judges", type=int, default=500, help="images that judge (default: %(default)s)")
    parser.add_argument("--calibration", type=int, default=1024, help="images that calibrate (default: %(default)s)")
    args = parser.parse_args()
    calibration = list(normalized(pixels(args.shared, "train", slice(args.calibration))[0]).split(128))
    images, labels = pixels(args.shared, "train", slice(-2500, args.judges - 2500))
    batches = list(zip(normalized(images).split(BATCH), labels.split(BATCH), strict=True))
    print("| network | T | way | accuracy in % | spikes per image |\n|---|---|---|---|---|", flush=True)
    for name in args.networks:
        ann = trained_network(name)
        with torch.no_grad():
            right = sum(int((ann(x).argmax(1) == y).sum()) for x, y in batches)
        print(f"| {name} | | the ANN | {100 * right / args.judges:.1f} | |", flush=True)
        for steps in args.steps:
            for way, (options, delay) in ways(steps).items():
                snn = Converter(calibration, channel_wise=True, progress=False, **options)(ann)
                found = evaluate(snn, batches, T=steps, readout=Delayed(delay=delay), progress=False)
                accuracy, spikes = 100 * found.accuracy[-1], found.spikes_per_sample
                print(f"| {name} | {steps} | {way} | {accuracy:.1f} | {spikes:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
