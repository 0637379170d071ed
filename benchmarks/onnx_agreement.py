"""Trained networks as ONNX files in ONNX Runtime: whether every neuron fires at the same steps.

    SJ_ANN2SNN_SHARED=DIR python benchmarks/onnx_agreement.py --out benchmarks/results/onnx_agreement.txt

The folder DIR holds the networks (`models/`) and the images (`data/`). Needs the plugin sj-ann2snn-onnx and
onnxruntime; `sj-ann2snn-burst` and `sj-ann2snn-signed` for the rows with their neurons.
"""

from __future__ import annotations

import argparse
import gzip
import os
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from cifar10 import normalized, pixels
from reference_networks import VARIABLE, reference_network
from sj_ann2snn_onnx import Onnx, run
from torch import Tensor, nn

from sj_ann2snn import Converter, check_export, export, simulate

CHANNELS = {"channel_wise": True, "initial_potential": 0.5}
ROWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("mnist_cnn", {}),
    ("mnist_cnn", {"weights": "int8"}),
    ("mnist_cnn", {"neuron": "burst"}),
    ("mnist_cnn", {"neuron": "signed"}),
    ("resnet20", {}),
    ("resnet20", CHANNELS),
    ("resnet20", {**CHANNELS, "weights": "int8"}),
    ("vgg_max", {}),
    ("vgg_max", {**CHANNELS, "weights": "int8"}),
)
"""Networks, and how they are converted."""

GRID = 2.0**8, 2.0**12
"""Of pixels and of the first layer's weights, for sums that are exact."""


def images(shared: Path, name: str, count: int) -> tuple[Tensor, Tensor]:
    """Images for calibration, and test images."""
    if name == "mnist_cnn":
        raw = gzip.decompress((shared / "data" / "t10k-images-idx3-ubyte.gz").read_bytes())
        every = torch.frombuffer(bytearray(raw[16:]), dtype=torch.uint8).reshape(-1, 1, 28, 28).float() / 255
        return every[:1000], every[8000 : 8000 + count]
    parts = (("train", 500), ("test", count))
    calibration, test = (normalized(pixels(shared, part, slice(most))[0]) for part, most in parts)
    return calibration, test


def on_grid(snn: nn.Module, x: Tensor) -> Tensor:
    """Round the first layer's weights in place, and the pixels."""
    first = next(one for one in snn.modules() if isinstance(one, nn.Conv2d))
    with torch.no_grad():
        for value in first.parameters():
            value.copy_((value * GRID[1]).round() / GRID[1])
    return (x * GRID[0]).round() / GRID[0]


def lines(shared: Path, steps: int, names: list[str]) -> Iterator[str]:
    """The findings, line by line."""
    yield f"{steps} steps, mode 99.9%, torch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}"
    for name, options in ROWS:
        neuron = options.get("neuron", "if")
        if name not in names or (neuron != "if" and find_spec(f"sj_ann2snn_{neuron}") is None):
            continue
        calibration, x = images(shared, name, 100 if name == "mnist_cnn" else 20)
        ann = reference_network(shared, name)
        snn = Converter(list(calibration.split(100)), mode="99.9%", progress=False, **options)(ann)
        with tempfile.TemporaryDirectory() as folder:
            yield from row(f"{name} {options}", snn, x, steps, Path(folder) / "network.onnx")
            if name == "resnet20" and "weights" not in options:
                x = on_grid(snn, x)
                yield from row(f"{name} {options}, on a grid", snn, x, steps, Path(folder) / "network.onnx")


def row(label: str, snn: nn.Module, x: Tensor, steps: int, path: Path) -> Iterator[str]:
    """What one network gives."""
    exporter = Onnx(input_shape=tuple(x.shape[1:]))
    export(snn, path, exporter)
    start = time.perf_counter()
    found = check_export(snn, path, x, steps, exporter)
    yield f"{label}: {path.stat().st_size:,} bytes, checked in {time.perf_counter() - start:.0f} s: {found}"
    if not found.agrees:
        outputs, _ = run(path, [x], steps)
        theirs, ours = torch.from_numpy(outputs["output"].mean(0)), simulate(snn, x, T=steps)
        same = int((theirs.argmax(1) == ours.argmax(1)).sum())
        off, largest = float((theirs - ours).abs().max()), float(ours.abs().max())
        yield f"  answers differ by up to {off:.3g} of {largest:.3g}; {same} of {len(x)} images get the same class"


def main() -> None:
    """Print the findings and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--T", type=int, default=100)
    parser.add_argument("--networks", nargs="+", default=["mnist_cnn", "resnet20", "vgg_max"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = []
    for line in lines(Path(os.environ[VARIABLE]), args.T, args.networks):
        print(line, flush=True)
        found.append(line)
    if args.out:
        args.out.write_text("\n".join(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
