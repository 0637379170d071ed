"""Runs the code of the user that a command names: what it prints and what it raises does not mix with the command."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import torch

from ..errors import InputError
from ..support.blame import translated
from ..support.wording import described, shown

__all__ = ["failure", "users_code"]

FRAMES = 10
"""Places in the user's code that a failure shows: the innermost ones."""

PACKAGE = str(Path(__file__).resolve().parents[1])
LIBRARIES = (PACKAGE, str(Path(torch.__file__).resolve().parent), importlib.__file__, "<")
"""Code that does not show where the user's code failed."""


@contextmanager
def users_code() -> Iterator[None]:
    """While the context is open, modules in the current directory can be imported, as under ``python -m``.

    What the code prints goes to standard error, because the result of the command is alone on standard output.

    Raises:
        InputError: Instead of what the code raises, `sys.exit()` included. Ctrl-C passes.
    """
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    try:
        with redirect_stdout(sys.stderr), translated(lambda error: failure("The command stopped", error)):
            yield
    finally:
        sys.path[:] = before


def failure(what: str, error: BaseException) -> InputError:
    """An error that says what failed and how, with the places in the user's code as a note.

    Args:
        what: What failed, such as ``"models:trained: calling it failed"``.
        error: How.
    """
    if isinstance(error, SystemExit):
        told = f"it called sys.exit({'' if error.code is None else shown(error.code)}), so nothing further was done."
        found = InputError(f"{what}: {told}")
    else:
        found = InputError(f"{what} with {described(error)}")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(LIBRARIES)]
    if own:
        found.add_note("".join(traceback.format_list(own[-FRAMES:])).rstrip())
    elif frames:
        found.add_note(f"(in {frames[-1].filename}, line {frames[-1].lineno})")
    return found
