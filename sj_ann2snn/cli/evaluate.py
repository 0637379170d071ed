"""``sj-ann2snn evaluate``: how well one conversion of the user's own network answers, over time."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from ..evaluation.evaluate import ann_values, evaluate
from ..evaluation.result import short
from .arguments import Subparsers, readout_of
from .metrics import add_metric_argument, metric_of, needs_ann
from .one_mode import OneMode, add_conversion_arguments, add_readout_argument
from .sweep import metric_title
from .users_code import users_code

__all__ = ["add_parser", "run"]

EXAMPLE = """\
examples: with models.py as for `sj-ann2snn compare`,

    sj-ann2snn evaluate models:trained --data models:loaders --mode 99.9% --T 32
    torchrun --nproc-per-node 4 -m sj_ann2snn evaluate models:trained --data models:loaders --mode 99.9% --T 32
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "evaluate",
        help="convert your network and measure it on your test data",
        description="Convert your trained network in one mode, simulate it on all of your test data, and print its "
        "accuracy, or another metric, after every number of steps, with its spikes and synaptic operations. Several "
        "processes that torchrun starts share the data.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_conversion_arguments(parser)
    add_readout_argument(parser, "how to turn the outputs over time into the answer, as for `sj-ann2snn compare`")
    parser.add_argument(
        "--early-exit", type=float, default=None, metavar="MARGIN", help="let samples stop as in evaluate(early_exit=)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    add_metric_argument(parser)
    parser.set_defaults(run=run, shares=True)


def run(args: argparse.Namespace) -> int:
    """Convert and measure."""
    conversion, readout = OneMode(args), readout_of(args.readout, args.T)
    bars = sys.stderr.isatty()
    with users_code():
        metric = metric_of(args.metric)
        against_ann = needs_ann(metric, args.against_ann)
        made = conversion.convert(progress=bars)
        judge = made.ann if against_ann else None
        values = ann_values(made.ann, made.test, metric, against=judge, distributed=args.distributed)
        result = evaluate(
            made.snn,
            made.test,
            args.T,
            readout=readout,
            metric=metric,
            ann=judge,
            early_exit=args.early_exit,
            progress=bars,
            distributed=args.distributed,
        )
    if not args.json:
        print("ANN " + ", ".join(f"{metric_title(name)} {short(value)}" for name, value in values.items()))
        print(result)
        return 0
    numbers = {
        "command": "evaluate",
        **conversion.settings(made),
        "readout": args.readout,
        "metric": args.metric,
        "against_ann": args.against_ann,
        "early_exit": args.early_exit,
        "ann": values,
        "result": asdict(result),
    }
    print(json.dumps(numbers, indent=2, ensure_ascii=False))
    return 0
