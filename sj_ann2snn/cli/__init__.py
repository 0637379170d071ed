"""The command line ``sj-ann2snn``: one module per command; `main` runs them.

>>> from sj_ann2snn.cli import main
>>> status = main(["modes", "--json"])  # doctest: +ELLIPSIS
{...}
>>> status
0
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO

from .._version import __version__
from ..compat import spikingjelly_version
from ..errors import (
    Ann2SnnError,
    BackendWarning,
    CheckpointWarning,
    EvaluationInterrupted,
    LegacyArgumentWarning,
    MemoryWarning,
    PluginWarning,
)
from ..support.wording import is_fault
from .bench import add_parser as add_bench
from .check import add_parser as add_check
from .compare import add_parser as add_compare
from .costs import add_parser as add_costs
from .demo import add_parser as add_demo
from .diagnose import add_parser as add_diagnose
from .evaluate import add_parser as add_evaluate
from .export import add_parser as add_export
from .modes import add_parser as add_modes
from .new_plugin import add_parser as add_new_plugin
from .plugins import add_parser as add_plugins
from .processes import sharing
from .report import add_parser as add_report
from .streams import Output, give_up, standard_streams, tell
from .tune import add_parser as add_tune
from .users_code import failure

__all__ = ["main"]

OWN_WARNINGS = (BackendWarning, CheckpointWarning, LegacyArgumentWarning, MemoryWarning, PluginWarning)

EXIT_ERROR, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: The arguments; by default the process's own.
    """
    with standard_streams() as output:
        try:
            status = _run(argv)
        except SystemExit as stopped:
            if not isinstance(stopped, _Finished):
                return _explain(failure("The command stopped", stopped))
            if not _written(output):
                return _lost(output)
            raise  # argparse has said what is wrong, or has printed what was asked for
        except Ann2SnnError as error:
            return _explain(error)
        except KeyboardInterrupt as interrupt:
            if isinstance(interrupt, EvaluationInterrupted):
                tell(interrupt)
            return EXIT_INTERRUPTED
        except BaseException as error:
            if not is_fault(error):
                raise
            return _lost(output) if output.error else _explain(failure("The command stopped", error))
        return status if _written(output) else _lost(output)


def _explain(error: Ann2SnnError) -> int:
    """Say what went wrong, and return the exit status."""
    tell(f"error: {error}")
    for note in getattr(error, "__notes__", ()):
        tell(note)
    return EXIT_ERROR


def _written(output: Output) -> bool:
    """True if everything printed has reached standard output."""
    with suppress(OSError, ValueError):
        output.flush()
    return output.error is None


def _lost(output: Output) -> int:
    """Say that the result is lost, and return the exit status."""
    give_up(output)
    if isinstance(output.error, BrokenPipeError):  # the reader (head, less) has closed the pipe
        return EXIT_BROKEN_PIPE
    reason = getattr(output.error, "strerror", None) or "it is closed"
    tell(f"error: The result cannot be written to standard output: {reason}.")
    return EXIT_ERROR


class _Finished(SystemExit):
    """The parser has printed the help or the version."""


class _Parser(argparse.ArgumentParser):
    """Ends with an exception of its own, unlike code that a command runs."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        if message:
            tell(message.rstrip())
        raise _Finished(status)


def _run(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.run is None:
        parser.print_help(sys.stderr)
        return EXIT_ERROR
    with _plain_warnings(), sharing(args):
        status: int = args.run(args)
    return status


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; the parsed arguments carry the command's function as `run`."""
    parser: argparse.ArgumentParser = _Parser(
        prog="sj-ann2snn",
        description="Convert trained ANNs to spiking networks of SpikingJelly neurons.",
        epilog="`sj-ann2snn COMMAND --help` explains a command. Start with `sj-ann2snn demo`; it needs no network.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the versions in use and exit")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add_parser in (
        add_demo,
        add_check,
        add_evaluate,
        add_compare,
        add_diagnose,
        add_tune,
        add_report,
        add_costs,
        add_bench,
        add_export,
        add_modes,
        add_plugins,
        add_new_plugin,
    ):
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
                tell(f"warning: {message}")
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield
