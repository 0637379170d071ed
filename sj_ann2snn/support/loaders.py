"""Iterates over a loader of the caller's, and says so if it is none, or if it fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from ..errors import Ann2SnnError
from .batches import describe_batch
from .neutral import as_caller
from .wording import described

__all__ = ["Batches"]


class Batches:
    """The batches of a loader, which may be iterated as often as the loader itself.

    >>> list(Batches([1, 2], "The data", "f(data)", ValueError))
    [1, 2]

    Args:
        loader: What the caller gave.
        what: What it is, for messages: ``"The calibration data"``.
        taker: The call that takes it, for messages.
        error: The error to raise.

    Raises:
        error: `loader` is not an iterable of batches; or, during an iteration, it fails.
    """

    def __init__(self, loader: Any, what: str, taker: str, error: type[Exception]) -> None:
        self.loader, self._what, self._taker, self._error = loader, what, taker, error
        if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
            raise self._refusal("which holds single samples: give DataLoader(dataset, batch_size=...)")
        if isinstance(loader, (Tensor, np.ndarray, Mapping)):
            raise self._refusal("which is one batch at most: give a list of batches, [batch]")
        if isinstance(loader, (nn.Module, str, bytes)):  # a Sequential can be iterated, but not over batches
            raise self._refusal()

    def __iter__(self) -> Iterator[Any]:
        """
        Raises:
            error: The loader fails. Its own exception is the cause.
        """
        index = 0
        try:
            try:
                opened = as_caller(self.loader)
            except TypeError as error:
                raise self._refusal() from error
            for batch in opened:
                yield batch
                index += 1
        except (Ann2SnnError, self._error):
            raise
        except Exception as error:
            raise self._error(f"{self._what} cannot be read: batch {index} fails with {described(error)}.") from error

    def length(self) -> int | None:
        """The number of batches; None if the loader does not know it."""
        try:
            return len(self.loader)
        except Exception:
            return None

    def _refusal(self, why: str = "") -> Exception:
        return self._error(
            f"{self._what} is {describe_batch(self.loader)}{f', {why}' if why else ''}. {self._taker} takes an "
            "iterable of batches, such as a DataLoader or a list."
        )
