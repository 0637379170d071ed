"""``sj-ann2snn costs``: what one inference costs, in the ANN and in its spiking network."""

from __future__ import annotations

import argparse
import json

from ..errors import OptionError
from ..evaluation.costs.costs import costs
from ..evaluation.costs.energy import PRESETS, EnergyPerOperation, energy_per_operation
from .arguments import Subparsers, positive
from .one_mode import OneMode, add_conversion_arguments
from .streams import tell
from .users_code import users_code

__all__ = ["add_parser", "run"]

EXAMPLE = """\
examples: with models.py as for `sj-ann2snn compare`,

    sj-ann2snn costs models:trained --data models:loaders --mode 99.9% --T 32
    sj-ann2snn costs models:trained --data models:loaders --T 32 --energy mac=4.6 accumulate=0.9 update=1.8
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "costs",
        help="count operations and energy per inference, beside the ANN's",
        description="Convert your trained network, and count what one inference costs on your test data: the ANN's "
        "multiply-accumulates, the spiking network's accumulates and multiplications, layer by layer, and the energy "
        "of both.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_conversion_arguments(parser)
    parser.add_argument(
        "--samples", type=positive, default=200, metavar="N", help="test samples to count with (default: 200)"
    )
    parser.add_argument(
        "--energy",
        nargs="+",
        default=["float32"],
        metavar=("NAME", "OPERATION=PJ"),
        help=f"energy of single operations: {', '.join(PRESETS)} (45 nm; default: float32), or your own figures in "
        "pJ: mac=4.6 accumulate=0.9, and multiply= and update= if you like",
    )
    parser.add_argument(
        "--early-exit", type=float, default=None, metavar="MARGIN", help="let samples stop as in evaluate(early_exit=)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert and count."""
    conversion, energy = OneMode(args), _energy_of(args.energy)
    with users_code():
        made = conversion.convert()
        found = costs(
            made.ann, made.snn, made.test, args.T, samples=args.samples, energy=energy, early_exit=args.early_exit
        )
    if not args.json:
        print(found)
        return 0
    numbers = {
        "command": "costs",
        **conversion.settings(made),
        "early_exit": args.early_exit,
        "costs": found.to_dict(),
    }
    print(json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False))
    tell(found.verdict)
    return 0


def _energy_of(words: list[str]) -> EnergyPerOperation:
    """What `--energy` means: a name, or ``mac=4.6 accumulate=0.9``."""
    if len(words) == 1 and "=" not in words[0]:
        return energy_per_operation(words[0])
    figures: dict[str, float] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or name not in ("mac", "accumulate", "multiply", "update"):
            raise OptionError(
                f"--energy {word} is not allowed: give one of {', '.join(PRESETS)}, or your own figures in pJ, such as "
                "--energy mac=4.6 accumulate=0.9, with multiply= and update= if you like."
            )
        try:
            figures[name] = float(value)
        except ValueError:
            raise OptionError(f"--energy {word} is not allowed: {value or 'nothing'} is not a number of pJ.") from None
    return EnergyPerOperation(**figures)  # type: ignore[arg-type]  # none of them is the name
