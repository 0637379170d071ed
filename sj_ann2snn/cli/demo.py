"""``sj-ann2snn demo``: trains the tutorial's network, converts it in six modes and draws the results."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from ..support.plotting import require_matplotlib
from .arguments import Subparsers, add_run_arguments, checked_device, positive, readout_of, writable
from .data import ImageData, digits, mnist
from .firing import ann_inputs, firing_rates
from .pictures import LayerRates, firing_rate_picture, metric_picture
from .streams import tell
from .sweep import Sweep, check_modes, run_modes
from .tutorial import train, tutorial_network

__all__ = ["add_parser", "run"]

EPOCHS = {"digits": 12, "mnist": 5}
ACCURACY_PICTURE, RATE_PICTURE, NUMBERS = "accuracy.png", "firing-rate.png", "demo.json"
SMALL_IMAGE = 400
RATE_IMAGES, RATE_LAYERS = 40, ("relu1", "relu3")


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "demo",
        help="train, convert and simulate a small network; no network access needed",
        description="Train the network of SpikingJelly's conversion tutorial on scikit-learn's digits (or on your copy "
        "of MNIST), convert it in six modes, simulate each, print a table and draw two pictures: accuracy over time "
        "steps, and firing rate against input.",
    )
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits", help="data for training and testing")
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="folder with MNIST: torchvision's folder, or idx files (plain or .gz); the test images alone are enough",
    )
    parser.add_argument(
        "--epochs", type=positive, help="training epochs " + str(EPOCHS).translate(str.maketrans("{}'", "() "))
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the training (default: 0)")
    add_run_arguments(parser, "./sj-ann2snn-demo")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    if args.data == "mnist" and args.data_dir is None:
        args.parser.error("--data mnist needs --data-dir DIR")
    if args.data == "digits" and args.data_dir is not None:
        args.parser.error("--data-dir is only for --data mnist")
    check_modes(args.modes, {})
    readout = readout_of(args.readout, args.T)
    require_matplotlib()
    device = checked_device(args.device)
    data = (digits() if args.data == "digits" else mnist(args.data_dir)).to(device)
    out = writable(args.out)
    epochs = args.epochs or EPOCHS[args.data]

    with _threads_for(data):
        ann = _train(data, epochs, args.seed, device)
        sweep = run_modes(ann, args.modes, data.calibration, data.test, args.T, device=device, readout=readout)
        rates = _rates(ann, sweep, data)
    metric_picture(sweep, "top1", f"{data.name}, {len(data.test_images)} test images", out / ACCURACY_PICTURE)
    firing_rate_picture(rates, args.T, out / RATE_PICTURE)
    numbers = {
        "command": "demo",
        "data": {"name": data.name, "train_images": len(data.train_images), "test_images": len(data.test_images)},
        "epochs": epochs,
        "seed": args.seed,
        "readout": args.readout,
        "device": str(device),
        **sweep.as_dict(),
        "pictures": [ACCURACY_PICTURE, RATE_PICTURE],
    }
    text = json.dumps(numbers, indent=2, ensure_ascii=False)
    (out / NUMBERS).write_text(text + "\n", encoding="utf-8")
    if args.json:
        print(text)
    else:
        print(f"{data.name}: {len(data.train_images)} training images, {epochs} epochs, seed {args.seed}")
        print(sweep)
        print()
    for name in (ACCURACY_PICTURE, RATE_PICTURE, NUMBERS):
        written = f"wrote {out / name}"
        tell(written) if args.json else print(written)
    return 0


@contextmanager
def _threads_for(data: ImageData) -> Iterator[None]:
    """Use one thread for small images: more gain nothing there, and on a busy machine they wait for each other."""
    threads = torch.get_num_threads()
    if data.train_images[0].numel() < SMALL_IMAGE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train(data: ImageData, epochs: int, seed: int, device: torch.device) -> nn.Module:
    tell(f"training on {len(data.train_images)} images of {data.name}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = tutorial_network(data.train_images.shape[-1])
    network.to(device)
    train(network, data.train_images, data.train_labels, epochs=epochs, seed=seed, tell=tell)
    return network


def _rates(ann: nn.Module, sweep: Sweep, data: ImageData) -> dict[str, list[LayerRates]]:
    """The rates of the first and the last hidden layer in every mode, on some test images."""
    images = data.test_images[:RATE_IMAGES]
    inputs = ann_inputs(ann, RATE_LAYERS, images)
    found = {}
    for one in sweep.runs:
        rates = firing_rates(one.snn, RATE_LAYERS, images, sweep.steps)
        found[one.mode] = [LayerRates(name, inputs[name] / one.scales[name][0], rates[name]) for name in RATE_LAYERS]
    return found
