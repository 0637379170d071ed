"""Arguments that several commands share, and how they are read."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..contracts.readout import Readout
from ..errors import OptionError
from ..simulation.answers import find_readout
from .processes import local_device

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Subparsers = Any
from ..support.wording import first_line, shown

__all__ = [
    "ONE_MODE_ARGUMENTS",
    "Subparsers",
    "add_checkpoint_argument",
    "add_network",
    "add_option_argument",
    "add_run_arguments",
    "checked_device",
    "converter_options",
    "named_value",
    "plain",
    "positive",
    "readout_of",
    "steps",
    "threads",
    "writable",
]

MOST_STEPS = 1_000_000
"""Time steps that a command simulates at most: the accuracy after each is kept."""

MOST_THREADS = 1024

TUTORIAL_MODES = ("max", "99.9%", "1/2", "1/3", "1/4", "1/5")

CONVERTER_KEYWORDS = (
    "convert_only",
    "corrections",
    "fuse_flag",
    "layers",
    "leaf_modules",
    "neuron",
    "prefer",
    "shared_scales",
    "verify",
    "weights",
)
"""The converter's own keywords that can be given as options."""

ONE_MODE_ARGUMENTS = {
    "T": "--T",
    "channel_wise": "--channel-wise",
    "dataloader": "--data",
    "device": "--device",
    "mode": "--mode",
}
"""Keywords of the converter for which a command that converts in one mode has its own argument."""

LAYER_NAMES = ("convert_only", "leaf_modules")
"""Keywords that name layers."""

REFUSED = ("distributed", "mappers", "momentum", "plugins", "progress")
"""Keywords of the converter that take objects, or have no effect on the command line."""


def add_run_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """Add the arguments of every command that converts and simulates."""
    parser.add_argument(
        "--modes",
        nargs="+",
        default=list(TUTORIAL_MODES),
        metavar="MODE",
        help="modes to compare: max, 99.9%%, 0.5, 1/2 or any that `sj-ann2snn modes` lists "
        f"(default: {' '.join(TUTORIAL_MODES).replace('%', '%%')})",
    )
    parser.add_argument("--T", type=steps, default=50, metavar="STEPS", help="time steps to simulate (default: 50)")
    parser.add_argument(
        "--readout",
        nargs="+",
        metavar=("NAME", "OPTION=VALUE"),
        help="how to turn the outputs over time into the answer, with its options: mean, delayed delay=4, potential, "
        "or any that `sj-ann2snn plugins` lists (default: the mode's choice, otherwise the mean)",
    )
    parser.add_argument("--device", default=None, help="device, such as cpu or cuda:0 (default: cpu)")
    parser.add_argument(
        "--out", type=Path, default=Path(out), metavar="DIR", help=f"folder for the results (default: {out})"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names the user's network."""
    parser.add_argument(
        "network",
        metavar="NETWORK",
        help="MODULE:FACTORY, a function that returns the trained network; or an ONNX file, as in model.onnx; or "
        "model.onnx:NAME, which ends at that value or node of the file",
    )


def add_trained_network(parser: argparse.ArgumentParser, *, used: str = "") -> None:
    """Add the arguments that name the user's network and data; `used` is appended to the help for the data."""
    add_network(parser)
    parser.add_argument(
        "--data",
        required=True,
        metavar="MODULE:LOADERS",
        help=f"function that returns (calibration_loader, test_loader){used}",
    )


def add_checkpoint_argument(parser: argparse.ArgumentParser, *, used: str = "") -> None:
    """Add the file in which finished work is kept; `used` is appended to the help."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=None,
        metavar="FILE",
        help=f"keep finished work in this file, so that the command, killed and started again, goes on there{used}",
    )


def add_option_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument of every command that passes options to the converter."""
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        type=named_value,
        metavar="NAME=VALUE",
        help="another argument of Converter, such as an option of a mode, a mapper or the neuron (maxpool=momentum, "
        "neuron=burst, corrections=layer-by-layer); may be repeated",
    )


def converter_options(given: Sequence[tuple[str, Any]], own_arguments: Mapping[str, str]) -> dict[str, Any]:
    """The options as keywords of the converter.

    Args:
        given: As read by `named_value`.
        own_arguments: Keywords for which the command has its own argument, and the name of that argument.

    Raises:
        OptionError: The command has another argument for a keyword, or does not take it at all.
    """
    for name, _ in given:
        if name in own_arguments:
            raise OptionError(f"--option {name}=... is not allowed: use {own_arguments[name]} instead.")
        if name in REFUSED:
            raise OptionError(
                f"--option {name}=... is not allowed on the command line. Allowed are the converter's keywords "
                f"{', '.join(CONVERTER_KEYWORDS)} and the options of modes, mappers and the neuron."
            )
    # A layer may be called 0, which is a name here.
    return {name: str(value) if name in LAYER_NAMES and isinstance(value, int) else value for name, value in given}


def readout_of(given: Sequence[str] | None, steps: int) -> Readout | None:
    """The readout that ``--readout NAME OPTION=VALUE ...`` means; None if it is not given.

    Raises:
        OptionError: The readout or an option is unknown, or it has no answer after that number of steps.
    """
    if given is None:
        return None
    name, *options = given
    try:
        named = dict(named_value(option) for option in options)
    except argparse.ArgumentTypeError as error:
        raise OptionError(f"--readout {' '.join(given)}: {error}.") from error
    return find_readout(name, steps, named)


def positive(text: str) -> int:
    """Parse an integer of at least 1.

    >>> positive("50")
    50
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not allowed: it must be an integer of at least 1")
    return number


def steps(text: str) -> int:
    """Parse a number of time steps.

    >>> steps("50")
    50
    """
    return _at_most(text, MOST_STEPS)


def threads(text: str) -> int:
    """Parse a number of threads.

    >>> threads("2")
    2
    """
    return _at_most(text, MOST_THREADS)


def _at_most(text: str, most: int) -> int:
    number = positive(text)
    if number > most:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not allowed: it must be at most {most:,}")
    return number


def named_value(text: str) -> tuple[str, Any]:
    """Parse an option ``name=value``; the value is read as a Python literal if possible, otherwise as text.

    >>> named_value("maxpool=momentum"), named_value("maxpool_momentum=0.5"), named_value("fuse_flag=false")
    (('maxpool', 'momentum'), ('maxpool_momentum', 0.5), ('fuse_flag', False))
    """
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{shown(text)} is not allowed: write an option as name=value")
    value = value.strip()
    words = {"true": True, "false": False, "none": None}
    if value.lower() in words:
        return name, words[value.lower()]
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return name, value


def checked_device(name: str | None) -> torch.device:
    """The device called `name`; for None, the CPU.

    Raises:
        OptionError: The device is not available here.
    """
    try:
        device = torch.device(local_device(name) or "cpu")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error)
        raise OptionError(
            f"--device {name} cannot be used here: {reason} Allowed are cpu and, if torch finds one, cuda or cuda:N."
        ) from error
    return device


def writable(folder: Path) -> Path:
    """Create `folder` if necessary, and return it.

    Raises:
        OptionError: The folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(
            f"--out {folder} cannot be used: {error.strerror or error}. Name a folder that exists or can be created."
        ) from error
    return folder


def plain(value: Any) -> Any:
    """`value` in a form that JSON can hold; anything else as its `repr`."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return repr(value)
