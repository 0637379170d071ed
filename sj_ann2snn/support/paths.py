"""Paths of files as callers give them."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import CheckpointError, ExportError, FormatError, OptionError
from .wording import shown

__all__ = ["AnyPath", "checked_path"]

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def checked_path(
    given: object, error: type[ExportError | FormatError | CheckpointError], done: str, argument: str = "path"
) -> Path:
    """`given` as a path.

    Args:
        given: The argument.
        error: What to raise for a name that no file can have.
        done: What cannot be done with it, for that message.
        argument: The name of the argument.

    Raises:
        OptionError: It is of a type that is no path.
        ExportError, FormatError, CheckpointError: The `error`: no file can have that name.
    """
    try:
        path = os.fsdecode(given)  # type: ignore[arg-type]
    except TypeError:
        raise OptionError(
            f"{argument}={shown(given)} is not allowed: give the path of a file as text, bytes or a pathlib.Path."
        ) from None
    try:
        allowed = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        allowed = False
    if not allowed:
        raise error(f"{shown(path)} cannot be {done}: no file can have this name.")
    return Path(path)
