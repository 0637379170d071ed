"""Convolutions with gaps in their windows, of spikes in bits, as convolutions of images without them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....support.exact_sums import sums_are_exact
from ....support.shapes import windows_along
from ..packed.modules import CONVOLUTIONS, as_image, is_watched, zeros_around
from .convolutions import PackedConvolution
from .values import PackedBits

__all__ = ["PackedDilated", "dilated_convolution"]


def dilated_convolution(module: Any, averaged: int = 1) -> PackedDilated | None:
    """A convolution with gaps in its windows and a stride of one for packed spikes; None if it is of another kind, or
    if its sums are not exact.

    Args:
        module: The layer.
        averaged: How many spikes an average pool in front of it takes together.
    """
    if type(module) not in CONVOLUTIONS or is_watched(module) or module.groups != 1 or set(module.stride) != {1}:
        return None
    padding = zeros_around(module)
    if set(module.dilation) == {1} or padding is None:
        return None
    weight = module.weight.detach()
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        return None
    bias = torch.zeros(len(weight), dtype=torch.float32) if module.bias is None else module.bias.detach()
    return PackedDilated(module, padding, weight, bias) if sums_are_exact(weight, bias, averaged) else None


class PackedDilated:
    """A convolution of packed spikes with gaps in its windows; several threads may share it.

    A window reads every d-th position, so the positions whose numbers leave the same rest by d are an image of their
    own, in which it has no gaps.

    Args:
        module: The layer.
        padding: Zeros around images or lines.
        weight: Its weights ``[out, in, ...]``.
        bias: ``[out]``.
    """

    reads = PackedBits

    def __init__(self, module: Any, padding: tuple[int, ...], weight: Tensor, bias: Tensor) -> None:
        self.dimensions, self._inputs = weight.dim() - 2, weight.shape[1]
        self._window = as_image(tuple(weight.shape[2:]), 1)
        self._padding, self._gaps = as_image(padding, 0), as_image(tuple(module.dilation), 1)
        of_images = weight.view(*weight.shape[:2], *self._window)
        self._convolution = PackedConvolution(of_images, bias, (1, 1, 0, 0))

    @property
    def loop(self) -> str:
        """The loop of the last call."""
        return self._convolution.loop

    def __call__(self, spikes: PackedBits, *behind: Any) -> Tensor | None:
        """The currents ``[T, N, C, ...]``; None if this does not apply, as where neurons are `behind`.

        Args:
            spikes: The input.
            behind: See `PackedConvolution`.
        """
        if any(one is not None for one in behind) or len(spikes.shape) - 3 != self.dimensions:
            return None
        steps, samples, channels, *places = spikes.shape
        height, columns = as_image(tuple(places), 1)
        (above, before), (down, across) = self._padding, self._gaps
        sizes = zip((height, columns), self._window, (1, 1), self._padding, self._gaps, strict=True)
        out_height, out_columns = (windows_along(*one) for one in sizes)
        if channels != self._inputs or min(out_height, out_columns) < 1:
            return None
        below, beyond = (
            padding + -(length + 2 * padding) % gap
            for length, padding, gap in ((height, above, down), (columns, before, across))
        )
        bits = spikes.bits
        images = bits.reshape(-1, height, columns, bits.shape[-1])
        padded = F.pad(images, (0, 0, before, beyond, above, below))
        small = padded.shape[1] // down, padded.shape[2] // across
        apart = padded.view(len(padded), small[0], down, small[1], across, -1).permute(0, 2, 4, 1, 3, 5).contiguous()
        planes = bits.shape[: bits.dim() - len(spikes.shape) + 1]  # if there are some, and steps
        found: Any = self._convolution(
            spikes.stored_as(apart.view(*planes, samples * down * across, *small, bits.shape[-1]))
        )
        if found is None:
            return None
        inner = found.movedim(2, -1)
        size = inner.shape[2:4]
        together = inner.reshape(steps, samples, down, across, *size, -1).permute(0, 1, 4, 2, 5, 3, 6)
        whole = together.reshape(steps, samples, size[0] * down, size[1] * across, -1)
        cut: Tensor = whole[:, :, :out_height, :out_columns].contiguous()
        return cut.view(steps, samples, *cut.shape[4 - self.dimensions : 4], cut.shape[-1]).movedim(-1, 2)
