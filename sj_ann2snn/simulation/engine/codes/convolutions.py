"""Convolutions and linear layers of spikes in bytes, by a kernel for Triton."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn

from ....compat import layer
from ....support.exact_sums import exact_grid, sums_are_exact
from ....support.shapes import windows_along
from ..compiled.arrays import channels_innermost
from ..compiled.constants import BOUNDED
from ..packed.modules import is_watched, zeros_around
from ..packed.neurons import limits, no_limits, potential_of
from .launch import KERNELS, launch
from .layers import fire_codes
from .values import Codes

__all__ = ["TritonConvolution", "triton_convolution"]

BASE = 256
"""Of the digits of weights: a digit is a byte."""

MOST_DIGITS = 4
"""Of integers of 25 bits: 24 and a sign."""

PLACES, OUTPUTS, TERMS = 64, 64, 64
"""Positions, outputs and terms of a sum in a block of a product, at most."""

FEW_OUTPUTS = 32
"""Outputs in a block where there are few blocks."""

FEWEST = 16, 32
"""Outputs and terms in a block, at least, for products of bytes."""

FULL = 8
"""Blocks for each multiprocessor that keep it busy."""


def triton_convolution(module: Any, averaged: int = 1) -> TritonConvolution | None:
    """A convolution or linear layer for spikes in bytes; None if it is of another kind, or if its sums are not exact.

    Args:
        module: The layer.
        averaged: How many spikes an average pool in front of it takes together.
    """
    if type(module) in (nn.Linear, layer.Linear):
        weight = module.weight[:, :, None, None]
        geometry = (1, 1, 0, 0, 1, 1)
    elif type(module) in (nn.Conv2d, layer.Conv2d):  # a subclass may compute something else
        padding = zeros_around(module)
        if padding is None or module.groups != 1:
            return None
        weight, geometry = module.weight, (*module.stride, *padding, *module.dilation)
    else:
        return None
    weight = weight.detach()
    if weight.dtype != torch.float32 or is_watched(module):
        return None
    bias = weight.new_zeros(len(weight)) if module.bias is None else module.bias.detach()
    if not sums_are_exact(weight, bias, averaged):
        return None
    grid = exact_grid(weight.flatten(1), bias, torch.float32)
    assert grid is not None
    integers, shared = without_shared_zeros((weight.flatten(1) / (grid[:, None] * averaged)).round().long())
    digits = digits_of(integers.view_as(weight))
    if digits is None:
        return None
    return TritonConvolution(digits, (grid * averaged * shared).float(), bias, geometry, module)


def without_shared_zeros(integers: Tensor) -> tuple[Tensor, Tensor]:
    """Integers ``[rows, numbers]`` without the binary zeros that all numbers of a row end in, and the powers of two
    that they have been divided by.

    >>> without_shared_zeros(torch.tensor([[12, 4], [5, 2], [0, 0]]))
    (tensor([[3, 1],
            [5, 2],
            [0, 0]]), tensor([4, 1, 1]))
    """
    lowest = integers & -integers  # the lowest bit that is set
    unset = lowest == 0
    shared = lowest.masked_fill(unset, torch.iinfo(torch.int64).max).amin(1).masked_fill(unset.all(1), 1)
    return integers // shared[:, None], shared


def digits_of(integers: Tensor) -> Tensor | None:
    """The digits of integers to the base 256, from -128 to 127, the lowest first, as bytes; None if they are many.

    >>> digits_of(torch.tensor([1, -1, 128, 1000])).tolist()
    [[1, -1, -128, -24], [0, 0, 1, 4]]
    """
    digits: list[Tensor] = []
    while len(digits) < MOST_DIGITS and (not digits or bool(integers.any())):
        low = (integers + BASE // 2) % BASE - BASE // 2
        digits.append(low.to(torch.int8))
        integers = (integers - low) // BASE
    return None if bool(integers.any()) else torch.stack(digits)


class TritonConvolution:
    """A convolution of spikes in bytes. Linear layers see one position.

    Args:
        digits: ``[digits, out, in, window height, window columns]``, see `digits_of`.
        grid: ``[out]``, what the integers are multiples of.
        bias: ``[out]``.
        geometry: Strides down and across, padding above and before, dilations down and across.
        module: The layer.
    """

    loop = KERNELS
    reads = Codes

    def __init__(
        self, digits: Tensor, grid: Tensor, bias: Tensor, geometry: tuple[int, ...], module: nn.Module
    ) -> None:
        _, self._outputs, self._inputs, *self._window = digits.shape
        self._grid, self._bias, self._geometry = grid, bias, geometry
        self.digits = len(digits)
        """Of every weight."""
        self._dimensions = module.weight.dim() - 2  # type: ignore[operator]
        terms = math.prod(digits.shape[2:])
        self._block_outputs = min(OUTPUTS, max(FEWEST[0], 1 << (self._outputs - 1).bit_length()))
        self._block_terms = min(TERMS, max(FEWEST[1], 1 << (terms - 1).bit_length()))
        all_outputs, all_terms = (
            math.ceil(size / block) * block
            for size, block in ((self._outputs, self._block_outputs), (terms, self._block_terms))
        )
        self._weights = digits.new_zeros(len(digits), all_outputs, all_terms)
        self._weights[:, : self._outputs, :terms] = digits.permute(0, 1, 3, 4, 2).flatten(2)

    def __call__(
        self,
        spikes: Codes,
        addend: Codes | Tensor | None = None,
        factors: Tensor | None = None,
        neuron: Any = None,
        initial: Tensor | None = None,
    ) -> Codes | Tensor | None:
        """The currents ``[T, N, C, ...]``, or the spikes of the `neuron` that they charge.

        Args:
            spikes: The input.
            addend: What to add to the currents: numbers, or spikes times `factors`, one for each channel.
            factors: ``[C]``.
            neuron: A neuron, see `fires_packed`.
            initial: Its initial potential; it has none yet.

        Returns:
            None if this does not apply.
        """
        steps, samples, inputs, *places = spikes.shape
        if inputs != self._inputs or len(places) != self._dimensions:
            return None
        height, columns = places or (1, 1)
        down, across, above, before, *dilation = self._geometry
        size = tuple(
            windows_along(*one)
            for one in zip((height, columns), self._window, (down, across), (above, before), dilation, strict=True)
        )
        shape = (steps, samples, self._outputs, *(size if places else ()))
        if min(size) < 1 or (addend is not None and tuple(addend.shape) != shape):
            return None  # the module raises the error
        if neuron is not None and self._is_small(samples * math.prod(size), FEW_OUTPUTS, spikes.codes.device):
            # Too few neurons to keep the device busy while time passes: first the currents of all steps at once.
            currents = self._run(spikes, addend, factors, (height, columns), size, shape)
            return None if currents is None else fire_codes(neuron, currents.movedim(-1, 2), initial)
        potential = None
        if neuron is not None:
            potential = potential_of(neuron, shape[1:], initial, spikes.codes.device)
        out = self._run(spikes, addend, factors, (height, columns), size, shape, neuron, potential)
        if potential is None or out is None:
            return None if out is None else out.movedim(-1, 2)
        neuron.v = potential.movedim(-1, 1)
        return Codes(out)

    def _is_small(self, places: int, outputs: int, device: torch.device) -> bool:
        """True if blocks of so many outputs do not keep the device busy."""
        blocks = math.ceil(places / PLACES) * math.ceil(self._outputs / min(outputs, self._block_outputs))
        return blocks < FULL * _multiprocessors(device)

    def _run(
        self,
        spikes: Codes,
        addend: Codes | Tensor | None,
        factors: Tensor | None,
        places: tuple[int, int],
        size: tuple[int, ...],
        shape: tuple[int, ...],
        neuron: Any = None,
        potential: Tensor | None = None,
    ) -> Tensor | None:
        """Call the kernel; without a neuron, all steps at once, as if they were samples. None if Triton refuses it."""
        from .kernels import NOTHING, NUMBERS, SPIKES

        steps, samples = shape[:2] if neuron is not None else (1, shape[0] * shape[1])
        kind, added, scale = NOTHING, self._bias, self._bias
        if isinstance(addend, Codes):
            assert factors is not None
            assert addend.unit == 1.0  # products are exact: a device may round a product and a sum together
            kind, added, scale = SPIKES, addend.codes, factors
        elif addend is not None:
            kind, added = NUMBERS, channels_innermost(addend, 2)
        dtype = torch.float32 if neuron is None else torch.int8
        out = torch.empty(*shape[:2], *shape[3:], self._outputs, dtype=dtype, device=spikes.codes.device)
        grid = (self._grid * spikes.unit).contiguous()
        count = samples * math.prod(size)
        fires = no_limits() if neuron is None else limits(neuron, self._outputs, out.device)
        few = self._is_small(count, self._block_outputs, out.device)
        block = min(self._block_outputs, FEW_OUTPUTS) if few else self._block_outputs
        launched = launch(
            "convolve",
            (math.ceil(count / PLACES), math.ceil(self._outputs / block)),
            out,
            *(spikes.codes, self._weights, grid, self._bias, added, scale),
            self._bias if potential is None else potential,
            self._bias if neuron is None else fires.thresholds,
            out,
            steps,
            samples,
            *map(float, fires.ends),
            *(self._inputs, self._outputs, *places, *size, *self._window, *self._geometry),
            DIGITS=self.digits,
            ALL_OUTPUTS=self._weights.shape[1],
            ALL_TERMS=self._weights.shape[2],
            KIND=kind.value,
            FIRES=neuron is not None,
            BOUNDED=fires.fires == BOUNDED,
            BLOCK_PLACES=PLACES,
            BLOCK_OUTPUTS=block,
            BLOCK_TERMS=self._block_terms,
        )
        return out if launched else None


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
