"""The samples to diagnose with, in chunks that fit into memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..distributed.ranks import ALONE, Ranks
from ..errors import InputError
from ..evaluation.ann_outputs import AnnOutputs
from ..evaluation.metrics.targets import Targets
from ..support.batches import (
    Signature,
    describe_batch,
    forward_signature,
    move,
    rows_of_inputs,
    samples_of,
    to_full_precision,
)
from ..support.loaders import Batches
from ..support.trees import map_tensors, tensors
from .scores import Wanted

__all__ = ["Chunk", "cut", "read_samples", "without_targets"]


@dataclass(frozen=True)
class Chunk:
    """Samples of one batch that are computed together.

    Attributes:
        inputs: The network's inputs.
        rows: Which samples of the batch they are.
        targets: What the answers of the batch are compared with; None if there is nothing.
        batch: The number of the batch.
    """

    inputs: tuple[Any, ...]
    rows: slice
    targets: Targets | None = None
    batch: int = 0

    @property
    def samples(self) -> int:
        """Their number."""
        return int(self.rows.stop - self.rows.start)

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the inputs."""
        return tensors(self.inputs)


def read_samples(
    ann: nn.Module, data: Iterable[Any], most: int, wanted: Wanted, device: torch.device, ranks: Ranks = ALONE
) -> tuple[Signature, list[Chunk]]:
    """The first samples of `data`, one chunk for each batch, and the inputs of the network.

    Args:
        ann: The ANN.
        data: Batches.
        most: Number of samples.
        wanted: What to measure.
        device: Where to put the inputs.
        ranks: The processes, all of which need the samples.

    Raises:
        InputError: It is no iterable of batches, is empty, does not fit the network, or has no targets.
    """
    signature: Signature | None = None
    found: list[Chunk] = []
    left = most
    for index, batch in enumerate(ranks.whole(Batches(data, "The data", "diagnose(ann, snn, data, T)", InputError))):
        signature = signature or forward_signature(ann, batch)
        try:
            inputs = tuple(
                map_tensors(value, lambda x: move(to_full_precision(x), device)) for value in signature.inputs_of(batch)
            )
            count = samples_of(inputs) if tensors(inputs)[0].dim() else 0
            if not count:
                raise InputError(f"It holds no samples: {describe_batch(batch)}.")
            taken = min(left, count)
            inputs = rows_of_inputs(inputs, slice(0, taken), count)
            targets = _targets(signature, batch, inputs, count, taken, wanted, ann)
        except InputError as error:
            raise InputError(f"Batch {index} cannot be diagnosed. {error}") from error
        found.append(Chunk(inputs, slice(0, taken), targets, index))
        left -= taken
        if left <= 0:
            break
    if signature is None:
        raise InputError("The data is empty: it yields no batches to diagnose.")
    if any(chunk.targets is None for chunk in found):
        found = without_targets(found)
    return signature, found


def without_targets(chunks: Sequence[Chunk]) -> list[Chunk]:
    """The chunks without anything to compare the answers with."""
    return [replace(chunk, targets=None) for chunk in chunks]


def cut(chunk: Chunk, samples: int) -> list[Chunk]:
    """The chunk in pieces of at most that many samples."""
    count, first = chunk.samples, chunk.rows.start
    if count <= samples:
        return [chunk]
    parts = (slice(start, min(start + samples, count)) for start in range(0, count, samples))
    return [
        replace(
            chunk,
            inputs=rows_of_inputs(chunk.inputs, part, count),
            rows=slice(first + part.start, first + part.stop),
        )
        for part in parts
    ]


def _targets(
    signature: Signature,
    batch: Any,
    inputs: tuple[Any, ...],
    count: int,
    taken: int,
    wanted: Wanted,
    ann: nn.Module,
) -> Targets | None:
    """What the answers to the first samples of a batch are compared with."""
    if not wanted.measures:
        return None
    if wanted.against_ann:
        judge = AnnOutputs(ann)  # for this batch alone: the next may give another structure
        return Targets(judge(batch, inputs), taken, of_ann=True, restore=judge.restore)
    try:
        found = signature.targets_of(batch)
    except InputError as error:
        if wanted.required:
            raise InputError(
                f"It holds {describe_batch(batch)} and no labels or other targets, which {wanted.why} asks for. Give "
                "batches of (input, target), or compare with the ANN's outputs: against_ann=True (--against-ann)."
            ) from error
        return None
    return Targets(found if taken == count else _first_rows(found, taken, count), taken)


def _first_rows(found: Any, taken: int, count: int) -> Any:
    """The targets of the first samples among those of a batch of `count`, however they are nested."""
    if isinstance(found, Mapping):
        return {key: _first_rows(value, taken, count) for key, value in found.items()}
    if isinstance(found, (tuple, list)):
        # A list with one entry per sample is cut; one with targets of all samples in every entry holds such targets.
        several = isinstance(found, tuple) or all(_rows(value) == count for value in found)
        if several or len(found) != count:
            parts = [_first_rows(value, taken, count) for value in found]
            return type(found)(*parts) if hasattr(found, "_fields") else type(found)(parts)
        return found[:taken]
    return found[:taken] if _rows(found) == count and not isinstance(found, str) else found


def _rows(value: Any) -> int | None:
    try:
        return len(value)
    except TypeError:
        return None
