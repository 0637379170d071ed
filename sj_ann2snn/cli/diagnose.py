"""``sj-ann2snn diagnose``: why a conversion of the user's own network loses accuracy, layer by layer."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import Any

from ..conversion.converter import Converter
from ..diagnosis.diagnose import diagnose
from ..diagnosis.result import Diagnosis
from .arguments import Subparsers, positive, readout_of
from .metrics import add_metric_argument, metric_of
from .one_mode import OneMode, add_conversion_arguments, add_readout_argument
from .streams import tell
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
    parser.set_defaults(run=run, shares=True)


def add_diagnosis_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command that diagnoses a conversion."""
    add_conversion_arguments(parser)
    parser.add_argument(
        "--samples", type=positive, default=200, metavar="N", help="test samples to look at (default: 200)"
    )
    add_readout_argument(parser, "how to turn the outputs over time into the answer, as for `sj-ann2snn compare`")
    add_metric_argument(parser)


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
    conversion, readout = OneMode(args), readout_of(args.readout, args.T)
    with users_code():
        metric = metric_of(args.metric)
        made = conversion.convert()
        found = diagnose(
            made.ann,
            made.snn,
            made.test,
            args.T,
            samples=args.samples,
            metric=metric,
            against_ann=args.against_ann,
            readout=readout,
            distributed=args.distributed,
        )
    settings = {
        **conversion.settings(made),
        "readout": args.readout,
        "metric": args.metric,
        "against_ann": args.against_ann,
    }
    return Diagnosed(found, made.converter, settings)


def run(args: argparse.Namespace) -> int:
    """Print what was found."""
    made = diagnosed(args)
    if not args.json:
        print(made.found)
        return 0
    numbers = {"command": "diagnose", **made.settings, "diagnosis": made.found.to_dict(channels=True)}
    print(json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False))
    if args.first:
        tell(made.found.verdict)
    return 0
