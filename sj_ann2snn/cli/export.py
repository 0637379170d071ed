"""``sj-ann2snn export``: converts the user's network and writes the spiking network to a file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..conversion.quantize import BITS
from ..interchange.files import export, find_exporter
from .arguments import Subparsers, add_trained_network, steps
from .one_mode import OneMode, add_place_arguments
from .users_code import users_code

__all__ = ["add_parser", "run"]

EXAMPLE = """\
examples:

    sj-ann2snn export models:trained --data models:loaders --out network.zip
    sj-ann2snn export models:trained --data models:loaders --mode 99.9% --out network.pt --to torch
    sj-ann2snn export models:trained --data models:loaders --mode 99.9% --weights int8 --out network.c --to c

In Python, sj_ann2snn.load_network("network.zip") reads it back; C is only written.
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "export",
        help="convert your network and write it to a file",
        description="Convert your trained network and write the spiking network to a file: its topology, weights, "
        "thresholds, scales and initial potentials.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_trained_network(parser, used="; the first loader is used")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--to",
        "--format",
        dest="format",
        metavar="NAME",
        help="archive, torch, c, or any that `sj-ann2snn plugins` lists (default: the format of the file's suffix)",
    )
    parser.add_argument(
        "--weights", choices=tuple(BITS), help="compute with integers only, with weights of that width (needed by c)"
    )
    parser.add_argument("--mode", default="max", help="mode of the conversion: max, 99.9%%, 0.5 (default: max)")
    parser.add_argument(
        "--T", type=steps, metavar="STEPS", help="time steps that the network is meant for (default: any number)"
    )
    add_place_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert the network, write the file and print a summary."""
    if args.weights is not None:
        args.option = [*args.option, ("weights", args.weights)]
    conversion, exporter = OneMode(args), find_exporter(args.out, args.format, {})
    with users_code():
        made = conversion.convert(progress=sys.stderr.isatty())
    export(made.snn, args.out, exporter)
    report = made.converter.report
    found = {
        "command": "export",
        "network": args.network,
        "data": args.data,
        "mode": report.mode,
        "owner": report.mode_owner,
        "format": exporter.name,
        "file": str(args.out),
        "bytes": args.out.stat().st_size,
        "spiking_layers": len(report.scales),
        "weights": args.weights,
    }
    if args.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print(report)
        print(f"\nwrote {args.out} ({exporter.name}, {found['bytes']:,} bytes)")
    return 0
