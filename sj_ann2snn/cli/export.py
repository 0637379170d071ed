"""``sj-ann2snn export``: converts the user's network and writes the spiking network to a file."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..contracts.exporter import Exporter
from ..conversion.weights_argument import WEIGHTS
from ..errors import InputError, OptionError
from ..evaluation.export_check import ExportCheck, check_export
from ..hooks.options import declared_options
from ..interchange.files import export, find_exporter
from ..support.batches import forward_signature
from .arguments import Subparsers, add_trained_network, named_value, positive, steps
from .one_mode import Conversion, OneMode, add_place_arguments
from .users_code import users_code

__all__ = ["add_parser", "run"]

EXAMPLE = """\
examples:

    sj-ann2snn export models:trained --data models:loaders --out network.zip
    sj-ann2snn export models:trained --data models:loaders --mode 99.9% --out network.pt --to torch
    sj-ann2snn export models:trained --data models:loaders --mode 99.9% --weights int8 --out network.c --to c
    sj-ann2snn export models:trained --data models:loaders --mode low-latency --T 8 --weights tuned-int8 --out int8.zip
    sj-ann2snn export models:trained --data models:loaders --mode 99.9% --out network.nir --to nir target=sinabs --check
    sj-ann2snn export models:trained --data models:loaders --mode 99.9% --out network.onnx --to onnx --check

The last three need the plugins sj-ann2snn-calibration, sj-ann2snn-nir and sj-ann2snn-onnx.

In Python, sj_ann2snn.load_network("network.zip") reads it back; C is only written.
"""


CHECKED = 4
"""Samples that ``--check`` compares by default."""

STEPS = 16
"""Time steps that ``--check`` compares by default."""

SHAPE = "input_shape"
"""The option of formats that depend on the size of the inputs; see `Exporter`."""


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
        nargs="+",
        metavar=("NAME", "OPTION=VALUE"),
        help="archive, torch, c, or any that `sj-ann2snn plugins` lists, with its options (default: the format of the "
        "file's suffix)",
    )
    parser.add_argument(
        "--weights",
        choices=tuple(WEIGHTS),
        help="int4, int8, int16: compute with integers only, with weights of that width (needed by c); tuned: "
        "corrections may change weights; or both",
    )
    parser.add_argument(
        "--check",
        nargs="?",
        type=positive,
        const=CHECKED,
        metavar="SAMPLES",
        help="run the file in another program that its format knows, on the first samples of the test data (default: "
        f"{CHECKED}) for --T steps (default: {STEPS}); print the first layer and step that differ, and return 1, or "
        "that all agree",
    )
    parser.add_argument("--mode", default="max", help="mode of the conversion: max, 99.9%%, 0.5 (default: max)")
    parser.add_argument(
        "--T", type=steps, metavar="STEPS", help="time steps that the network is meant for (default: any number)"
    )
    add_place_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert the network, write the file, check it if asked to, and print a summary."""
    if args.weights is not None:
        args.option = [*args.option, ("weights", args.weights)]
    name, options = _format(args.format)
    conversion, exporter = OneMode(args), find_exporter(args.out, name, options)
    with users_code():
        made = conversion.convert(progress=sys.stderr.isatty())
    if SHAPE in declared_options(type(exporter)) and SHAPE not in options:
        shape = tuple(_first_samples(made, 1).shape[1:])
        exporter = find_exporter(args.out, exporter.name, {**options, SHAPE: shape})
    export(made.snn, args.out, exporter)
    checked = None if args.check is None else _check(made, exporter, args)
    report = made.converter.report
    found: dict[str, Any] = {
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
    if checked is not None:
        found["check"] = {**asdict(checked), "agrees": checked.agrees}
    if args.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print(report)
        print(f"\nwrote {args.out} ({exporter.name}, {found['bytes']:,} bytes)")
        if checked is not None:
            print(f"check: {checked}")
    return 0 if checked is None or checked.agrees else 1


def _format(given: list[str] | None) -> tuple[str | None, dict[str, Any]]:
    """The name and the options that ``--format NAME OPTION=VALUE ...`` means.

    Raises:
        OptionError: An option is not written NAME=VALUE.
    """
    if given is None:
        return None, {}
    name, *options = given
    try:
        return name, dict(named_value(option) for option in options)
    except argparse.ArgumentTypeError as error:
        raise OptionError(f"--format {' '.join(given)}: {error}.") from error


def _check(made: Conversion, exporter: Exporter, args: argparse.Namespace) -> ExportCheck:
    return check_export(made.snn, args.out, _first_samples(made, args.check), args.T or STEPS, exporter)


def _first_samples(made: Conversion, most: int) -> Tensor:
    """The first samples of the test data, for networks with one input.

    Raises:
        InputError: The network takes something else than one tensor, or there is no data.
    """
    found: list[Tensor] = []
    with users_code():
        for batch in made.test:
            inputs = forward_signature(made.ann, batch).inputs_of(batch)
            if len(inputs) != 1 or not isinstance(inputs[0], Tensor):
                raise InputError(
                    "This format, or --check, needs a network with one input, a tensor of samples; this network takes "
                    f"{len(inputs)} inputs."
                )
            found.append(inputs[0][:most])
            most -= len(found[-1])
            if most <= 0:
                break
    if not found:
        raise InputError("The test data of --data are empty, so there is no sample for --check or the format.")
    weights = [t for t in made.snn.parameters() if t.is_floating_point()]
    samples = torch.cat(found)
    return samples.to(weights[0].device, weights[0].dtype) if weights else samples
