"""Convolutions that read changes: each change adds its rows of weights to the mean currents of the neurons behind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....support.shapes import windows_along
from ..compiled.arrays import flat
from ..compiled.constants import LANES
from ..packed.modules import is_plain_convolution, zeros_around
from .layers import NOBODY, receiving
from .values import Changes

__all__ = ["ChangeConvolution", "change_convolution"]

CHANGES = "changes"
"""The loop."""


def change_convolution(module: Any) -> ChangeConvolution | None:
    """A convolution of images that reads changes; None for another layer."""
    if not is_plain_convolution(module) or module.out_channels % LANES:
        return None
    weight = module.weight.detach()
    bias = torch.zeros(len(weight), dtype=torch.float32) if module.bias is None else module.bias.detach()
    return ChangeConvolution(weight, bias, (*module.stride, *(zeros_around(module) or ())))


class ChangeConvolution:
    """A convolution of changes with the neurons behind it; several threads may share it.

    Args:
        weight: ``[out, in, window height, window columns]``.
        bias: ``[out]``.
        geometry: Strides down and across, padding above and before.
    """

    reads = Changes
    loop = CHANGES

    def __init__(self, weight: Tensor, bias: Tensor, geometry: tuple[int, ...]) -> None:
        self.bias, self._shape, self._geometry = bias, tuple(weight.shape), geometry
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
        """The shape ``(T, N, C, height, columns)`` of its output for an input of such a shape; None if it has none."""
        steps, samples, inputs, *places = shape
        outputs, own, *window = self._shape
        if len(places) != 2 or inputs != own:
            return None
        size = [windows_along(*one) for one in zip(places, window, self._geometry[:2], self._geometry[2:], strict=True)]
        return (steps, samples, outputs, *size) if min(size) > 0 else None  # the module raises the error

    def source(self, changes: Changes) -> tuple[Any, ...]:
        """What the loop takes."""
        geometry = (self._shape[1], *changes.shape[3:], *self._shape[2:], *self._geometry)
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
            kind, other = SCALED, (*addend.arguments, flat(by_channel.repeat(shape[-1])))
        found = receiving(neuron, shape[1:])
        if found is None or (found.clock and found.mean is None):
            return None
        steps, samples, outputs, height, columns = shape
        means = found.mean
        if means is None:  # a copy, whatever the shape: the loop writes into it
            means = bias.expand(found.value.shape).clone(memory_format=torch.contiguous_format)
        out = found.out(steps)
        above, before = margins
        padded = (height + 2 * above) * (columns + 2 * before) * outputs
        numbers = max(inputs * rows * across for _, _, inputs, rows, across in listed)
        places = 1 + max(rows * across for _, _, _, rows, across in listed)
        lists = (
            np.empty(numbers + 1, dtype=np.int32),
            np.empty(numbers + 1, dtype=np.float32),
            *(np.empty(places, dtype=np.int64) for _ in range(5)),
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
