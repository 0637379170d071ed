"""Accuracy of integer networks beside that of the same conversion in floating point, on CIFAR-10.

    SJ_ANN2SNN_SHARED=DIR python benchmarks/integer_networks.py --out benchmarks/results/integer_networks.txt

The folder DIR holds the networks (`models/`) and the images (`data/cifar10_test_jpeg.npz`).
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from cifar10 import normalized, pixels
from reference_networks import VARIABLE, reference_network

from sj_ann2snn import Converter, evaluate

CALIBRATION = 1000
WEIGHTS = (None, "int16", "int8", "int4")

SETTINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "shared": {"shared_scales": True},
    "pure": {"shared_scales": True, "avgpool_neuron": True},
}
"""What else the conversion of a network with shortcuts gets."""

WITH_SHORTCUTS = ("resnet20",)


def lines(shared: Path, images: int, steps: int, names: list[str], settings: list[str]) -> Iterator[str]:
    """The table, line by line."""
    train, _ = pixels(shared, "train", slice(CALIBRATION))
    calibration = list(normalized(train).split(100))
    test, labels = pixels(shared, "test", slice(images))
    x = normalized(test)
    loader = [(x[i : i + 100], labels[i : i + 100]) for i in range(0, images, 100)]
    yield (
        f"{images:,} test images, T = {steps}, mode 99.9%, channel_wise, initial_potential=0.5, "
        f"{CALIBRATION:,} training images for calibration; accuracy in percent"
    )
    head = ("T/4", "T/2", "T")
    yield (
        f"{'network':10} {'settings':8} {'weights':8} {' '.join(f'{one:>7}' for one in head)} {'lost':>6}   pure   "
        "conversion   evaluation"
    )
    for name in names:
        ann, float_accuracy = reference_network(shared, name), None
        for setting, weights in itertools.product(settings if name in WITH_SHORTCUTS else ["as it is"], WEIGHTS):
            start = time.perf_counter()
            options = {**SETTINGS[setting], "weights": weights, "channel_wise": True, "initial_potential": 0.5}
            snn = Converter(calibration, mode="99.9%", progress=False, **options)(ann)
            made = time.perf_counter()
            found = evaluate(snn, loader, T=steps, progress=False)
            done = time.perf_counter()
            accuracy = [100 * float(found.accuracy[t - 1]) for t in (steps // 4, steps // 2, steps)]
            float_accuracy = accuracy[-1] if float_accuracy is None else float_accuracy
            numbers = " ".join(f"{one:7.2f}" for one in accuracy)
            lost, pure = float_accuracy - accuracy[-1], "yes" if snn.is_pure else "no"
            yield (
                f"{name:10} {setting:8} {weights or 'float':8} {numbers} {lost:6.2f}   {pure:4} "
                f"{made - start:9.1f} s {done - made:9.1f} s"
            )


def main() -> None:
    """Print the table and write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--T", type=int, default=32)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "vgg_max"])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    found = []
    for line in lines(Path(os.environ[VARIABLE]), args.images, args.T, args.networks, args.settings):
        print(line, flush=True)
        found.append(line)
    if args.out:
        args.out.write_text("\n".join(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
