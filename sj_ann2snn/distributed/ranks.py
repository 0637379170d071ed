"""What a stage asks of the group of processes that it runs in."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar, cast

import torch

from ..errors import Ann2SnnError, DistributedError, InputError
from .mailbox import Mailbox
from .packing import digest, packed, unpacked

__all__ = ["ALONE", "Place", "Ranks", "Share", "Together"]

Item = TypeVar("Item")
Result = TypeVar("Result")

Place = tuple[int, int]
"""Where a batch stands in the whole loader: part of the data, and number in that part."""


def _nothing() -> None:
    return


def _ignored(batch: object) -> None:
    return


class Share(Generic[Item]):
    """This rank's batches; `place` is that of the current one, `seen` how many the rank has read."""

    def __init__(
        self,
        batches: Iterable[Item],
        part: int,
        every: int,
        first: int,
        look: Callable[[], None],
        passing: Callable[[Item], None],
    ) -> None:
        self._batches, self._part, self._every, self._first = batches, part, every, first
        self._look, self._passing = look, passing
        self.place: Place = (part, 0)
        self.seen = 0

    def __iter__(self) -> Iterator[Item]:
        for index, batch in enumerate(self._batches):
            self.seen = index + 1
            if index % self._every == self._first:
                self._look()
                self.place = self._part, index
                yield batch
            else:
                self._passing(batch)


class Ranks(Protocol):
    """The processes that share the work, seen from one of them."""

    @property
    def several(self) -> bool:
        """True if there are several processes, or there might be."""

    @property
    def is_first(self) -> bool:
        """True for the rank that shows progress and puts together what all found."""

    @property
    def sharded(self) -> bool:
        """True if every rank has a part of the data, False if all have all of it."""

    def share(self, batches: Iterable[Item], passing: Callable[[Item], None] = _ignored) -> Share[Item]:
        """This rank's share of the batches that it was given; `passing` is called with those of others among them."""

    @property
    def size(self) -> int:
        """Their number."""

    @property
    def rank(self) -> int:
        """The number of this one, from 0."""

    def takes(self, index: int) -> bool:
        """True if this rank does the piece of work with this number."""

    def joined(
        self, found: Sequence[tuple[Place, Item]], share: Share[Any], device: torch.device | None = None
    ) -> tuple[list[Item], int]:
        """What all ranks found in their batches, in the order of the batches, and the number of batches.

        Only the first rank gets the list.
        """

    def gathered(self, value: Item, device: torch.device | None = None) -> list[Item]:
        """The values of all ranks, in their order, for the first one; the others get an empty list."""

    def exchanged(self, value: Item, device: torch.device | None = None) -> list[Item]:
        """The values of all ranks, in their order."""

    def from_first(self, make: Callable[[], Result], device: torch.device | None = None) -> Result:
        """What `make` returns on the first rank; the others do not call it."""

    def outcomes(self, pieces: Sequence[Item], work: Callable[[Item], Result]) -> list[Result]:
        """What `work` makes of every piece, in order; every rank does some of them.

        Raises:
            Ann2SnnError: That of the first piece that failed, on all ranks.
        """

    def whole(self, batches: Iterable[Item]) -> Iterable[Item]:
        """All batches, also those that only other ranks have; all ranks iterate side by side."""

    def require_same(self, what: str, why: str, *values: Any) -> None:
        """Check that all ranks have the same values.

        Args:
            what: What they are, for messages.
            why: The rest of the message.
            values: What `digest` takes.

        Raises:
            DistributedError: They have not.
        """

    def now(self) -> float:
        """The time in seconds; the same on all ranks."""


class _Alone:
    """One process."""

    several = sharded = False
    is_first = True
    size = 1
    rank = 0

    def takes(self, index: int) -> bool:
        return True

    def share(self, batches: Iterable[Item], passing: Callable[[Item], None] = _ignored) -> Share[Item]:
        return Share(batches, 0, 1, 0, _nothing, passing)

    def joined(
        self, found: Sequence[tuple[Place, Item]], share: Share[Any], device: torch.device | None = None
    ) -> tuple[list[Item], int]:
        return [one for _, one in found], share.seen

    def gathered(self, value: Item, device: torch.device | None = None) -> list[Item]:
        return [value]

    def exchanged(self, value: Item, device: torch.device | None = None) -> list[Item]:
        return [value]

    def from_first(self, make: Callable[[], Result], device: torch.device | None = None) -> Result:
        return make()

    def outcomes(self, pieces: Sequence[Item], work: Callable[[Item], Result]) -> list[Result]:
        return [work(piece) for piece in pieces]

    def whole(self, batches: Iterable[Item]) -> Iterable[Item]:
        return batches

    def require_same(self, what: str, why: str, *values: Any) -> None:
        return

    def now(self) -> float:
        return time.monotonic()


ALONE: Ranks = _Alone()
"""One process that has all of the data."""


class Together:
    """One of several processes; see `Ranks`."""

    several = True

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self.rank, self.size, self.sharded = mailbox.rank, mailbox.size, mailbox.settings.sharded

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def takes(self, index: int) -> bool:
        self._mailbox.look()
        return index % self.size == self.rank

    def share(self, batches: Iterable[Item], passing: Callable[[Item], None] = _ignored) -> Share[Item]:
        if self.sharded:
            return Share(batches, self.rank, 1, 0, self._mailbox.look, passing)
        return Share(batches, 0, self.size, self.rank, self._mailbox.look, passing)

    def joined(
        self, found: Sequence[tuple[Place, Item]], share: Share[Any], device: torch.device | None = None
    ) -> tuple[list[Item], int]:
        parts = self.gathered((share.seen, list(found)), device)

        def total() -> int:
            counts = [seen for seen, _ in parts]
            if self.sharded:
                return sum(counts)
            if len(set(counts)) > 1:
                raise InputError(
                    f"The ranks read different numbers of batches: {_by_rank(counts)}. With distributed=True, every "
                    "rank must pass a loader of the same batches in the same order; give distributed='sharded' if each "
                    "passes its own part of the data."
                )
            return int(counts[0])

        count = self.from_first(total)
        ordered = sorted((one for _, items in parts for one in items), key=lambda one: one[0])
        return [one for _, one in ordered], count

    def gathered(self, value: Item, device: torch.device | None = None) -> list[Item]:
        return [unpacked(body, device) for body in self._mailbox.round(packed(value), [0])]

    def exchanged(self, value: Item, device: torch.device | None = None) -> list[Item]:
        return [unpacked(body, device) for body in self._mailbox.round(packed(value), range(self.size))]

    def from_first(self, make: Callable[[], Result], device: torch.device | None = None) -> Result:
        if self.is_first:
            made = make()
            self._mailbox.round(packed(made), ())
            return made
        # The own entry is empty; only the first one is read.
        return cast(Result, unpacked(self._mailbox.round(b"", [self.rank], sources=[0])[0], device))

    def outcomes(self, pieces: Sequence[Item], work: Callable[[Item], Result]) -> list[Result]:
        own: dict[int, Result | Ann2SnnError] = {}
        for index in filter(self.takes, range(len(pieces))):
            try:
                own[index] = work(pieces[index])
            except DistributedError:
                raise
            except Ann2SnnError as error:
                own[index] = error
                break
        found = {index: one for part in self.exchanged(own) for index, one in part.items()}
        results: list[Result] = []
        for index in range(len(pieces)):
            one = found[index]
            if isinstance(one, Ann2SnnError):
                raise one
            results.append(one)
        return results

    def whole(self, batches: Iterable[Item]) -> Iterable[Item]:
        return _Whole(self, batches) if self.sharded else batches

    def require_same(self, what: str, why: str, *values: Any) -> None:
        found = self.exchanged(digest(*values))
        other = next((rank for rank, one in enumerate(found) if one != found[0]), None)
        if other is not None:
            raise DistributedError(f"Rank {other} {what} than rank 0. {why}")

    def now(self) -> float:
        return self.from_first(time.monotonic)

    def sent(self, rank: int, value: Any) -> Any:
        """What one rank gives to all."""
        bodies = self._mailbox.round(packed(value) if rank == self.rank else b"", [self.rank], sources=[rank])
        return unpacked(bodies[0])


class _Whole(Iterable[Item]):
    """The parts of all ranks, one after the other; every batch is sent to all."""

    def __init__(self, ranks: Together, batches: Iterable[Item]) -> None:
        self._ranks, self._batches = ranks, batches

    def __iter__(self) -> Iterator[Item]:
        for rank in range(self._ranks.size):
            own = iter(self._batches) if rank == self._ranks.rank else iter(())
            while True:
                found = self._ranks.sent(rank, list(itertools.islice(own, 1)))
                if not found:
                    break
                yield found[0]


def _by_rank(counts: Sequence[int]) -> str:
    return ", ".join(f"{count} on rank {rank}" for rank, count in enumerate(counts))
