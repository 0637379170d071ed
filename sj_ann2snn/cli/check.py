"""``sj-ann2snn check``: what every layer of the user's network would become, without calibrating."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

import torch

from ..conversion.converter import Converter
from ..support.wording import shown
from .arguments import Subparsers, add_network, add_option_argument, converter_options
from .targets import load_loaders, load_network
from .users_code import users_code

__all__ = ["add_parser", "input_tensor", "run"]

OWN_ARGUMENTS = {"dataloader": "--input or --data"}
"""Keywords of the converter for which the command has its own argument."""

SAMPLES = 3
"""Samples of a random input: enough to distinguish the samples from other dimensions."""

LARGEST_INPUT = 1 << 30
"""Bytes of a random input, at most."""

EXAMPLE = """\
examples:

    sj-ann2snn check torchvision.models:mobilenet_v3_small --input 3x64x64
    sj-ann2snn check models:trained --data models:loaders --option leaf_modules=head
    sj-ann2snn check model.onnx --input 3x224x224

The exit status is 0 if the network can be converted, 1 if something prevents it, 2 if it could not be checked.
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "check",
        help="show what every layer of your network would become",
        description="Trace your network and print what every call in it would become, and everything that prevents a "
        "conversion, with its place in your code and what would help. Nothing is calibrated, and the network need not "
        "be trained.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_network(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input",
        nargs="+",
        type=input_tensor,
        metavar="SHAPE",
        help="shape of one sample, 3x32x32, for each input of the network, filled with random values. Append a dtype "
        "other than float32, as in 16:int64",
    )
    source.add_argument(
        "--data",
        metavar="MODULE:LOADERS",
        help="function that returns (calibration_loader, test_loader); one batch is used",
    )
    add_option_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the check; 1 if the network cannot be converted."""
    options = converter_options(args.option, OWN_ARGUMENTS)
    with users_code():
        ann = load_network(args.network)
        data = [tuple(args.input)] if args.input else load_loaders(args.data)[0]
        found = Converter(data, progress=False, **options).check(ann)
    print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) if args.json else found)
    return 0 if found.convertible else 1


def input_tensor(text: str) -> torch.Tensor:
    """Random samples of the shape and dtype that `text` names.

    >>> input_tensor("3x32x32").shape, input_tensor("16:int64").dtype
    (torch.Size([3, 3, 32, 32]), torch.int64)
    """
    sizes, _, name = text.partition(":")
    dtype: Any = getattr(torch, name or "float32", None)
    if not isinstance(dtype, torch.dtype):
        raise argparse.ArgumentTypeError(f"{shown(text)} is not allowed: {shown(name)} is not a dtype of torch")
    try:
        shape = tuple(int(size) for size in sizes.lower().replace("×", "x").split("x"))
    except ValueError:
        shape = (0,)
    if min(shape) < 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not allowed: write the shape of one sample as 3x32x32")
    size = SAMPLES * math.prod(shape) * dtype.itemsize
    if size > LARGEST_INPUT:
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is not allowed: {SAMPLES} samples of that shape have {size:,} bytes; at most "
            f"{LARGEST_INPUT:,} are allowed"
        )
    if dtype.is_floating_point:
        return torch.rand(SAMPLES, *shape, dtype=dtype)
    # An embedding may have only two rows.
    return torch.randint(0, 2, (SAMPLES, *shape)).to(dtype)
