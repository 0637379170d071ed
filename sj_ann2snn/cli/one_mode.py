"""What the commands share that convert the user's network in one mode."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..conversion.converter import Converter
from .arguments import (
    ONE_MODE_ARGUMENTS,
    add_option_argument,
    add_trained_network,
    checked_device,
    converter_options,
    plain,
    steps,
)
from .targets import load_loaders, load_network

__all__ = ["Conversion", "OneMode", "add_conversion_arguments", "add_place_arguments", "add_readout_argument"]


def add_conversion_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the network, its data, and how to convert it for how many steps."""
    add_trained_network(parser)
    parser.add_argument(
        "--mode", default="max", help="max (default), 99.9%%, 0.5, 1/2 or any that `sj-ann2snn modes` lists"
    )
    parser.add_argument("--T", type=steps, default=50, metavar="STEPS", help="time steps to simulate (default: 50)")
    add_place_arguments(parser)


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the scales, the device and the options of a conversion."""
    parser.add_argument("--channel-wise", action="store_true", help="one scale per channel instead of per layer")
    parser.add_argument("--device", default=None, help="device, such as cpu or cuda:0 (default: cpu)")
    add_option_argument(parser)


def add_readout_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the readout; `what` says what it is for."""
    parser.add_argument("--readout", nargs="+", metavar=("NAME", "OPTION=VALUE"), help=what)


@dataclass(frozen=True)
class Conversion:
    """A converted network, and what it was made of.

    Attributes:
        ann: The ANN, on the device of the conversion.
        snn: The network.
        converter: What converted it.
        test: The test data.
    """

    ann: nn.Module
    snn: nn.Module
    converter: Converter
    test: Iterable[Any]


class OneMode:
    """The arguments of a conversion in one mode.

    Args:
        args: The command's arguments.

    Raises:
        OptionError: An option has a name of its own on the command line, or the device is not available.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._options = converter_options(args.option, ONE_MODE_ARGUMENTS)
        self.device: torch.device | None = None if args.device is None else checked_device(args.device)

    def convert(self, **arguments: Any) -> Conversion:
        """Load the network and its data, and convert it; `arguments` are added to the converter's."""
        args = self._args
        ann = load_network(args.network)
        calibration, test = load_loaders(args.data)
        converter = Converter(
            calibration,
            self.device,
            args.mode,
            channel_wise=args.channel_wise or None,  # a mode may suggest it
            T=args.T,
            distributed=args.distributed,
            **arguments,
            **self._options,
        )
        if self.device is not None:
            ann = ann.to(self.device)
        return Conversion(ann, converter(ann), converter, test)

    def settings(self, made: Conversion) -> dict[str, Any]:
        """What was asked for, for JSON."""
        args = self._args
        return {
            "network": args.network,
            "data": args.data,
            "mode": args.mode,
            "channel_wise": made.converter.channel_wise,
            "options": plain(self._options),
        }
