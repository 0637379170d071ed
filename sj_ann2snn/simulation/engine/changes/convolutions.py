"""Convolutions that read changes: each change adds its rows of weights to the mean currents of the neurons behind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....support.shapes import windows_along
from ..compiled.arrays import flat
from ..packed.modules import as_image, as_images
from .layers import NOBODY, receiving
from .values import Changes

__all__ = ["ChangeConvolution", "change_convolution"]

CHANGES = "changes"
"""The loop."""


def change_convolution(module: Any) -> ChangeConvolution | None:
    """A convolution or linear layer that reads changes; None for another layer."""
    found = as_images(module)
    return None if found is None or found.groups > 1 else ChangeConvolution(*found[:-1])


class ChangeConvolution:
    """A convolution of changes with the neurons behind it; several threads may share it.

    Args:
        weight: ``[out, in, window height, window columns]``.
        bias: ``[out]``.
        geometry: Strides down and across, padding above and before.
        dimensions: Of space: 2, 1 or 0.
    """

    reads = Changes
    loop = CHANGES

    def __init__(self, weight: Tensor, bias: Tensor, geometry: tuple[int, ...], dimensions: int = 2) -> None:
        self.bias, self._shape, self._geometry, self.dimensions = bias, tuple(weight.shape), geometry, dimensions
        # One table for each pair of rests of rows and columns by the strides: what the part of the window that leaves
        # them adds to outputs beside each other, the last row and column of the window first.
        (down, across), (rows, columns) = geometry[:2], weight.shape[2:]
        tables = [
            weight[:, :, rest_down::down, rest_across::across].flip(2, 3).permute(1, 2, 3, 0).reshape(-1)
            for rest_down in range(min(down, rows))
            for rest_across in range(min(across, columns))
        ]
        self._weights = flat(torch.cat(tables))

    @property
    def margins(self) -> tuple[int, int]:
        """Positions above and below, and to both sides of the outputs that windows may reach."""
        (rows, columns), (down, across) = self._shape[2:], self._geometry[:2]
        return math.ceil((rows - 1) / down), math.ceil((columns - 1) / across)

    def out(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape ``(T, N, C, ...)`` of its output for an input of such a shape; None if it has none."""
        steps, samples, inputs, *places = shape
        outputs, own, *window = self._shape
        if len(places) != self.dimensions or inputs != own:
            return None
        sizes = zip(as_image(tuple(places), 1), window, self._geometry[:2], self._geometry[2:], strict=True)
        size = [windows_along(*one) for one in sizes]
        if min(size) < 1:
            return None  # the module raises the error
        return (steps, samples, outputs, *size[2 - self.dimensions :])

    def source(self, changes: Changes) -> tuple[Any, ...]:
        """What the loop takes."""
        geometry = (self._shape[1], *as_image(changes.shape[3:], 1), *self._shape[2:], *self._geometry)
        return *changes.arguments, self._weights, geometry

    def __call__(
        self,
        changes: Changes,
        addend: Changes | None = None,
        factors: Tensor | None = None,
        second: ChangeConvolution | None = None,
        neuron: Any = None,
    ) -> Changes | None:
        """The changes that a neuron sends for the currents of this convolution, and of what is added to them.

        Args:
            changes: The input.
            addend: Other changes.
            factors: ``[C]``, by which they are multiplied.
            second: A convolution of the `addend`, instead.
            neuron: A neuron for which `emits_changes` is true.

        Returns:
            None if this does not apply.
        """
        from .kernels import CONVOLVED, NOTHING, SCALED, charge_changes

        shape = self.out(changes.shape)
        if shape is None:
            return None
        kind, other, margins, bias = NOTHING, NOBODY, self.margins, self.bias
        listed = [changes.shape]
        if addend is not None and second is not None:
            if second.out(addend.shape) != shape:
                return None
            kind, other = CONVOLVED, second.source(addend)
            margins = max(margins[0], second.margins[0]), max(margins[1], second.margins[1])
            bias = bias + second.bias
            listed.append(addend.shape)
        elif addend is not None:
            if tuple(addend.shape) != shape:
                return None
            by_channel = torch.ones_like(bias) if factors is None else factors
            kind, other = SCALED, (*addend.arguments, flat(by_channel.repeat(as_image(shape[3:], 1)[1])))
        found = receiving(neuron, shape[1:])
        if found is None or (found.clock and found.mean is None):
            return None
        steps, samples, outputs, *places = shape
        height, columns = as_image(tuple(places), 1)
        means = found.mean
        if means is None:  # a copy, whatever the shape: the loop writes into it
            means = bias.expand(found.value.shape).clone(memory_format=torch.contiguous_format)
        out = found.out(steps)
        above, before = margins
        padded = (height + 2 * above) * (columns + 2 * before) * outputs
        numbers = max(math.prod(one[2:]) for one in listed)
        most = 1 + max(math.prod(one[3:]) for one in listed)
        lists = (
            np.empty(numbers + 1, dtype=np.int32),
            np.empty(numbers + 1, dtype=np.float32),
            *(np.empty(most, dtype=np.int64) for _ in range(5)),
        )
        memory = flat(torch.zeros(padded, dtype=torch.float32)), np.empty(height + 2 * above, dtype=np.uint8), lists
        found.run(
            charge_changes(CONVOLVED, kind),
            (self.source(changes), other),
            flat(means),
            flat(found.value),
            out.arguments,
            found.constants,
            memory,
            (steps, samples, outputs, height, columns, *margins),
        )
        found.leave(neuron, steps, means)
        return out
