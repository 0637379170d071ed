"""What the argument `distributed` means."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import OptionError
from ..support.wording import shown

__all__ = ["Distributed"]

SHARDED = "sharded"


@dataclass(frozen=True)
class Distributed:
    """How the processes of a group share the work: ``distributed=Distributed(timeout=10)``.

    >>> from sj_ann2snn import Distributed
    >>> Distributed(sharded=True).timeout
    60.0

    ``distributed=True`` stands for ``Distributed()``, ``distributed="sharded"`` for ``Distributed(sharded=True)``.

    Attributes:
        sharded: False if all ranks pass the same loader, from which each takes every N-th batch; True if each passes
            its own part of the data. The parts, in the order of the ranks, then stand for the whole loader.
        timeout: Seconds without a sign of life after which a rank counts as lost.
        wait: Seconds to wait for a rank that has not called the function yet.

    Raises:
        OptionError: A value is not allowed.
    """

    sharded: bool = False
    timeout: float = 60.0
    wait: float = 600.0

    def __post_init__(self) -> None:
        if not isinstance(self.sharded, bool):
            raise OptionError(f"Distributed(sharded={shown(self.sharded)}) is not allowed: it must be True or False.")
        for name in ("timeout", "wait"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e7:
                raise OptionError(
                    f"Distributed({name}={shown(value)}) is not allowed: it must be a number of seconds above 0."
                )

    @classmethod
    def of(cls, given: object) -> Distributed | None:
        """The settings that the argument means; None for one process.

        >>> Distributed.of(False) is None, Distributed.of("sharded").sharded
        (True, True)

        Raises:
            OptionError: It is something else.
        """
        if given is None or given is False:
            return None
        if given is True:
            return cls()
        if isinstance(given, cls):
            return given
        if given == SHARDED:
            return cls(sharded=True)
        raise OptionError(
            f"distributed={shown(given)} is not allowed. Allowed are False, True (all ranks pass the same loader), "
            "'sharded' (each rank passes its own part of the data), and Distributed(sharded=, timeout=, wait=)."
        )
