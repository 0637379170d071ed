"""Exchanges bytes between ranks through the key-value store of their process group, and notices who is lost.

A collective of torch's backends ends with whatever error its transport has, for the neighbours of a lost rank only, or
not before its timeout, which must be longer than the longest computation. The store is reached from every rank whatever
the backend. A thread of every rank keeps changing a key there, its *pulse*, so that a rank that computes for hours is
told from one that is gone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from ..errors import DistributedError
from ..support.wording import described
from .settings import Distributed

__all__ = ["Mailbox"]

CHUNK = 1 << 22
"""Bytes of a value in the store, whose servers refuse values beyond 8 MB."""

INLINE = 1 << 12
"""Bytes that travel in the announcement itself."""

SHORTEST, LONGEST = 0.0005, 0.02
"""Seconds between two looks into the store."""

PERIOD = 2.0
"""Seconds between two beats of a pulse at most."""

QUOTED = 3000
"""Characters of another rank's error that a message quotes."""

GRACE = 10.0
"""Seconds for which a rank that failed and may keep the store stays, so that the others learn why."""


class Mailbox:
    """One rank's access to the others, for one session.

    Args:
        store: The process group's store, in which the session has a prefix of its own.
        rank: This rank.
        size: Number of ranks.
        settings: How long to wait.
    """

    def __init__(self, store: Any, rank: int, size: int, settings: Distributed) -> None:
        self.rank, self.size, self.settings = rank, size, settings
        self._store = store
        self._round = 0
        self._written: list[str] = []
        self._lost: set[int] = set()
        self._beats: dict[int, tuple[bytes, float]] = {}
        self._begun = time.monotonic()
        self._looked = 0.0
        self._period = min(PERIOD, settings.timeout / 5)
        self._stop = threading.Event()

    @property
    def others(self) -> list[int]:
        """All other ranks."""
        return [rank for rank in range(self.size) if rank != self.rank]

    @contextmanager
    def open(self) -> Iterator[None]:
        """Give signs of life while the context is open; what fails inside ends all other ranks.

        Raises:
            DistributedError: Another rank failed or is lost.
        """
        thread = threading.Thread(target=self._beat, name="sj-ann2snn-pulse", daemon=True)
        thread.start()
        try:
            yield
            self.round(b"", ())
            self._leave()
        except DistributedError:
            self._stay()
            raise
        except BaseException as error:
            self.fail(f"Rank {self.rank} failed: {_described(error)}")
            raise
        finally:
            self._stop.set()
            thread.join()

    def round(self, body: bytes, readers: Collection[int] = (), sources: Collection[int] | None = None) -> list[bytes]:
        """Post `body` and wait until all ranks have; every rank calls it equally often.

        Args:
            body: What to post.
            readers: The ranks that read what is posted; only whether this rank is one of them matters.
            sources: The ranks to read from; None for all.

        Returns:
            What these ranks posted, in order, for a reader; an empty list for the others.

        Raises:
            DistributedError: Another rank failed or is lost.
        """
        number, self._round = self._round, self._round + 1
        before, self._written = self._written, []
        wanted = range(self.size) if sources is None else sources
        with self._reached():
            self._post(f"{number}", body)
            self._await([f"{number}/{rank}" for rank in self.others], self.others)
            found = [self._read(f"{number}", rank, body) for rank in wanted] if self.rank in readers else []
            # All ranks have posted this round, so they have read the one before.
            for key in before:
                self._store.delete_key(key)
        return found

    def look(self) -> None:
        """Between two pieces of work: end if another rank failed or is lost.

        Raises:
            DistributedError: It did.
        """
        if time.monotonic() - self._looked >= min(1.0, self._period):
            with self._reached():
                self._require_well(self.others)

    def fail(self, text: str) -> None:
        """Tell the others why this rank stops; never fails itself."""
        try:
            if not self._store.check(["failed"]):
                self._store.set("failed", text)
        except Exception:
            return  # the store is gone, which the others notice as well
        self._stay()

    def _stay(self) -> None:
        """After a failure: stay for a moment if this process may keep the store, so that the others learn why."""
        try:
            self._store.set(f"told/{self.rank}", "")
            end = time.monotonic() + min(GRACE, self.settings.timeout)
            keys = [f"told/{rank}" for rank in self.others if rank not in self._lost]
            while self.rank == 0 and time.monotonic() < end and not self._store.check(keys):
                time.sleep(LONGEST)
        except Exception:
            return

    def _leave(self) -> None:
        """Leave in such an order that the store is not gone before everybody has read from it."""
        with self._reached():
            if self.rank:
                self._store.set(f"left/{self.rank}", "")
            else:
                self._await([f"left/{rank}" for rank in self.others], ())

    def _post(self, key: str, body: bytes) -> None:
        name = f"{key}/{self.rank}"
        parts = [body[start : start + CHUNK] for start in range(0, len(body), CHUNK)] if len(body) > INLINE else []
        for index, part in enumerate(parts):
            self._store.set(f"{name}/{index}", part)
            self._written.append(f"{name}/{index}")
        self._store.set(name, b"%d:" % len(parts) + (b"" if parts else body))
        self._written.append(name)

    def _read(self, key: str, rank: int, own: bytes) -> bytes:
        if rank == self.rank:
            return own
        count, _, body = self._store.get(f"{key}/{rank}").partition(b":")
        return b"".join(self._store.get(f"{key}/{rank}/{index}") for index in range(int(count))) or body

    def _await(self, keys: list[str], ranks: Collection[int]) -> None:
        """Wait for keys, as long as these ranks are well."""
        end, pause, looked = time.monotonic() + self.settings.timeout, SHORTEST, 0.0
        while keys and not self._store.check(keys):
            if self._store.check(["failed"]) or time.monotonic() - looked > self._period / 2:
                self._require_well(ranks)
                looked = time.monotonic()
            if not ranks and time.monotonic() > end:
                return  # whoever has not left by then has all that it needs, or is lost
            time.sleep(pause)
            pause = min(LONGEST, 2 * pause)

    def _require_well(self, ranks: Collection[int]) -> None:
        """Raises:
        DistributedError: A rank failed or is lost.
        """
        self._looked = time.monotonic()
        if self._store.check(["failed"]):
            raise DistributedError(self._store.get("failed").decode(errors="replace"))
        for rank in ranks:
            self._require_pulse(rank)

    def _require_pulse(self, rank: int) -> None:
        now, key = time.monotonic(), f"pulse/{rank}"
        if not self._store.check([key]):
            if now - self._begun > self.settings.wait:
                self._lose(
                    rank,
                    f"Rank {rank} did not come: it has not called the same function within "
                    f"{self.settings.wait:g} s of rank {self.rank} (Distributed(wait={self.settings.wait:g})). All "
                    "ranks of the group must call it, in the same order.",
                )
            return
        beat = self._store.get(key)
        known = self._beats.get(rank)
        if known is None or known[0] != beat:
            self._beats[rank] = beat, now
        elif now - known[1] > self.settings.timeout:
            self._lose(
                rank,
                f"Rank {rank} is lost: it gave no sign of life for {self.settings.timeout:g} s "
                f"(Distributed(timeout={self.settings.timeout:g})). Its process was killed or suspended, or its "
                "machine or the network failed; see its own log.",
            )

    def _lose(self, rank: int, text: str) -> NoReturn:
        self._lost.add(rank)
        self._store.set("failed", text)
        raise DistributedError(text)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Translate errors of the store: the process that keeps it is gone."""
        try:
            yield
        except (RuntimeError, OSError, ValueError) as error:
            if isinstance(error, DistributedError):
                raise
            raise DistributedError(
                f"Rank {self.rank} lost the store of the process group, which rank 0 or its launcher keeps "
                f"({_described(error)}). That process has ended, or the network failed; see its log."
            ) from error

    def _beat(self) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            try:
                self._store.set(f"pulse/{self.rank}", str(count))
            except Exception:
                return  # the main thread meets the same error
            self._stop.wait(self._period)


def _described(error: BaseException) -> str:
    return described(error, QUOTED)
