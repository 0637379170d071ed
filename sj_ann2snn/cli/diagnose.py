"""``sj-ann2snn diagnose``: why a conversion of the user's own network loses accuracy, layer by layer."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import Any

from ..conversion.converter import Converter
from ..diagnosis.diagnose import diagnose
from ..diagnosis.result import Diagnosis
from .arguments import (
    ONE_MODE_ARGUMENTS,
    Subparsers,
    add_option_argument,
    add_trained_network,
    checked_device,
    converter_options,
    plain,
    positive,
    readout_of,
    steps,
)
from .metrics import add_metric_argument, metric_of
from .streams import tell
from .targets import load_loaders, load_network
from .users_code import users_code

__all__ = ["Diagnosed", "add_diagnosis_arguments", "add_parser", "diagnosed", "run"]

EXAMPLE = """\
examples: with models.py as for `sj-ann2snn compare`,

    sj-ann2snn diagnose models:trained --data models:loaders --mode 99.9% --T 32
    sj-ann2snn diagnose pitch.onnx --data models:loaders --metric mse --against-ann
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "diagnose",
        help="find out why a conversion loses accuracy, and what mends it",
        description="Convert your trained network, and find out which layers lose the ANN's answer on your test data: "
        "by clipping, by rounding to few steps, by spikes in an unlucky order, or by what they inherit. Prints a "
        "table, a verdict, and the calls that mend it.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_diagnosis_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.set_defaults(run=run)


def add_diagnosis_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command that diagnoses a conversion."""
    add_trained_network(parser)
    parser.add_argument(
        "--mode", default="max", help="max (default), 99.9%%, 0.5, 1/2 or any that `sj-ann2snn modes` lists"
    )
    parser.add_argument("--T", type=steps, default=50, metavar="STEPS", help="time steps to simulate (default: 50)")
    parser.add_argument(
        "--samples", type=positive, default=200, metavar="N", help="test samples to look at (default: 200)"
    )
    parser.add_argument(
        "--readout",
        nargs="+",
        metavar=("NAME", "OPTION=VALUE"),
        help="how to turn the outputs over time into the answer, as for `sj-ann2snn compare`",
    )
    add_metric_argument(parser)
    parser.add_argument("--channel-wise", action="store_true", help="one scale per channel instead of per layer")
    parser.add_argument("--device", default=None, help="device, such as cpu or cuda:0 (default: cpu)")
    add_option_argument(parser)


@dataclass(frozen=True)
class Diagnosed:
    """A conversion and its diagnosis.

    Attributes:
        found: The diagnosis.
        converter: What converted the network.
        settings: What was asked for, for JSON.
    """

    found: Diagnosis
    converter: Converter
    settings: dict[str, Any]


def diagnosed(args: argparse.Namespace) -> Diagnosed:
    """Convert and diagnose what the arguments name."""
    options = converter_options(args.option, ONE_MODE_ARGUMENTS)
    readout = readout_of(args.readout, args.T)
    device = None if args.device is None else checked_device(args.device)
    with users_code():
        metric = metric_of(args.metric)
        ann = load_network(args.network)
        calibration, test = load_loaders(args.data)
        converter = Converter(
            calibration,
            device,
            args.mode,
            channel_wise=args.channel_wise or None,
            T=args.T,
            **options,
        )
        snn = converter(ann if device is None else ann.to(device))
        found = diagnose(
            ann,
            snn,
            test,
            args.T,
            samples=args.samples,
            metric=metric,
            against_ann=args.against_ann,
            readout=readout,
        )
    settings = {
        "network": args.network,
        "data": args.data,
        "mode": args.mode,
        "channel_wise": converter.channel_wise,
        "options": plain(options),
        "readout": args.readout,
        "metric": args.metric,
        "against_ann": args.against_ann,
    }
    return Diagnosed(found, converter, settings)


def run(args: argparse.Namespace) -> int:
    """Print what was found."""
    made = diagnosed(args)
    if not args.json:
        print(made.found)
        return 0
    numbers = {"command": "diagnose", **made.settings, "diagnosis": made.found.to_dict(channels=True)}
    print(json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False))
    tell(made.found.verdict)
    return 0
