"""What a search has measured, in order: a search that is started again repeats its decisions without the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from ..evaluation.checkpoints.file import CheckpointFile
from .candidates import Candidate
from .figures import Figures
from .measuring import Measurements, Point, Record

__all__ = ["Journal"]

FIGURES = tuple(one.name for one in fields(Figures))


class Journal:
    """The finished measurements, and the time that they took.

    >>> journal = Journal()
    >>> journal.entry("sum", lambda: 1 + 1), journal.seconds > 0
    (2, True)

    Every decision of a search follows from what it has measured, and from the time at which a measurement ended. Its
    clock stands still in between, so a search that replays its journal decides as it did before, with a limit of time
    as well.

    Args:
        file: Where to keep it; None for nowhere.
    """

    def __init__(self, file: CheckpointFile | None = None) -> None:
        self._file = file
        self._entries: list[dict[str, Any]] = []
        self._place = 0
        self.seconds = 0.0
        self._started = time.monotonic()

    def begin(self) -> None:
        """Read what the file holds; write it, so that a file that cannot be written is noticed now.

        Raises:
            CheckpointError: It cannot be used.
        """
        if self._file is not None:
            found = self._file.load()
            if found is not None and not _is_journal(found):
                raise self._file.damaged()
            self._entries = list(found or ())
            self._file.save(tuple(self._entries))

    def entry(self, what: str, measure: Callable[[], Any]) -> Any:
        """What `measure` returned in an earlier run, or returns now: plain data.

        Args:
            what: What is measured.
            measure: Measures it.

        Raises:
            CheckpointError: Something else was measured next in the earlier run.
        """
        if self._place < len(self._entries):
            found = self._entries[self._place]
            if found["what"] != what and self._file is not None:
                raise self._file.foreign(f"measurement {self._place} was {found['what']}, and is {what}")
        else:
            result = measure()
            found = {"what": what, "result": result, "seconds": self.seconds + time.monotonic() - self._started}
            self._entries.append(found)
            if self._file is not None and self._file.is_due:
                self._file.try_to_save(tuple(self._entries))
        self._place += 1
        self.seconds, self._started = found["seconds"], time.monotonic()
        return found["result"]

    def record(
        self, candidate: Candidate, what: str, measurements: Measurements, measure: Callable[[], Record]
    ) -> Record:
        """The record of a candidate, and how many networks had been converted then.

        Args:
            candidate: The candidate.
            what: Where and how it is measured.
            measurements: Counts the networks.
            measure: Measures it.
        """
        found = self.entry(f"{candidate.key} {what}", lambda: _plain(measure(), measurements))
        measurements.trials = found["trials"]
        points = {row[0]: Point(candidate=candidate, **dict(zip(FIGURES, row, strict=True))) for row in found["points"]}
        return Record(candidate, points, found["failure"])

    def apart(self) -> Journal:
        """A journal with the same time that is not kept."""
        found = Journal()
        found.seconds = self.seconds
        return found

    def save(self) -> None:
        """Write everything now."""
        if self._file is not None:
            self._file.try_to_save(tuple(self._entries))


def _plain(record: Record, measurements: Measurements) -> dict[str, Any]:
    points = tuple(tuple(getattr(point, name) for name in FIGURES) for point in record.points.values())
    return {"points": points, "failure": record.failure, "trials": measurements.trials}


def _is_journal(found: object) -> bool:
    keys = {"what", "result", "seconds"}
    return isinstance(found, tuple) and all(isinstance(one, Mapping) and keys == one.keys() for one in found)
