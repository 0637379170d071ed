"""The file of a checkpoint: JSON with a checksum, written beside and renamed, read only for the run that wrote it."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Mapping
from typing import Any

from ...contracts.values import decode, encode
from ...errors import CheckpointError, CheckpointWarning, FormatError, OptionError
from ...support.paths import AnyPath, checked_path
from ...support.replacing import replacing
from ...support.wording import listed, shortened, shown
from .identity import Identity

__all__ = ["CheckpointFile", "require_one_process"]

FORMAT, VERSION = "sj-ann2snn checkpoint", 1

REST = 100
"""How many times as long as a write what follows must take before the next: writing takes 1 % of the time at most."""

ANEW = "To start anew, delete the file or name another one."


def require_one_process(checkpoint: AnyPath | None, distributed: object) -> None:
    """Raises:
    OptionError: A checkpoint is asked for where several processes share the work.
    """
    if checkpoint is not None and distributed is not False and distributed is not None:
        raise OptionError(
            f"checkpoint={shown(checkpoint)} and distributed={shown(distributed)} are not allowed together: a "
            "checkpoint holds the work of one process. Leave out one of them."
        )


class CheckpointFile:
    """The file of one run.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     CheckpointFile(Path(folder) / "run.json", "evaluate", {"T": "8"}).save({"samples": 10})
    ...     CheckpointFile(Path(folder) / "run.json", "evaluate", {"T": "8"}).load()
    {'samples': 10}

    Args:
        path: Where it is; it need not exist.
        kind: The function that runs.
        identity: What makes this run; a file of another run is refused.

    Raises:
        OptionError, CheckpointError: `path` is no path of a file.
    """

    def __init__(self, path: AnyPath, kind: str, identity: Identity) -> None:
        self.path = checked_path(path, CheckpointError, "used as a checkpoint", "checkpoint")
        self._kind, self._identity = kind, identity
        self._next = 0.0
        self._warned = False

    def load(self) -> Any:
        """What was saved last; None if there is no file.

        Raises:
            CheckpointError: The file cannot be read, is damaged or was written by another run.
        """
        try:
            if self.path.exists() and not self.path.is_file():
                raise CheckpointError(f"The checkpoint {self.path} is no file. Name a file.")
            text = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"The checkpoint {self.path} cannot be read: {error.strerror or error}.") from error
        document = self._document(text)
        found = document["version"]
        if found != VERSION:
            raise CheckpointError(
                f"The checkpoint {self.path} has version {shown(found)}; this version of sj-ann2snn reads version "
                f"{VERSION}. {ANEW}"
            )
        if document["kind"] != self._kind:
            raise CheckpointError(
                f"The checkpoint {self.path} was written by {document['kind']}, not by {self._kind}. {ANEW}"
            )
        apart = list(_differences(document["identity"], self._identity))
        if apart:
            raise self.foreign(*apart)
        try:
            return decode(document["state"])
        except FormatError as error:
            raise self.damaged() from error

    def foreign(self, *differences: str) -> CheckpointError:
        """The error for a file of another run."""
        return CheckpointError(
            f"The checkpoint {self.path} belongs to another run: {'; '.join(differences)}. {ANEW}", differences
        )

    def damaged(self) -> CheckpointError:
        """The error for a file that holds no checkpoint."""
        return CheckpointError(
            f"{self.path} holds no checkpoint, or was damaged after it was written. It is left as it is. {ANEW}"
        )

    def save(self, state: Any) -> None:
        """Replace the file.

        Raises:
            CheckpointError: It cannot be written; what was there before is left.
        """
        begun = time.monotonic()
        document = {
            "format": FORMAT,
            "version": VERSION,
            "kind": self._kind,
            "identity": self._identity,
            "state": encode(state),
        }
        document["checksum"] = _checksum(document)
        try:
            with replacing(self.path) as file:
                file.write(_text(document))
        except OSError as error:
            raise CheckpointError(
                f"The checkpoint {self.path} cannot be written: {error.strerror or error}. Name a file in a folder "
                "that exists, on a disk with room for it, and that you may write to."
            ) from error
        finally:
            ended = time.monotonic()
            self._next = ended + REST * (ended - begun)

    @property
    def is_due(self) -> bool:
        """True if the last write is long enough ago for the next."""
        return time.monotonic() >= self._next

    def try_to_save(self, state: Any) -> None:
        """As `save`, with a warning if the file cannot be written: hours of work must not end for a full disk."""
        try:
            self.save(state)
        except CheckpointError as error:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"{error} The run goes on; if it is killed, what it has finished since the last write is lost.",
                    CheckpointWarning,
                    stacklevel=2,
                )

    def _document(self, text: bytes) -> dict[str, Any]:
        """The file's content, which is intact.

        Raises:
            CheckpointError: It is no checkpoint, or damaged.
        """
        try:
            document = json.loads(text)
            intact = document["format"] == FORMAT and document.pop("checksum") == _checksum(document)
            identity = document["identity"]
            document["version"], document["kind"], document["state"]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise self.damaged() from None
        if not intact or not isinstance(identity, dict):
            raise self.damaged()
        found: dict[str, Any] = document
        return found


def _text(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")


def _checksum(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text(document)).hexdigest()


def _differences(before: Identity, now: Identity) -> list[str]:
    """What differs between two runs, in words."""
    found = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            found.append(f"{name} differs in {_layers_apart(old, new)}")
        elif isinstance(old, str) and isinstance(new, str) and len(old) + len(new) < 600:
            found.append(f"{name} was {old}, and is {new}")
        else:
            was, now_is = ("not given" if one is None else shortened(str(one), 100) for one in (old, new))
            found.append(f"{name} differs" if was == now_is else f"{name} was {was}, and is {now_is}")
    return found


def _layers_apart(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    every = dict.fromkeys([*old, *new])
    return listed([name for name in every if old.get(name) != new.get(name)], most=5)
