"""Transposed convolutions of spikes in bits, as convolutions for each position between two inputs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ....compat import layer
from ....support.exact_sums import sums_are_exact
from ..packed.modules import as_image, is_watched
from .convolutions import PackedConvolution
from .values import PackedBits

__all__ = ["PackedTransposed", "transposed_convolution"]

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, layer.ConvTranspose1d, layer.ConvTranspose2d)


def transposed_convolution(module: Any, averaged: int = 1) -> PackedTransposed | None:
    """A transposed convolution for packed spikes; None if it is of another kind, or if its sums are not exact.

    Args:
        module: The layer.
        averaged: How many spikes an average pool in front of it takes together.
    """
    if type(module) not in TRANSPOSED or is_watched(module) or module.groups != 1 or set(module.dilation) != {1}:
        return None
    weight = module.weight.detach()
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        return None
    if any(padding >= size for padding, size in zip(module.padding, weight.shape[2:], strict=True)):
        return None
    bias = torch.zeros(weight.shape[1]) if module.bias is None else module.bias.detach()
    found = PackedTransposed(module, weight, bias.float())
    return found if sums_are_exact(found.weight, found.bias, averaged) else None


class _Axis(NamedTuple):
    """How an axis is computed: with a margin at either end, and of the outputs those from the first on."""

    margin: int
    first: int
    end: int


class PackedTransposed:
    """A transposed convolution of packed spikes; several threads may share it.

    Of every `stride` outputs side by side, the first reads other weights than the second: they are channels of a
    convolution with a stride of one, which then go to their places.

    Args:
        module: The layer.
        weight: Its weights ``[in, out, ...]``.
        bias: ``[out]``.
    """

    reads = PackedBits

    def __init__(self, module: Any, weight: Tensor, bias: Tensor) -> None:
        self.dimensions, self._outputs = weight.dim() - 2, weight.shape[1]
        self._stride, self._padding, self._more = (
            as_image(tuple(getattr(module, name)), fill)
            for name, fill in (("stride", 1), ("padding", 0), ("output_padding", 0))
        )
        self._window = as_image(tuple(weight.shape[2:]), 1)
        self.weight = _by_phase(weight.view(*weight.shape[:2], *self._window), self._stride)
        """``[strides * out, in, taps down, taps across]``."""
        self.bias = bias.repeat(math.prod(self._stride))
        self._taps = self.weight.shape[2:]
        self._convolutions: dict[tuple[int, int], PackedConvolution] = {}
        """By the padding that they need for an input."""
        self.loop = ""
        """The loop of the last call."""

    def __call__(self, spikes: PackedBits, *behind: Any) -> Tensor | None:
        """The currents ``[T, N, C, ...]``; None if this does not apply, as where neurons are `behind`.

        Args:
            spikes: The input.
            behind: See `PackedConvolution`.
        """
        if any(one is not None for one in behind) or len(spikes.shape) - 3 != self.dimensions:
            return None
        if spikes.shape[2] != self.weight.shape[1]:
            return None
        inputs = as_image(tuple(spikes.shape[3:]), 1)
        axes = [self._along(axis, length) for axis, length in enumerate(inputs)]
        margins = axes[0].margin, axes[1].margin
        if margins not in self._convolutions:
            geometry = (1, 1, *margins)
            self._convolutions[margins] = PackedConvolution(self.weight, self.bias, geometry, self.dimensions)
        convolution = self._convolutions[margins]
        found: Any = convolution(spikes)
        self.loop = convolution.loop
        if found is None:
            return None
        steps, samples = found.shape[:2]
        places = as_image(tuple(found.shape[3:]), 1)
        apart = found.movedim(2, -1).reshape(steps, samples, *places, *self._stride, self._outputs)
        rows, columns = (places[axis] * self._stride[axis] for axis in range(2))
        together = apart.permute(0, 1, 2, 4, 3, 5, 6).reshape(steps, samples, rows, columns, self._outputs)
        cut: Tensor = together[:, :, axes[0].first : axes[0].end, axes[1].first : axes[1].end].contiguous()
        return cut.view(steps, samples, *cut.shape[4 - self.dimensions : 4], self._outputs).movedim(-1, 2)

    def _along(self, axis: int, length: int) -> _Axis:
        """Where the outputs lie along an axis for an input of that length."""
        stride, padding, window = self._stride[axis], self._padding[axis], self._window[axis]
        taps = self._taps[axis]
        size = (length - 1) * stride - 2 * padding + window + self._more[axis]
        # Output j belongs to the group q of `stride` outputs that (j + padding) / stride gives; it reads the inputs
        # from q - taps + 1 to q.
        last = (size - 1 + padding) // stride
        margin = max(taps - 1, last - length + 1)
        first = padding + (margin - taps + 1) * stride
        return _Axis(margin, first, first + size)


def _by_phase(weight: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The weights ``[strides * out, in, taps down, taps across]`` of a transposed convolution's ``[in, out, ...]``.

    >>> _by_phase(torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3), (1, 2)).flatten(1)
    tensor([[3., 1.],
            [0., 2.]])
    """
    inputs, outputs, *window = weight.shape
    taps = [math.ceil(size / step) for size, step in zip(window, stride, strict=True)]
    whole = weight.new_zeros(inputs, outputs, *(count * step for count, step in zip(taps, stride, strict=True)))
    whole[:, :, : window[0], : window[1]] = weight
    apart = whole.view(inputs, outputs, taps[0], stride[0], taps[1], stride[1])
    phases = apart.permute(3, 5, 1, 0, 2, 4).flip(4, 5)
    return phases.reshape(math.prod(stride) * outputs, inputs, *taps)
