"""The command line ``sj-ann2snn``: one module per command; `main` runs them.

>>> from sj_ann2snn.cli import main
>>> status = main(["modes", "--json"])  # doctest: +ELLIPSIS
{...}
>>> status
0
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from .._version import __version__
from ..compat import spikingjelly_version
from ..errors import (
    Ann2SnnError,
    BackendWarning,
    EvaluationInterrupted,
    LegacyArgumentWarning,
    MemoryWarning,
    PluginWarning,
)
from .bench import add_parser as add_bench
from .check import add_parser as add_check
from .compare import add_parser as add_compare
from .demo import add_parser as add_demo
from .export import add_parser as add_export
from .modes import add_parser as add_modes
from .new_plugin import add_parser as add_new_plugin
from .plugins import add_parser as add_plugins

__all__ = ["main"]

OWN_WARNINGS = (BackendWarning, LegacyArgumentWarning, MemoryWarning, PluginWarning)

EXIT_ERROR, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: The arguments; by default the process's own.
    """
    _tolerate_narrow_encodings()
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.run is None:
        parser.print_help(sys.stderr)
        return EXIT_ERROR
    try:
        with _plain_warnings():
            status: int = args.run(args)
            sys.stdout.flush()
    except Ann2SnnError as error:
        print(f"error: {error}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(note, file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt, EvaluationInterrupted):
            print(interrupt, file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has closed the pipe. Python would raise the error again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return status


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; the parsed arguments carry the command's function as `run`."""
    parser = argparse.ArgumentParser(
        prog="sj-ann2snn",
        description="Convert trained ANNs to spiking networks of SpikingJelly neurons.",
        epilog="`sj-ann2snn COMMAND --help` explains a command. Start with `sj-ann2snn demo`; it needs no network.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the versions in use and exit")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add_parser in (add_demo, add_check, add_compare, add_bench, add_export, add_modes, add_plugins, add_new_plugin):
        add_parser(commands)
    return parser


class _Version(argparse.Action):
    """Like argparse's own action, but looks up the versions only on request."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import platform

        import torch

        print(
            f"{parser.prog} {__version__} (SpikingJelly {spikingjelly_version()}, torch {torch.__version__}, "
            f"Python {platform.python_version()})"
        )
        parser.exit()


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print each of the package's own warnings on one line, without its source location."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, OWN_WARNINGS):
                print(f"warning: {message}", file=file or sys.stderr)
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def _tolerate_narrow_encodings() -> None:
    """Show a question mark on a terminal that cannot print λ."""
    for stream in (sys.stdout, sys.stderr):
        encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "")
        if encoding != "utf8" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
