"""Writes a file so that it is complete or is not there."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["replacing"]

MOST_LINKS = 40
"""Symbolic links in a row, as many as Linux follows."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file to write to; at the end of the block, it replaces what is at `path`.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "network.txt") as file:
    ...         _ = file.write(b"complete")
    ...     (Path(folder) / "network.txt").read_text()
    'complete'

    Until then, and if the block raises or the process is killed, what was there stays as it was. Several threads or
    processes may write to one path; the last one wins.

    A symbolic link stays, and the file that it points to is replaced. An existing file keeps its permissions; a new
    one has those of any new file. Devices, pipes and `/dev/stdout` are not replaced: the block writes straight into
    them, and may not seek.

    Raises:
        OSError: The file cannot be written: the disk is full, the folder does not exist or is read-only, the file is
            write-protected.
    """
    target = _behind_links(Path(path))
    found = None if target is None else _status(target)
    if target is None or (found is not None and not stat.S_ISREG(found.st_mode)):
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise _error(errno.EISDIR, path)
        with Path(path).open("wb") as file:
            yield file
        return
    if found is not None and not os.access(target, os.W_OK):
        raise _error(errno.EACCES, path)  # replacing it would only ask for permission to write to the folder
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    # Nobody but the owner may read the content of a file with fewer permissions while it is written.
    created = 0o666 if found is None else 0o600
    try:
        with _opened(part, created) as file:
            yield file
            file.flush()
            if found is not None:
                _take_after(file.fileno(), found)
            os.fsync(file.fileno())
            _give_name(file.fileno(), part)
        part.replace(target)
        _sync_folder(target.parent)
    finally:
        part.unlink(missing_ok=True)


def _behind_links(path: Path) -> Path | None:
    """The file that `path` points to, which need not exist; None for an open file of a process, as `/dev/stdout` is."""
    for _ in range(MOST_LINKS):
        path = Path(os.path.realpath(path.parent), path.name)
        if path.parts[:2] == (os.sep, "proc"):
            return None
        if not path.is_symlink():
            return path
        path = path.parent / path.readlink()
    raise _error(errno.ELOOP, path)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _opened(part: Path, mode: int) -> BinaryIO:
    """A new file; without a name where the system has such files, since it then vanishes if the process is killed."""
    unnamed = getattr(os, "O_TMPFILE", None)
    if unnamed is not None and Path("/proc/self/fd").is_dir():
        with contextlib.suppress(OSError):  # not on this file system; any other reason shows below
            return os.fdopen(os.open(part.parent, os.O_RDWR | unnamed, mode), "w+b")
    return _named(part, mode)


def _named(part: Path, mode: int) -> BinaryIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(part, flags, mode), "w+b")


def _take_after(descriptor: int, found: os.stat_result) -> None:
    """Give the new file the owner, if that is allowed, and the permissions of the old one."""
    if hasattr(os, "fchown") and (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, found.st_uid, found.st_gid)
    if hasattr(os, "fchmod"):
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode))


def _give_name(descriptor: int, part: Path) -> None:
    """Give a file without a name the name `part`."""
    if part.exists():
        return
    folder = os.open(part.parent, os.O_RDONLY)
    try:
        # With a folder, Python makes a link to the file that the first path points to.
        os.link(f"/proc/self/fd/{descriptor}", part.name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        # Some systems do not allow this; then copy, which a kill may interrupt.
        with os.fdopen(descriptor, "rb", closefd=False) as written, _named(part, 0o600) as copied:
            written.seek(0)
            shutil.copyfileobj(written, copied)
            _take_after(copied.fileno(), os.fstat(descriptor))
            copied.flush()
            os.fsync(copied.fileno())
    finally:
        os.close(folder)


def _sync_folder(folder: Path) -> None:
    """Make sure that the new name survives a power failure, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _error(number: int, path: str | os.PathLike[str]) -> OSError:
    return OSError(number, os.strerror(number), os.fspath(path))
