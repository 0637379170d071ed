"""Values of neurons that send changes: only the changes are stored, and only of steps and positions that have any."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ....support.compiled import compiled_loop
from ..compiled.arrays import flat
from ..packed.repeated import Repeated
from ..packed.values import Packed

__all__ = ["Changes"]


class Changes(Packed):
    """Outputs ``a + t q`` of neurons of a `ChangeLoop` over the steps of a group, by their changes q.

    Args:
        sent: The changes, ``[images, ..., C]``, in single precision: an image for each sample and step in which there
            is a change, in the order of samples and steps. Only lines with a change can be read.
        live: Which positions have a change, ``[images, positions]``, uint8.
        images: The image of a step and a sample, ``[T, N]``, int32; -1 if there is no change.
        before: How many steps there were before these.
        start: The values then, ``[N, ..., C]``; None if they are zero.
    """

    size = 1  # most steps have no changes

    def __init__(self, sent: Tensor, live: Tensor, images: Tensor, before: int, start: Tensor | None) -> None:
        steps, samples = images.shape
        *places, channels = sent.shape[1:]
        super().__init__((steps, samples, channels, *places))
        self.sent, self.live, self.images = sent, live, images
        self.before, self.start = before, start
        self._repeated: Repeated | None = None

    @staticmethod
    def empty(shape: tuple[int, ...], before: int = 0, start: Tensor | None = None) -> Changes:
        """Memory for the changes of neurons ``(T, N, C, ...)``."""
        steps, samples, channels, *places = shape
        sent = torch.empty(steps * samples, *places, channels, dtype=torch.float32)
        live = torch.empty(steps * samples, sent[0].numel() // channels, dtype=torch.uint8)
        return Changes(sent, live, torch.empty(steps, samples, dtype=torch.int32), before, start)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The memory, as loops take it."""
        return flat(self.sent), flat(self.live), flat(self.images)

    def per_step(self) -> Tensor:
        """The number of changes at every step, ``[T]``, in int64."""
        from .kernels import count_changes

        steps, samples, channels, *_ = self.shape
        found = torch.zeros(steps, dtype=torch.int64)
        loop: Any = compiled_loop(count_changes)
        loop(*self.arguments, found.numpy(), channels, samples)
        return found

    def active_per_step(self, weights: Tensor) -> Tensor:
        from .kernels import count_outputs

        found = torch.zeros(self.shape[0], dtype=torch.int64)
        loop: Any = compiled_loop(count_outputs)
        counted = flat(weights.flatten().long()), found.numpy()
        loop(*self.arguments, flat(self.values()), *counted, self.before, self.shape[2])
        return found

    def values(self) -> Tensor:
        """The values before these steps: memory of its own."""
        _, samples, channels, *places = self.shape
        if self.start is not None:
            return self.start.clone()
        return torch.zeros(samples, *places, channels, dtype=torch.float32)

    def repeated(self) -> Repeated:
        """The outputs, once for all steps without a change."""
        if self._repeated is None:
            self._repeated = self._written()
        return self._repeated

    def _numbers(self) -> Tensor:
        return self.repeated().unpacked()

    def _written(self) -> Repeated:
        from .kernels import write_outputs

        steps, samples, channels, *places = self.shape
        changed = [
            False,
            *(self.images >= 0).any(1).tolist(),
        ]  # an output differs in the step of a change and behind it
        starts = tuple(step for step in range(steps) if not step or changed[step] or changed[step + 1])
        numbers = torch.empty(len(starts), samples, *places, channels, dtype=torch.float32)
        rows = torch.full((steps,), -1, dtype=torch.int64)
        rows[list(starts)] = torch.arange(len(starts))
        loop: Any = compiled_loop(write_outputs)
        sizes = (steps, samples, channels)
        loop(*self.arguments, flat(self.values()), rows.numpy(), flat(numbers), self.before, sizes)
        return Repeated(numbers.movedim(-1, 2), starts, steps)
