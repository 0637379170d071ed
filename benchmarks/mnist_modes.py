"""Accuracy of the six tutorial modes on MNIST, beside SpikingJelly's own converter in the same run.

    python benchmarks/mnist_modes.py --shared DIR > benchmarks/results/mnist_modes.md

DIR (or the environment variable SJ_ANN2SNN_SHARED) holds

    data/t10k-images-idx3-ubyte.gz, data/t10k-labels-idx1-ubyte.gz   the original MNIST test images
    models/reference_models.py, models/mnist_cnn.pth                 the network and its trained weights

Images 0..7999 calibrate, 8000..9999 test, T=50, zero initial potential. The exit status is 1 if an accuracy is
more than 0.2 points away from the one expected here.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from reference_networks import DEFINITIONS, VARIABLE, reference_network
from torch import Tensor, fx, nn

from sj_ann2snn import Converter, __version__, evaluate
from sj_ann2snn.cli.data import Batches, ImageData, mnist
from sj_ann2snn.compat import is_neuron, reset_net, spikingjelly_version
from sj_ann2snn.evaluation.evaluate import accuracy_of

FILES = (
    "data/t10k-images-idx3-ubyte.gz",
    "data/t10k-labels-idx1-ubyte.gz",
    DEFINITIONS,
    "models/mnist_cnn.pth",
)
STEPS = 50
TOLERANCE = 0.002

MODES: dict[str, str | float] = {"max": "max", "99.9%": "99.9%", "1/2": 1 / 2, "1/3": 1 / 3, "1/4": 1 / 4, "1/5": 1 / 5}

# What a prototype with true statistics measured, and SpikingJelly 2.0, on this network and data.
EXPECTED = {"max": 0.9715, "99.9%": 0.977, "1/2": 0.9775, "1/3": 0.9735, "1/4": 0.9505, "1/5": 0.9015}
EXPECTED_SPIKINGJELLY_2 = {"max": 0.9735, "99.9%": 0.976, "1/2": 0.976, "1/3": 0.9605, "1/4": 0.9155, "1/5": 0.813}


def main() -> int:
    parser = argparse.ArgumentParser(description="Six modes on MNIST, ours beside SpikingJelly's own converter.")
    parser.add_argument(
        "--shared",
        type=Path,
        default=os.environ.get(VARIABLE),
        help=f"folder with {', '.join(FILES)} (default: the environment variable {VARIABLE})",
    )
    parser.add_argument("--batch-size", type=int, default=100, help="of the calibration data (default: 100)")
    args = parser.parse_args()
    if args.shared is None:
        parser.error(f"name the folder with the data and the network: --shared DIR, or set {VARIABLE}")
    shared = Path(args.shared)
    missing = [name for name in FILES if not (shared / name).is_file()]
    if missing:
        parser.error(f"{shared} lacks {', '.join(missing)}")

    data = mnist(shared / "data")
    ann = reference_network(shared, "mnist_cnn")
    calibration = batches(data.train_images, data.train_labels, args.batch_size)
    ann_accuracy = accuracy_of(ann, data.test)
    rows: list[tuple[str, ...]] = [
        (
            "mode",
            "sj-ann2snn",
            "expected",
            "λ",
            f"SpikingJelly {spikingjelly_version()}",
            "SpikingJelly 2.0 expected",
            "its λ",
        )
    ]
    far = []
    for name, mode in MODES.items():
        accuracy, scales = ours(ann, mode, calibration, data)
        their_accuracy, their_scales = theirs(ann, mode, calibration, data)
        if abs(accuracy - EXPECTED[name]) > TOLERANCE + 1e-9:
            far.append(name)
        rows.append(
            (
                name,
                f"{accuracy:.4f}",
                f"{EXPECTED[name]:.4f}",
                ", ".join(f"{scale:.3f}" for scale in scales),
                f"{their_accuracy:.4f}",
                f"{EXPECTED_SPIKINGJELLY_2[name]:.4f}",
                ", ".join(f"{scale:.3f}" for scale in their_scales),
            )
        )
    print(page(ann_accuracy, rows, far, args.batch_size))
    return 1 if far else 0


def ours(ann: nn.Module, mode: str | float, calibration: Batches, data: ImageData) -> tuple[float, list[float]]:
    """Accuracy after all steps, and the λ of every layer."""
    converter = Converter(calibration, mode=mode, progress=False)
    result = evaluate(converter(ann), data.test, STEPS, progress=False)
    return result.accuracy[-1], [scale for scale, _ in converter.report.scales.values()]


def theirs(ann: nn.Module, mode: str | float, calibration: Batches, data: ImageData) -> tuple[float, list[float]]:
    """The same with the converter of the installed SpikingJelly."""
    from spikingjelly.activation_based import ann2snn

    # A copy: their converter puts the network in eval mode, and works on its own modules.
    network = copy.deepcopy(ann)
    with torch.no_grad():
        if hasattr(ann2snn, "RateCodingRecipe"):
            recipe = ann2snn.RateCodingRecipe(dataloader=calibration, mode=mode)
            snn = ann2snn.Converter(recipe).convert(network)
        else:
            snn = ann2snn.Converter(calibration, mode=mode)(network)
        right = sum(int((answer(snn, x) == y).sum()) for x, y in data.test)
    return right / len(data.test_labels), list(their_scales(snn))


def answer(snn: nn.Module, x: Tensor) -> Tensor:
    """The class with the largest summed output, step by step as SpikingJelly's examples do it."""
    reset_net(snn)
    total = sum((snn(x) for _ in range(STEPS)), torch.zeros(()))
    return total.argmax(1)


def their_scales(snn: fx.GraphModule) -> Iterable[float]:
    """The factor of the scaler behind every neuron."""
    for node in snn.graph.nodes:
        if node.op == "call_module" and is_neuron(snn.get_submodule(node.target)):
            (behind,) = node.users
            yield float(snn.get_submodule(behind.target).scale)


def batches(images: Tensor, labels: Tensor, size: int) -> Batches:
    return [(images[i : i + size], labels[i : i + size]) for i in range(0, len(images), size)]


def page(ann_accuracy: float, rows: list[tuple[str, ...]], far: list[str], batch_size: int) -> str:
    """What was measured, as Markdown."""
    lines = [
        "# Six modes on MNIST",
        "",
        f"The tutorial's network, T={STEPS}, zero initial potential. Images 8000..9999 of MNIST's test set test,",
        f"0..7999 calibrate, in batches of {batch_size}. ANN accuracy {ann_accuracy:.4f}.",
        "",
        *markdown_table(rows),
        "",
        "SpikingJelly's converter averages the statistics of batches, so its λ and accuracy depend on the batch size;",
        "sj-ann2snn takes them over all of the calibration data.",
        "",
        f"Every accuracy of sj-ann2snn within {100 * TOLERANCE:g} points of what is expected: "
        + (f"no, not {', '.join(far)}." if far else "yes."),
        "",
        f"sj-ann2snn {__version__}, SpikingJelly {spikingjelly_version()}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}.",
    ]
    return "\n".join(lines)


def markdown_table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
