"""Opens a session: one call of a public function that all processes of a group make together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import DistributedError, OptionError
from .mailbox import Mailbox
from .ranks import ALONE, Ranks, Together
from .settings import Distributed

__all__ = ["together"]

PREFIX = "sj_ann2snn"


@contextmanager
def together(given: object, call: str) -> Iterator[Ranks]:
    """The ranks that share a call; what fails on one of them ends it on all.

    >>> with together(False, "evaluate()") as ranks:
    ...     ranks.several, list(ranks.share("ab"))
    (False, ['a', 'b'])

    Args:
        given: The argument `distributed`.
        call: The function, for messages.

    Raises:
        OptionError: `given` is not allowed, or there is no process group.
        DistributedError: Another rank failed, is lost, or called something else.
    """
    settings = Distributed.of(given)
    if settings is None:
        yield ALONE
        return
    store, rank, size = _group(given)
    mailbox = Mailbox(store, rank, size, settings)
    with mailbox.open():
        ranks = Together(mailbox)
        called = ranks.exchanged((call, settings.sharded))
        other = next((index for index, one in enumerate(called) if one != called[rank]), None)
        if other is not None:
            raise DistributedError(
                f"Rank {rank} called {_said(*called[rank])}, rank {other} {_said(*called[other])}. All ranks of the "
                "group must call the same function with the same distributed=, in the same order."
            )
        yield ranks


def _said(call: str, sharded: bool) -> str:
    return f"{call} with distributed={'sharded' if sharded else True!r}"


def _group(given: object) -> tuple[Any, int, int]:
    """The store of the process group with a prefix for this session, this rank, and the number of ranks."""
    from torch import distributed

    if not distributed.is_available() or not distributed.is_initialized():
        raise OptionError(
            f"distributed={given!r} needs a process group: call torch.distributed.init_process_group(...) first, and "
            "start the script with torchrun or the like."
        )
    store: Any = distributed.distributed_c10d._get_default_store()  # type: ignore[no-untyped-call,unused-ignore]
    if store is None:
        raise OptionError(
            f"distributed={given!r} needs a process group with a store, which the backend "
            f"{distributed.get_backend()} has not. Use gloo or nccl."
        )
    rank = distributed.get_rank()
    number = store.add(f"{PREFIX}/sessions/{rank}", 1)
    made: Any = distributed.distributed_c10d.PrefixStore(f"{PREFIX}/{number}", store)
    return made, rank, distributed.get_world_size()
