"""``sj-ann2snn tune``: the cheapest conversion of the user's own network that keeps its accuracy."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import TuningInterrupted
from ..evaluation.costs.energy import PRESETS
from ..tuning.measuring import BUDGETS
from ..tuning.tune import tune
from .arguments import (
    ONE_MODE_ARGUMENTS,
    Subparsers,
    add_checkpoint_argument,
    add_option_argument,
    add_trained_network,
    checked_device,
    converter_options,
    positive,
    readout_of,
    steps,
)
from .metrics import add_metric_argument, metric_of, needs_ann
from .one_mode import add_readout_argument
from .streams import tell
from .targets import load_loaders, load_network
from .users_code import users_code

__all__ = ["add_parser", "run"]

EXAMPLE = """\
example: with models.py as for `sj-ann2snn compare`,

    sj-ann2snn tune models:trained --data models:loaders --max-drop 1 --budget spikes --T 32
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "tune",
        help="find the cheapest conversion that keeps the accuracy",
        description="Try what the installed plugins offer on your trained network, and print the cheapest conversion "
        "that loses little enough, the calls that make and run it, and accuracy over cost of all that was tried. The "
        "test data is shared out: the search chooses by one part, and the result is judged by the other.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_trained_network(parser)
    parser.add_argument(
        "--max-drop",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="points that may be lost against the ANN: hundredths of the metric (default: 1)",
    )
    parser.add_argument(
        "--budget", choices=BUDGETS, default="steps", help="what to save, per sample (default: %(default)s)"
    )
    parser.add_argument(
        "--energy",
        choices=PRESETS,
        default=None,
        help="energy of single operations, for --budget energy (default: float32)",
    )
    parser.add_argument("--T", type=steps, default=32, metavar="STEPS", help="time steps at most (default: 32)")
    parser.add_argument("--samples", type=positive, default=1000, metavar="N", help="test samples (default: 1000)")
    parser.add_argument(
        "--held-out",
        type=float,
        default=0.3,
        metavar="SHARE",
        help="share of the samples that judges the result and that no choice depends on (default: 0.3)",
    )
    parser.add_argument("--seconds", type=float, default=None, metavar="S", help="stop after about that time")
    parser.add_argument("--mode", default=None, help="search in this mode only")
    parser.add_argument("--channel-wise", action="store_true", help="search with one scale per channel only")
    add_readout_argument(parser, "search with this readout only, as for `sj-ann2snn compare`")
    parser.add_argument("--device", default=None, help="device, such as cpu or cuda:0 (default: cpu)")
    add_checkpoint_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    add_metric_argument(parser)
    add_option_argument(parser)
    parser.set_defaults(run=run, shares=True)


def run(args: argparse.Namespace) -> int:
    """Search, and print what was found."""
    fixed: dict[str, Any] = converter_options(args.option, ONE_MODE_ARGUMENTS)
    if args.mode is not None:
        fixed["mode"] = args.mode
    if args.channel_wise:
        fixed["channel_wise"] = True
    readout = readout_of(args.readout, args.T)
    device = None if args.device is None else checked_device(args.device)
    interrupted = False
    with users_code():
        metric = metric_of(args.metric)
        ann = load_network(args.network)
        if device is not None:
            ann = ann.to(device)
        calibration, test = load_loaders(args.data)
        try:
            found = tune(
                ann,
                test,
                args.max_drop,
                args.budget,
                args.T,
                calibration=calibration,
                metric=metric,
                against_ann=True if needs_ann(metric, args.against_ann) else None,
                readout=readout,
                energy=args.energy,
                samples=args.samples,
                held_out=args.held_out,
                seconds=args.seconds,
                checkpoint=args.checkpoint,
                distributed=args.distributed,
                **fixed,
            )
        except TuningInterrupted as stopped:
            found, interrupted = stopped.result, True
    print(found.to_json() if args.json else found)
    if args.json and args.first:
        tell(found.verdict)
    return 130 if interrupted else 0
