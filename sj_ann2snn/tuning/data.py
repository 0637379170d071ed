"""The samples of a search, cut into small batches that are shared out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..distributed.ranks import ALONE, Ranks
from ..errors import InputError
from ..support.batches import Signature, forward_signature, samples_of
from ..support.loaders import Batches
from ..support.trees import map_tensors, tensors

__all__ = ["Samples", "read_samples"]

PIECE = 64
"""Samples in a batch at most."""

PIECES = 20
"""Batches at least, so that they can be shared out, if there are as many samples."""


@dataclass(frozen=True)
class Samples:
    """Batches to choose by, and batches to judge by.

    Attributes:
        search: Batches to choose by.
        held_out: Batches that no choice depends on.
        labelled: True if they hold targets.
    """

    search: list[Any]
    held_out: list[Any]
    labelled: bool
    signature: Signature

    def count(self, batches: Iterable[Any]) -> int:
        """The number of samples in some of the batches."""
        return sum(samples_of(self.signature.inputs_of(batch)) for batch in batches)

    def part(self, at_least: int) -> list[Any]:
        """Some of the batches to choose by, evenly spread, with at least so many samples if there are as many."""
        total = self.count(self.search)
        if at_least >= total:
            return self.search
        wanted = max(1, round(at_least * len(self.search) / total))
        return [self.search[(2 * index + 1) * len(self.search) // (2 * wanted)] for index in range(wanted)]


def read_samples(ann: nn.Module, data: Iterable[Any], most: int, share: float, ranks: Ranks = ALONE) -> Samples:
    """The first samples of `data`.

    Args:
        ann: The network that takes them.
        data: Batches.
        most: Number of samples.
        share: Share of the samples to hold out.
        ranks: The processes, all of which need the samples.

    Raises:
        InputError: It is no iterable of batches, holds too few samples, or does not fit the network.
    """
    signature: Signature | None = None
    whole: list[tuple[Any, int]] = []
    left = most
    for index, batch in enumerate(ranks.whole(Batches(data, "The data", "tune(ann, data)", InputError))):
        signature = signature or forward_signature(ann, batch)
        try:
            count = samples_of(signature.inputs_of(batch))
        except InputError as error:
            raise InputError(f"Batch {index} cannot be used. {error}") from error
        whole.append((batch, count))
        left -= count
        if left <= 0:
            break
    if signature is None:
        raise InputError("The data is empty: it yields no batches to tune with.")
    size = min(PIECE, max(1, (most - max(0, left)) // PIECES))
    found: list[Any] = []
    for batch, count in whole:
        found += _cut(batch, count, size)
    if left < 0 and len(found) > 1:
        found = found[: max(2, len(found) - -left // size)]
    held = [int((index + 1) * share) > int(index * share) for index in range(len(found))]
    search = [batch for batch, out in zip(found, held, strict=True) if not out]
    held_out = [batch for batch, out in zip(found, held, strict=True) if out]
    if not search or (share and not held_out):
        raise InputError(
            f"The data makes {len(found)} batch{'es' if len(found) != 1 else ''}, which cannot be shared out into "
            f"those to choose by and those to judge by (held_out={share:g}). Give more samples, or smaller batches."
        )
    return Samples(search, held_out, _is_labelled(signature, found[0]), signature)


def _cut(batch: Any, count: int, size: int) -> list[Any]:
    """A batch in pieces of at most `size` samples, or as it is if it cannot be cut."""
    if count <= size or any(not x.dim() or len(x) != count for x in tensors(batch)) or not _only_tensors(batch):
        return [batch]

    def piece(start: int) -> Any:
        def taken(x: Tensor) -> Tensor:
            return x[start : start + size]

        return map_tensors(batch, taken)

    return [piece(start) for start in range(0, count, size)]


def _only_tensors(batch: Any) -> bool:
    """True if a batch holds tensors and None only, nested in any way."""
    if isinstance(batch, dict):
        return _only_tensors(list(batch.values()))
    if isinstance(batch, (list, tuple)):
        return all(map(_only_tensors, batch))
    return batch is None or isinstance(batch, Tensor)


def _is_labelled(signature: Signature, batch: Any) -> bool:
    try:
        signature.targets_of(batch)
    except InputError:
        return False
    return True
