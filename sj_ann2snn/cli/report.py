"""``sj-ann2snn report``: the diagnosis of the user's own network as one HTML page."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..errors import OptionError
from .arguments import Subparsers
from .diagnose import add_diagnosis_arguments, diagnosed
from .streams import tell

__all__ = ["add_parser", "run"]

EXAMPLE = """\
example: with models.py as for `sj-ann2snn compare`,

    sj-ann2snn report models:trained --data models:loaders --mode 99.9% --T 32 --out report.html
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "report",
        help="write what `diagnose` finds to one HTML page, with pictures",
        description="Convert and diagnose your trained network as `sj-ann2snn diagnose` does, and write one HTML page: "
        "the verdict and what mends it, accuracy over time, the terms of every layer, rates and spikes, the network, "
        "and what it costs. The page holds everything that it needs; it loads nothing and runs no script.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_diagnosis_arguments(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="file to write (default: report.html); an existing one is replaced",
    )
    parser.add_argument("--title", help="heading of the page (default: the name of the network)")
    parser.add_argument("--json", action="store_true", help="also print the data of the page, as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Diagnose, and write the page."""
    _require_place(args.out)
    made = diagnosed(args)
    page = made.found.to_html(args.out, title=args.title, conversion=made.converter.report)
    size = len(page.encode("utf-8"))
    written = f"wrote {args.out} ({size:,} bytes)"
    if not args.json:
        print(made.found.verdict)
        print(written)
        return 0
    numbers = {
        "command": "report",
        **made.settings,
        "file": str(args.out),
        "bytes": size,
        "diagnosis": made.found.to_dict(observed=True),
    }
    print(json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False))
    tell(written)
    return 0


def _require_place(path: Path) -> None:
    """Refuse, before minutes of work, a file that cannot be written.

    Raises:
        OptionError: Its folder does not exist, or a folder has its name.
    """
    if path.is_dir():
        raise OptionError(f"--out {path} is a folder. Name a file, such as {path / 'report.html'}.")
    if not path.parent.is_dir():
        raise OptionError(f"--out {path} cannot be written: there is no folder {path.parent}. Create it first.")
