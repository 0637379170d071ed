"""Standard output and standard error of a command, which may be closed, full, or narrow."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["Output", "give_up", "standard_streams", "tell"]


class Output:
    """Standard output that remembers why it could not be written to.

    Args:
        stream: The stream; None if it was closed before the program started, where Python would print nothing.

    Attributes:
        error: What writing to it raised first.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        try:
            if self.stream is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            return int(self.stream.write(text))
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        try:
            if self.stream is not None:
                self.stream.flush()
        except OSError as error:
            self.error = self.error or error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def standard_streams() -> Iterator[Output]:
    """While the context is open, there are both streams, and they print a question mark for what they cannot print.

    Yields:
        Standard output.
    """
    out, err = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123
        output = Output(out)
        for stream in (out, err):
            encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "")
            if encoding != "utf8" and hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        sys.stdout, sys.stderr = output, nowhere if err is None else err
        try:
            yield output
        finally:
            sys.stdout, sys.stderr = out, err


def tell(line: object) -> None:
    """Print to standard error, if anything can be printed there."""
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        give_up(sys.stderr)


def give_up(stream: Any) -> None:
    """Let what is left in a stream go nowhere: otherwise Python fails again when it flushes it at exit."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
