"""The calibration samples that the joint correction learns from, with the ANN's answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sj_ann2snn import Trial, map_tensors, tensors

__all__ = ["BATCH", "Samples"]

BATCH = 32
"""Samples per step of gradient descent, and of the ANN at a time."""

KEPT = 1 << 24
"""Numbers of the ANN's answers that are kept at most, for all samples; larger ones are computed again."""


class Samples:
    """Calibration samples, and what the ANN answers to them.

    Args:
        trial: The network on trial.
        count: The largest number of samples.
        mirror: Mirror every image ``[C, H, W]`` left to right half of the time, in all inputs alike.
        shift: Shift it up or down and left or right by so many pixels at most, in all inputs alike; what comes in at
            the edge is the image's own mirror image. Less for images that are too small for that.
    """

    def __init__(self, trial: Trial, count: int, *, mirror: bool, shift: int = 0) -> None:
        inputs = trial.inputs(count)
        self._trial, self._inputs = trial, inputs if isinstance(inputs, tuple) else (inputs,)
        self._sides = (False, True) if mirror and any(_is_image(value) for value in self._inputs) else (False,)
        images = [value for value in self._inputs if _is_image(value)]
        self._shift = min([shift, *(size - 1 for image in images for size in image.shape[2:])]) if images else 0
        self.count = len(self._inputs[0])
        self._kept: dict[bool, Any] = {}

    def rows(self, rows: Tensor, mirrored: Tensor | None = None) -> Any:
        """The samples in `rows`, some of them mirrored, as `Trial.run` takes them."""
        taken = tuple(
            value[rows.to(value.device)] if isinstance(value, Tensor) and value.dim() else value
            for value in self._inputs
        )
        if mirrored is not None:
            taken = tuple(
                torch.where(_along(mirrored, value), value.flip(3), value) if _is_image(value) else value
                for value in taken
            )
        return taken[0] if len(taken) == 1 else taken

    def first(self, count: int) -> Any:
        """The first samples."""
        return self.rows(torch.arange(min(self.count, max(1, count))))

    def unchanged(self, count: int) -> Iterator[tuple[Tensor, Any, Any]]:
        """The first samples, a batch at a time: their rows, the samples and the ANN's answers."""
        for rows in torch.split(torch.arange(min(self.count, count)), BATCH):
            given, kept = self.rows(rows), self._kept.get(False)
            yield rows, given, self._trial.activations(given).output if kept is None else _at(kept, rows)

    def draw(self, rows: Tensor, generator: torch.Generator) -> tuple[Any, Any]:
        """The samples in `rows`, each mirrored by lot, and the ANN's answers to them."""
        mirrored = None
        if len(self._sides) > 1:
            mirrored = torch.rand(len(rows), dtype=torch.float32, generator=generator) < 0.5
        given = self.rows(rows, mirrored)
        if self._shift:
            given = self._shifted(given, len(rows), generator)
            return given, self._trial.activations(given).output
        kept = [self._kept.get(side) for side in self._sides]
        if any(one is None for one in kept):
            return given, self._trial.activations(given).output
        answers = [_at(one, rows) for one in kept]
        return given, answers[0] if mirrored is None else _either(mirrored, *reversed(answers))

    def _shifted(self, given: Any, count: int, generator: torch.Generator) -> Any:
        """Samples whose images are shifted by lot."""
        down, across = (torch.randint(2 * self._shift + 1, (count,), generator=generator) for _ in range(2))
        return map_tensors(
            given, lambda value: shifted(value, down, across, self._shift) if _is_image(value) else value
        )

    def answers(self) -> Iterator[Any]:
        """The ANN's answers to all samples, a batch at a time; kept for `draw` if they are small."""
        for side in self._sides:
            found: list[Any] = []
            for rows in torch.split(torch.arange(self.count), BATCH):
                given = self.rows(rows, torch.full((len(rows),), side) if side else None)
                answer = self._trial.activations(given).output
                if not side:
                    yield answer
                if _is_small(answer, len(rows), self.count):
                    found.append(answer)
            if len(found) * BATCH >= self.count:
                self._kept[side] = _joined(found)


def shifted(images: Tensor, down: Tensor, across: Tensor, most: int) -> Tensor:
    """Images ``[N, C, H, W]``, each of them cut out of itself continued by its mirror image.

    >>> shifted(torch.arange(8.0).reshape(1, 1, 2, 4), torch.tensor([1]), torch.tensor([2]), 1)
    tensor([[[[1., 2., 3., 2.],
              [5., 6., 7., 6.]]]])

    Args:
        images: The images.
        down: ``[N]``, where to begin in the continued images, from 0 to ``2 * most``.
        across: ``[N]``, likewise.
        most: Pixels of the continuation on each side.
    """
    height, columns = images.shape[2:]
    continued = F.pad(images, (most,) * 4, mode="reflect")
    rows, places = (
        (first[:, None] + torch.arange(size)).to(images.device) for first, size in ((down, height), (across, columns))
    )
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    return continued.permute(0, 2, 3, 1)[sample, rows[:, :, None], places[:, None, :]].permute(0, 3, 1, 2)


def _is_image(value: Any) -> bool:
    """True for images ``[N, C, H, W]``."""
    return isinstance(value, Tensor) and value.dim() == 4


def _along(chosen: Tensor, value: Tensor) -> Tensor:
    return chosen.to(value.device).view(-1, *(1,) * (value.dim() - 1))


def _is_small(answer: Any, rows: int, count: int) -> bool:
    """True if every tensor has a row per sample, and those of all samples may be kept."""
    leaves = tensors(answer)
    return (
        all(leaf.dim() and len(leaf) == rows for leaf in leaves)
        and count * sum(leaf[0].numel() for leaf in leaves) <= KEPT
    )


def _joined(answers: list[Any]) -> Any:
    """The answers of all batches in one structure of tensors."""
    columns = zip(*(tensors(answer) for answer in answers), strict=True)
    parts = iter([torch.cat(column) for column in columns])
    return map_tensors(answers[0], lambda _: next(parts))


def _at(answers: Any, rows: Tensor) -> Any:
    return map_tensors(answers, lambda value: value[rows.to(value.device)])


def _either(chosen: Tensor, yes: Any, no: Any) -> Any:
    others = iter(tensors(no))
    return map_tensors(yes, lambda value: torch.where(_along(chosen, value), value, next(others)))
