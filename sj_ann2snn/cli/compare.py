"""``sj-ann2snn compare``: several modes and the ANN on the user's own network and data."""

from __future__ import annotations

import argparse
import json
import re

from ..support.plotting import require_matplotlib
from .arguments import (
    ONE_MODE_ARGUMENTS,
    Subparsers,
    add_checkpoint_argument,
    add_option_argument,
    add_run_arguments,
    add_trained_network,
    checked_device,
    converter_options,
    readout_of,
    writable,
)
from .metrics import add_metric_argument, metric_of, needs_ann
from .pictures import metric_picture
from .streams import tell
from .sweep import check_modes, metric_title, run_modes
from .targets import load_loaders, load_network
from .users_code import users_code

__all__ = ["add_parser", "run"]

NUMBERS = "compare.json"

OWN_ARGUMENTS = {**ONE_MODE_ARGUMENTS, "mode": "--modes"}

EXAMPLE = """\
example: with models.py in the current directory,

    def trained():
        network = MyNetwork()
        network.load_state_dict(torch.load("weights.pth", weights_only=True))
        return network

    def loaders():
        return calibration_loader, test_loader

the command is

    sj-ann2snn compare models:trained --data models:loaders --modes max 99.9% 0.5 --T 50 --out results
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "compare",
        help="compare modes on your own network and data",
        description="Convert your trained network in several modes, simulate each on your test data, print a table "
        "with the accuracy, or another metric, of the ANN and of each, and draw it over time steps.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_trained_network(parser)
    add_run_arguments(parser, "./sj-ann2snn-compare")
    parser.add_argument("--channel-wise", action="store_true", help="one scale per channel instead of per layer")
    add_checkpoint_argument(parser, used="; each mode has a file with its name in it")
    add_metric_argument(parser)
    add_option_argument(parser)
    parser.set_defaults(run=run, shares=True)


def run(args: argparse.Namespace) -> int:
    """Compare the modes."""
    options = converter_options(args.option, OWN_ARGUMENTS)
    check_modes(args.modes, options)
    readout = readout_of(args.readout, args.T)
    require_matplotlib()
    device = None if args.device is None else checked_device(args.device)
    with users_code():
        metric = metric_of(args.metric)
        against_ann = needs_ann(metric, args.against_ann)
        ann = load_network(args.network)
        calibration, test = load_loaders(args.data)
        out = writable(args.out)
        sweep = run_modes(
            ann,
            args.modes,
            calibration,
            test,
            args.T,
            device=device,
            channel_wise=args.channel_wise,
            options=options,
            readout=readout,
            metric=metric,
            against_ann=against_ann,
            checkpoint=args.checkpoint,
            distributed=args.distributed,
        )
    if not args.first:
        return 0
    pictures = [picture_of(name) for name in sweep.ann_values]
    for name, picture in zip(sweep.ann_values, pictures, strict=True):
        metric_picture(sweep, name, args.network, out / picture)
    numbers = {
        "command": "compare",
        "network": args.network,
        "data": args.data,
        "channel_wise": args.channel_wise,
        "options": options,
        "readout": args.readout,
        **sweep.as_dict(),
        "metric": args.metric,
        "against_ann": args.against_ann,
        "pictures": pictures,
    }
    text = json.dumps(numbers, indent=2, ensure_ascii=False)
    (out / NUMBERS).write_text(text + "\n", encoding="utf-8")
    print(text if args.json else f"{sweep}\n")
    for name in (*pictures, NUMBERS):
        written = f"wrote {out / name}"
        tell(written) if args.json else print(written)
    return 0


def picture_of(metric: str) -> str:
    """The file name of a metric's picture.

    >>> picture_of("top1"), picture_of("boxes.mse")
    ('accuracy.png', 'boxes.mse.png')
    """
    return re.sub(r"[^\w.-]+", "_", metric_title(metric)).strip(".") + ".png"
