"""Convolutions that read graded spikes: dot products of small integers."""

from __future__ import annotations

import functools
import math
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ....layers import InPlaceNeuron
from ....support.compiled import compiled_loop
from ....support.exact_sums import Range, exact_grid
from ....support.shapes import windows_along
from ..compiled.arrays import channels_innermost, flat, spread
from ..compiled.constants import BITS, FLOAT, NOTHING, NUMBERS, SHORT, SPIKES
from ..packed.modules import as_images
from .layers import charging
from .values import Levels

__all__ = ["LevelConvolution", "level_convolution"]

DOTS = "dot products"
"""The loop."""

LARGEST = (1 << 15) - 1
"""Of a weight in integers."""

LANES = 16
"""Outputs of a vector, at most."""

NEAR = 1 << 14
"""Bytes of sums to finish at a time: they stay in a core's first-level cache beside the weights."""

BLOCKS = {1: 16, 2: 11, 4: 6}
"""Positions whose sums, for so many vectors of outputs each, fit into 32 registers with what is added to them."""

NARROW = 4
"""Positions in a line for which four vectors of outputs keep the processor busy, and two do not."""

TRIALS, TRIAL_PRODUCTS, TRIAL_IMAGES = 4, 1 << 26, 64
"""Times that both ways are timed, and the products or images at a time: enough to take longer than the call around."""

NONE = torch.zeros(1, dtype=torch.float32)
"""What a loop gets for an argument that it does not read."""


def level_convolution(module: Any, outputs: Range) -> LevelConvolution | None:
    """A convolution of images for graded spikes; None for another layer, or if its sums are not exact.

    Args:
        module: The layer.
        outputs: The smallest and the largest spike that it reads.
    """
    found = as_images(module)
    if found is None or found.dimensions != 2 or found.groups > 1:
        return None
    weight, bias, geometry, *_ = found
    if weight.shape[0] % BITS or weight.shape[1] % BITS:
        return None
    units = units_of(weight, bias, outputs)
    return None if units is None else LevelConvolution(weight, bias, units, geometry)


def units_of(weight: Tensor, bias: Tensor, outputs: Range) -> Tensor | None:
    """The powers of two for each output of which all its weights are multiples by integers of 16 bits; None if a sum
    may be rounded or a weight is longer.

    >>> units_of(torch.tensor([[1.0, 0.25]]), torch.zeros(1), (0, 8)).log2()
    tensor([-14.])
    """
    rows = weight.flatten(1)
    grid = exact_grid(rows, bias, torch.float32, outputs)
    if grid is None:
        return None
    largest = rows.abs().amax(1).double().clamp(min=torch.finfo(torch.float32).tiny)
    units = torch.maximum(grid, torch.exp2(torch.ceil(torch.log2(largest / LARGEST))))
    multiples = rows / units[:, None].to(rows), bias / grid.to(bias)
    return units.to(rows) if all(torch.equal(one, one.round()) for one in multiples) else None


class LevelConvolution:
    """A convolution of graded spikes; several threads may share it.

    Args:
        weight: ``[out, in, window height, window columns]``.
        bias: ``[out]``.
        units: ``[out]``, of which the weights are multiples; see `units_of`.
        geometry: Strides down and across, padding above and before.
    """

    reads = Levels
    loop = DOTS

    def __init__(self, weight: Tensor, bias: Tensor, units: Tensor, geometry: tuple[int, ...]) -> None:
        self._weight, self._bias, self._units, self._geometry = weight, bias, units, geometry
        self._made: dict[tuple[str, int], Any] = {}
        """Weights, units and biases as the loop takes them, by outputs or positions at a time."""

    def __call__(
        self,
        levels: Levels,
        addend: Levels | Tensor | None = None,
        factors: Tensor | None = None,
        neuron: InPlaceNeuron | None = None,
        always: bool = False,
    ) -> Levels | Tensor | None:
        """The currents ``[T, N, C, ...]``, or the spikes of the `neuron` that they charge.

        Args:
            levels: The input.
            addend: What to add to the currents: numbers, or spikes times `factors`, one for each channel.
            factors: ``[C]``.
            neuron: A neuron for which `emits_levels` is true.
            always: Also where torch's convolution is faster.

        Returns:
            None if this does not apply.
        """
        steps, samples, inputs, *places = levels.shape
        outputs, own, *window = self._weight.shape
        if len(places) != 2 or inputs != own:
            return None
        height, columns = places
        down, across, above, before = self._geometry
        size = windows_along(height, window[0], down, above), windows_along(columns, window[1], across, before)
        if min(size) < 1:
            return None  # the module raises the error
        if not (always or _is_faster(tuple(self._weight.shape), self._geometry, height, columns)):
            return None
        shape = (steps, samples, outputs, *size)
        addend = spread(addend, shape)
        if addend is not None and tuple(addend.shape) != shape:
            return None
        kind, added = NOTHING, NONE
        if isinstance(addend, Levels):
            kind, added = SPIKES, addend.codes
        elif addend is not None:
            kind, added = NUMBERS, channels_innermost(addend, 2)
        charged = None if neuron is None else charging(neuron, shape[1:])
        if neuron is not None and charged is None:
            return None
        out = torch.empty(steps, samples, *size, outputs, dtype=torch.float32 if charged is None else torch.int16)
        vectors, lanes, positions = _block(outputs, size[1])
        loop = self._loop((positions, across * inputs * SHORT, vectors, lanes), charged, kind)
        lines = max(1, min(size[0], NEAR // (size[1] * outputs * FLOAT)))
        length = size[1] * outputs
        padded = np.empty((height + 2 * above) * (columns + 2 * before) * inputs, dtype=np.int16)
        memory = padded, np.empty(lines * length, dtype=np.int32), np.empty(length, dtype=np.float32)
        loop(
            flat(levels.codes),
            self._weights(vectors * lanes),
            (*self._of_line(size[1]), flat(NONE if factors is None else factors.repeat(size[1]))),
            flat(added),
            flat(out),
            *(_nobody() if charged is None else charged.arguments),
            memory,
            lines,
            (steps, samples, inputs, outputs, height, columns, *size, *window, *self._geometry),
        )
        if neuron is None or charged is None:
            return out.movedim(-1, 2)
        charged.leave(neuron, steps)
        return Levels(out)

    def _loop(self, block: tuple[int, ...], charged: Any, addend: int) -> Any:
        from .kernels import convolve_levels

        if charged is None:
            return compiled_loop(convolve_levels(*block, False, addend))
        return charged.loop(convolve_levels(*block, True, addend))

    def _weights(self, width: int) -> Any:
        """``[blocks of outputs, window height, pairs of inputs, width, 2]``."""
        key = ("weights", width)
        if key not in self._made:
            multiples = (self._weight / self._units[:, None, None, None]).to(torch.int16).permute(0, 2, 3, 1)
            pairs = multiples.reshape(-1, width, self._weight[0].numel() // 2, 2)
            self._made[key] = flat(pairs.transpose(1, 2).contiguous())
        return self._made[key]

    def _of_line(self, columns: int) -> Any:
        """The unit and the bias of every number of a line."""
        key = ("line", columns)
        if key not in self._made:
            self._made[key] = tuple(flat(one.repeat(columns)) for one in (self._units, self._bias))
        return self._made[key]


def _nobody() -> tuple[Any, ...]:
    """The arguments about neurons where there are none."""
    one = np.float32(1)
    return (flat(NONE),), (one,), one, one


def _block(outputs: int, columns: int) -> tuple[int, int, int]:
    """How many vectors of outputs, of how many lanes, at how many positions to sum at a time."""
    lanes = math.gcd(outputs, LANES)
    vectors = math.gcd(outputs // lanes, 4 if columns <= NARROW else 2)
    return vectors, lanes, math.ceil(columns / math.ceil(columns / BLOCKS[vectors]))


@functools.cache
def _is_faster(weights: tuple[int, ...], geometry: tuple[int, ...], height: int, columns: int) -> bool:
    """Whether this loop is faster than torch's convolution, by a trial on this machine.

    Args:
        weights: The shape of a convolution's weights; the next argument is another of its own.
        geometry: See `LevelConvolution`.
        height: Of the images.
        columns: Of the images.
    """
    weight = torch.zeros(weights, dtype=torch.float32)
    bias = weight.new_zeros(weights[0])
    conv = LevelConvolution(weight, bias, torch.ones_like(bias), geometry)
    images = min(TRIAL_IMAGES, max(1, TRIAL_PRODUCTS // (weight.numel() * height * columns)))
    codes = torch.zeros(1, images, height, columns, weights[1], dtype=torch.int16)

    def seconds(run: Any) -> float:
        found = []
        for _ in range(1 + TRIALS):  # the first one compiles
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
        return min(found)

    dots = seconds(lambda: conv(Levels(codes), always=True))
    return dots < seconds(lambda: F.conv2d(Levels(codes).unpacked()[0], weight, bias, geometry[:2], geometry[2:]))
