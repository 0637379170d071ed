"""The samples to diagnose with, in chunks that fit into memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..evaluation.labels import ClassLabels
from ..support.batches import Signature, describe_batch, forward_signature, move, to_full_precision
from ..support.loaders import Batches

__all__ = ["Chunk", "cut", "read_samples"]


@dataclass(frozen=True)
class Chunk:
    """Samples that are computed together.

    Attributes:
        inputs: The network's inputs.
        labels: Their labels; None if there are none.
    """

    inputs: tuple[Any, ...]
    labels: ClassLabels | None

    @property
    def samples(self) -> int:
        """Their number."""
        return int(self.inputs[0].shape[0])


def read_samples(
    ann: nn.Module, data: Iterable[Any], most: int, labels: bool | None, device: torch.device
) -> tuple[Signature, list[Chunk]]:
    """The first samples of `data`, and the inputs of the network.

    Args:
        ann: The ANN.
        data: Batches.
        most: Number of samples.
        labels: True if they must have labels, False to ignore labels, None to take them if there are any.
        device: Where to put the inputs.

    Raises:
        InputError: It is no iterable of batches, is empty, does not fit the network, or has no labels.
    """
    signature: Signature | None = None
    found: list[Chunk] = []
    left = most
    for index, batch in enumerate(Batches(data, "The data", "diagnose(ann, snn, data, T)", InputError)):
        signature = signature or forward_signature(ann, batch)
        try:
            inputs = tuple(move(to_full_precision(value), device) for value in signature.inputs_of(batch))
            if not inputs[0].dim() or not inputs[0].shape[0]:
                raise InputError(f"It holds no samples: {describe_batch(batch)}.")
            chunk = Chunk(inputs, _labels(signature, batch, int(inputs[0].shape[0]), labels))
        except InputError as error:
            raise InputError(f"Batch {index} cannot be diagnosed. {error}") from error
        found += cut(chunk, min(left, chunk.samples))[:1]
        left -= found[-1].samples
        if left <= 0:
            break
    if signature is None:
        raise InputError("The data is empty: it yields no batches to diagnose.")
    if any(chunk.labels is None for chunk in found):
        found = [Chunk(chunk.inputs, None) for chunk in found]
    return signature, found


def cut(chunk: Chunk, samples: int) -> list[Chunk]:
    """The chunk in pieces of at most that many samples."""
    count = chunk.samples
    if count <= samples:
        return [chunk]
    return [_part(chunk, slice(start, min(start + samples, count)), count) for start in range(0, count, samples)]


def _part(chunk: Chunk, part: slice, count: int) -> Chunk:
    def taken(value: Any) -> Any:
        return value[part] if isinstance(value, Tensor) and value.dim() and value.shape[0] == count else value

    labels = chunk.labels
    rows = None if labels is None else ClassLabels(labels.indices[part], part.stop - part.start)
    return Chunk(tuple(taken(value) for value in chunk.inputs), rows)


def _labels(signature: Signature, batch: Any, samples: int, wanted: bool | None) -> ClassLabels | None:
    if wanted is False:
        return None
    try:
        found = signature.targets_of(batch)
        return ClassLabels(found[0] if isinstance(found, tuple) else found, samples)
    except InputError as error:
        if wanted:
            raise InputError(
                f"labels=True asks for class labels. {error} Without the argument, the outputs are compared with the "
                "ANN's."
            ) from error
        return None


def require_labels(chunks: Sequence[Chunk], classes: int) -> None:
    """Check that all labels are among the classes.

    Raises:
        InputError: They are not.
    """
    for chunk in chunks:
        if chunk.labels is not None:
            chunk.labels.require_classes(classes)
