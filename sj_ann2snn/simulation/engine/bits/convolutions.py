"""Convolutions and linear layers of spikes in bits, and which loop is faster."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ....support.compiled import compiled_loop
from ....support.exact_sums import largest_sums, sums_are_exact
from ....support.locks import exclusive
from ....support.shapes import windows_along
from ..compiled.arrays import channels_innermost, flat, spread, whole, whole_bytes, widest
from ..compiled.constants import BITS, FLOAT, NOTHING, NUMBERS, SHORT, SPIKES
from ..packed.modules import as_image, as_images
from ..packed.neurons import limits, no_limits, potential_of
from .layers import thresholds_in_bytes
from .values import Flattened, PackedBits, PackedCounts, PackedSpikes

__all__ = ["PackedConvolution", "PackedDepthwise", "packed_convolution"]

LARGEST = 5 << 20
"""Largest tables of bytes of spikes, in bytes: those of a block of outputs stay in a core's second-level cache."""

WIDEST_LOOKUP = 32
"""Outputs to sum at a time by table lookup; more would fill the cache with rows that are not used."""

FEW, MANY = 1 / 32, 1 / 8
"""Firing rates at which the loops are timed, powers of two."""

MOST_ROWS = 1 << 22
"""Rows of weights to list at a time, for as many lines of an image as they are enough for if every input spikes."""

FARTHEST = (1 << 31) - 1
"""Largest place of a row of weights, in bytes and as if the window lay at the last column: an integer of 32 bits."""

TRIALS, TRIAL_STEPS = 4, 32
"""Times that a loop is timed, and the steps at a time: enough for the loop to take longer than the call around it."""

MOST_JOINED = 8
"""Groups to join at most: as many as fill a byte if each reads one channel."""

ROWS, LOOKUP, MASKS = "rows of weights", "table lookup", "masks"
"""The loops of a convolution."""

DTYPES = {SHORT: torch.int16, FLOAT: torch.float32}
"""Of weights, by their bytes."""

NONE = torch.zeros(1, dtype=torch.float32)
"""What a loop gets for an argument that it does not read."""


def packed_convolution(module: Any, averaged: int = 1) -> PackedConvolution | None:
    """A convolution or linear layer for packed spikes; None if it is of another kind, or if its sums are not exact.

    Args:
        module: The layer.
        averaged: How many spikes an average pool in front of it takes together.
    """
    found = as_images(module)
    if found is None or not sums_are_exact(found.weight, found.bias, averaged):
        return None
    weight, bias, geometry, dimensions, groups = found
    if groups > 1 and groups == len(weight) == groups * weight.shape[1]:
        return PackedDepthwise(weight, bias, geometry, dimensions)
    joined = join_groups(weight, groups)
    return None if joined is None else PackedConvolution(joined[0], bias, geometry, dimensions, groups=joined[1])


def join_groups(weight: Tensor, groups: int) -> tuple[Tensor, int] | None:
    """Weights of fewer groups, of which each reads and writes whole bytes, with zeros between those that are joined.

    Args:
        weight: ``[out, in / groups, ...]``.
        groups: How many there are.

    Returns:
        The weights, and how many groups they are for; None where that takes too many zeros.

    >>> weight, groups = join_groups(torch.ones(32, 4, 3, 3), 8)
    >>> groups, tuple(weight.shape), weight[0, :, 0, 0]
    (4, (32, 8, 3, 3), tensor([1., 1., 1., 1., 0., 0., 0., 0.]))
    """
    outputs, inputs, *window = weight.shape
    sizes = [joined for joined in range(1, groups + 1) if not groups % joined]
    bytewise = (n for n in sizes if not n * inputs % BITS and not n * outputs // groups % BITS)
    joined = 1 if groups == 1 else next(bytewise, groups)
    if joined > MOST_JOINED:
        return None
    apart = weight.view(groups // joined, joined, -1, 1, inputs, *window)
    own = torch.eye(joined).view(1, joined, 1, joined, 1, *(1 for _ in window))
    return (apart * own).reshape(outputs, joined * inputs, *window), groups // joined


def fits_short(weight: Tensor) -> bool:
    """True for integers ``[out, ...]`` whose sums fit into 16 bits, whichever of them are added.

    >>> fits_short(torch.tensor([[30000.0, 2767.0]])), fits_short(torch.tensor([[30000.0, 2768.0]]))
    (True, False)
    """
    rows = weight.flatten(1)
    return torch.equal(rows, rows.round()) and float(largest_sums(rows).max()) < 1 << 15


class Sizes(NamedTuple):
    """What the loops of a convolution are told of its shapes, in their order."""

    steps: int
    samples: int
    inputs: int
    outputs: int
    height: int
    columns: int
    out_height: int
    out_columns: int
    window_height: int
    window_columns: int
    stride_down: int
    stride_across: int
    above: int
    before: int
    planes: int
    groups: int


class Work(NamedTuple):
    """One call of a convolution.

    Attributes:
        x: The input.
        sizes: All shapes.
        variant: Which neurons the sums charge, and what is added to them.
        behind: The arrays that the sums meet: what is added, its factors, potentials, thresholds and the result.
        ends: The smallest and the largest potential.
    """

    x: PackedBits
    sizes: Sizes
    variant: tuple[int, int]
    behind: tuple[Any, ...]
    ends: tuple[Any, Any]


Loop = Callable[[Work], None]


class PackedConvolution:
    """A convolution of packed spikes or counts; several threads may share it. A line is an image of one row. Linear
    layers see one position, or windows as large as the images that have been flattened in front of them.

    Loops see as many channels as fill bytes; the weights of those that there are not are zero.

    Args:
        weight: ``[out, in / groups, window height, window columns]``.
        bias: ``[out]``.
        geometry: Strides down and across, padding above and before.
        dimensions: Of space: 2, 1 or 0.
        short: Add up in integers of 16 bits; by default if the sums fit into them.
        groups: Several of them read and write whole bytes each, see `join_groups`.
    """

    reads = PackedBits, Flattened

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        geometry: tuple[int, ...],
        dimensions: int = 2,
        short: bool | None = None,
        groups: int = 1,
    ) -> None:
        self._groups = groups
        self.outputs, self.inputs = len(weight), self._inputs(weight) * groups
        self._weight, self._bias = self._in_bytes(weight), whole_bytes(bias)
        self._geometry, self.dimensions = geometry, dimensions
        self._short = fits_short(weight) if short is None else short
        self.loop = ""
        """The loop of the last call."""
        self._has_tables = self._weight.numel() // BITS * 256 * self._size(planes=1) <= LARGEST
        self._made: dict[tuple[str, int, float], Any] = {}
        """Weights as the loops take them, by loop, number of planes and unit of the input."""
        self._crossovers: dict[tuple[int, int, int], float] = {}
        """See `_crossover`, by height, columns and planes of the input."""
        self._over_images: dict[tuple[int, ...], PackedConvolution] = {}
        """A linear layer behind flattened images, by their channels and places."""

    @staticmethod
    def _inputs(weight: Tensor) -> int:
        """The number of channels that a group reads."""
        return weight.shape[1]

    @staticmethod
    def _in_bytes(weight: Tensor) -> Tensor:
        """The weights with as many channels as fill bytes."""
        outputs, inputs = (whole(size) - size for size in weight.shape[:2])
        return F.pad(weight, (0, 0, 0, 0, 0, inputs, 0, outputs)) if inputs or outputs else weight

    def __call__(
        self,
        spikes: PackedBits | Flattened,
        addend: PackedSpikes | Tensor | None = None,
        factors: Tensor | None = None,
        neuron: Any = None,
        initial: Tensor | None = None,
        by_rows: bool | None = None,
    ) -> PackedSpikes | Tensor | None:
        """The currents ``[T, N, C, ...]``, or the spikes of the `neuron` that they charge.

        Args:
            spikes: The input.
            addend: What to add to the currents: numbers, or spikes times `factors`, one for each channel.
            factors: ``[C]``.
            neuron: An IF neuron.
            initial: Its initial potential; it has none yet.
            by_rows: Add rows of weights, or look up sums in tables; by default what is faster here.

        Returns:
            None if this does not apply.
        """
        if isinstance(spikes, Flattened):
            return self._convolve_flattened(spikes, addend, factors, neuron, initial)
        places = spikes.shape[3:]
        if len(places) != self.dimensions or spikes.shape[2] != self.inputs:
            return None
        return self._convolve(spikes, self.dimensions, addend, factors, neuron, initial, by_rows)

    def _convolve(
        self,
        spikes: PackedBits,
        dimensions: int,
        addend: PackedSpikes | Tensor | None,
        factors: Tensor | None,
        neuron: Any,
        initial: Tensor | None,
        by_rows: bool | None = None,
    ) -> PackedSpikes | Tensor | None:
        """See `__call__`; the output has so many `dimensions`."""
        steps, samples, _, *places = spikes.shape
        outputs, _, *window = self._weight.shape
        inputs = spikes.bits.shape[-1] * BITS
        height, columns = as_image(tuple(places), 1)
        down, across, above, before = self._geometry
        size = windows_along(height, window[0], down, above), windows_along(columns, window[1], across, before)
        if min(size) < 1:
            return None  # the module raises the error
        row_bytes = inputs // self._groups * widest(outputs // self._groups) * FLOAT
        if (spikes.planes * math.prod(window) + columns + 2 * before) * row_bytes > FARTHEST:
            return None
        out_places = size[2 - dimensions :]
        shape = (steps, samples, self.outputs, *out_places)
        addend = spread(addend, shape)
        if addend is not None and tuple(addend.shape) != shape:
            return None
        kind, added = _added(addend)
        scale = NONE if factors is None else whole_bytes(factors)
        if neuron is None:
            potential, found, thresholds = NONE, no_limits(), NONE
            out = torch.empty(steps, samples, *out_places, outputs, dtype=torch.float32)
        else:
            potential = whole_bytes(potential_of(neuron, shape[1:], initial))
            found = limits(neuron, self.outputs)
            thresholds = thresholds_in_bytes(found)
            out = torch.empty(steps, samples, *out_places, outputs // BITS, dtype=torch.uint8)
        images = (steps, samples, inputs, outputs, height, columns, *size)
        shapes = (*images, *window, *self._geometry, spikes.planes, self._groups)
        behind = tuple(map(flat, (added, scale, potential, thresholds, out)))
        self.loop, loop = self._chosen(spikes, height, columns, by_rows)
        loop(Work(spikes, Sizes(*shapes), (found.fires, kind), behind, found.ends))
        if neuron is None:
            return out[..., : self.outputs].contiguous().movedim(-1, 2)
        neuron.v = potential[..., : self.outputs].movedim(-1, 1)
        return PackedSpikes(out, self.outputs)

    def _convolve_flattened(
        self,
        flattened: Flattened,
        addend: PackedSpikes | Tensor | None,
        factors: Tensor | None,
        neuron: Any,
        initial: Tensor | None,
    ) -> PackedSpikes | Tensor | None:
        """A linear layer that reads images: a convolution whose window is all of them."""
        spikes = flattened.spikes
        key = tuple(spikes.shape[2:])
        if self.dimensions or len(key) not in (2, 3) or math.prod(key) != self.inputs:
            return None
        if key not in self._over_images:
            weight = self._weight[: self.outputs, : self.inputs].reshape(self.outputs, key[0], *as_image(key[1:], 1))
            bias = self._bias[: self.outputs]
            self._over_images[key] = PackedConvolution(weight, bias, (1, 1, 0, 0), len(key) - 1, self._short)
        inner = self._over_images[key]
        found = inner._convolve(spikes, 0, addend, factors, neuron, initial)
        self.loop = inner.loop
        return found

    def _chosen(self, spikes: PackedBits, height: int, columns: int, by_rows: bool | None) -> tuple[str, Loop]:
        """The loop to take, and its name."""
        if by_rows is None:
            by_rows = self._is_faster_by_rows(spikes, height, columns)
        return (ROWS, self._rows) if by_rows else (LOOKUP, self._lookup)

    def _is_faster_by_rows(self, spikes: PackedBits, height: int, columns: int) -> bool:
        if not self._has_tables:
            return True
        key = height, columns, spikes.planes
        if key not in self._crossovers:
            shape, short = tuple(self._weight.shape), self._size(spikes.planes) == SHORT
            with exclusive(_crossover):  # while a thread times the loops, no other does the same
                found = _crossover(shape, self._geometry, self.dimensions, *key, short, self._groups)
            self._crossovers[key] = found
        return spikes.share() <= self._crossovers[key]

    def _rows(self, work: Work) -> None:
        from .kernels import convolve_by_rows

        sizes = work.sizes
        inputs, outputs = sizes.inputs // sizes.groups, sizes.outputs // sizes.groups
        width, unit = widest(outputs), math.gcd(inputs // BITS, 8)
        row = sizes.steps * sizes.planes * sizes.window_height * sizes.columns * inputs
        lines = min(sizes.out_height, max(1, MOST_ROWS // row)) if outputs > width else 1
        rows = np.empty(lines * row + BITS, dtype=np.int32)
        starts = np.empty(lines * sizes.steps * (sizes.columns + 2 * sizes.before + 1), dtype=np.int64)
        size = self._size(sizes.planes)
        loop = convolve_by_rows(width, unit, *work.variant, size)
        self._run(loop, self._weights_in_rows, work, _places_of_ones(width * size), rows, starts, lines)

    def _lookup(self, work: Work) -> None:
        from .kernels import convolve_by_bytes, convolve_by_columns

        sizes = work.sizes
        if sizes.window_columns == 3 and sizes.stride_across == 1:
            width, part = self._lookup_width(sizes.planes), sizes.inputs // BITS // sizes.groups
            size = self._size(sizes.planes)
            loop = convolve_by_columns(width, *work.variant, part, sizes.planes, size, sizes.groups)
            self._run(loop, self._tables_of_columns, work)
            return
        width, unit = self._lookup_width(sizes.planes), math.gcd(sizes.inputs // BITS, 8)
        padded = sizes.columns + 2 * sizes.before
        window = np.zeros(sizes.planes * sizes.window_height * padded * (sizes.inputs // BITS), dtype=np.uint8)
        loop = convolve_by_bytes(width, *work.variant, sizes.planes, unit, self._size(sizes.planes))
        self._run(loop, self._tables, work, window, np.empty(padded, dtype=np.int64))

    def _run(self, loop: Callable[..., None], make: Callable[[int, float], Tensor], work: Work, *memory: Any) -> None:
        """Call a loop with the weights as `make` makes them, and with memory of its own."""
        x, key = work.x, (make.__name__, work.x.planes, work.x.unit)
        if key not in self._made:
            self._made[key] = flat(make(x.planes, x.unit))
        compiled: Any = compiled_loop(loop)
        weights, bias = self._made[key], flat(self._bias)
        compiled(flat(x.bits), weights, bias, work.behind, work.ends, *memory, tuple(work.sizes))

    def _size(self, planes: int) -> int:
        """Bytes of a weight for inputs of so many planes."""
        return SHORT if self._short and planes == 1 else FLOAT

    def _weights(self, planes: int, unit: float) -> Tensor:
        """The weights for each plane, ``[planes, out, in, window height, window columns]``."""
        return torch.stack([self._weight * (unit * 2**plane) for plane in range(planes)])

    def _weights_in_rows(self, planes: int, unit: float) -> Tensor:
        outputs, width = len(self._weight), widest(len(self._weight) // self._groups)
        rows = self._weights(planes, unit).permute(0, 3, 4, 2, 1).reshape(-1, outputs // width, width)
        return rows.transpose(0, 1).to(DTYPES[self._size(planes)]).contiguous()

    def _lookup_width(self, planes: int) -> int:
        return math.gcd(len(self._weight) // self._groups, WIDEST_LOOKUP * FLOAT // self._size(planes))

    def _tables(self, planes: int, unit: float) -> Tensor:
        """The tables serve all planes: the loop doubles their sums."""
        return tables(self._weight * unit, self._lookup_width(planes)).to(DTYPES[self._size(planes)])

    def _tables_of_columns(self, planes: int, unit: float) -> Tensor:
        """The tables for `convolve_by_columns`."""
        width = self._lookup_width(planes)
        apart = torch.stack([tables(self._weight[..., [tap]] * unit, width) for tap in range(3)], dim=-2)
        return apart.to(DTYPES[self._size(planes)])


class PackedDepthwise(PackedConvolution):
    """A convolution of packed spikes that keeps channels apart: the bits of the channels of a position select their
    weights.

    Args:
        weight: ``[channels, 1, window height, window columns]``.
        bias: ``[channels]``.
        geometry: As for `PackedConvolution`.
        dimensions: As for `PackedConvolution`.
    """

    @staticmethod
    def _inputs(weight: Tensor) -> int:
        return len(weight)

    @staticmethod
    def _in_bytes(weight: Tensor) -> Tensor:
        return F.pad(weight, (0, 0, 0, 0, 0, 0, 0, whole(len(weight)) - len(weight)))

    def _chosen(self, spikes: PackedBits, height: int, columns: int, by_rows: bool | None) -> tuple[str, Loop]:
        return MASKS, self._masks

    def _masks(self, work: Work) -> None:
        from .kernels import convolve_depthwise

        self._run(convolve_depthwise(widest(work.sizes.inputs), *work.variant), self._weights_by_place, work)

    def _weights_by_place(self, planes: int, unit: float) -> Tensor:
        return self._weights(planes, unit)[:, :, 0].permute(0, 2, 3, 1).contiguous()


def tables(weight: Tensor, width: int) -> Tensor:
    """The tables ``[blocks of outputs, bytes, 256 + PAD, width]`` of the weights ``[out, in, height, columns]``.

    >>> tables(torch.arange(8.0).reshape(1, 8, 1, 1), 1)[0, 0, :4, 0]
    tensor([0., 0., 1., 1.])
    """
    from .kernels import PAD

    outputs = len(weight)
    by_byte = weight.permute(2, 3, 1, 0).reshape(-1, BITS, outputs)
    bits = torch.tensor([[byte >> bit & 1 for bit in range(BITS)] for byte in range(256)]).to(weight)
    rows = F.pad(bits @ by_byte, (0, 0, 0, PAD))
    return rows.view(-1, 256 + PAD, outputs // width, width).permute(2, 0, 1, 3).contiguous()


@functools.cache
def _places_of_ones(apart: int) -> Any:
    """The places of the bits that are set in every byte, lowest first, times a distance, ``[256, 8]``."""
    ones = [[bit * apart for bit in range(BITS) if byte >> bit & 1] for byte in range(256)]
    return np.array([[*found, *(0,) * (BITS - len(found))] for found in ones], dtype=np.int32)


def _added(addend: PackedSpikes | Tensor | None) -> tuple[int, Tensor]:
    if addend is None:
        return NOTHING, NONE
    if isinstance(addend, PackedSpikes):
        return SPIKES, addend.bits
    return NUMBERS, whole_bytes(channels_innermost(addend, 2))


@functools.cache
def _crossover(
    weights: tuple[int, ...],
    geometry: tuple[int, ...],
    dimensions: int,
    height: int,
    columns: int,
    planes: int,
    short: bool,
    groups: int,
) -> float:
    """The firing rate up to which adding rows of weights is faster than table lookup, by a trial on this machine.

    Args:
        weights: The shape of a convolution's weights; the next two arguments are its others.
        geometry: See `PackedConvolution`.
        dimensions: See `PackedConvolution`.
        height: Of the images; a few lines of them are tried.
        columns: Of the images.
        planes: Of the input.
        short: See `PackedConvolution`.
        groups: See `PackedConvolution`.
    """
    weight = torch.zeros(weights, dtype=torch.float32)
    conv = PackedConvolution(weight, weight.new_zeros(weights[0]), geometry, dimensions, short, groups)
    places = ((), (columns,), (min(height, weights[2] + 4), columns))[dimensions]
    generator = torch.Generator().manual_seed(0)

    def seconds(rate: float, by_rows: bool) -> float:
        bits = torch.full((planes, TRIAL_STEPS, 1, *places, groups * weights[1] // BITS), 255, dtype=torch.uint8)
        for _ in range(round(-math.log2(rate))):  # each time, half of the spikes go
            bits &= torch.randint(256, bits.shape, generator=generator, dtype=torch.uint8)
        found = []
        for _ in range(TRIALS):
            start = time.perf_counter()
            conv(PackedCounts(bits, 1.0), neuron=SimpleNamespace(v=0.0, v_threshold=1.0), by_rows=by_rows)
            found.append(time.perf_counter() - start)
        return min(found)

    lookup, few, many = seconds(MANY, False), seconds(FEW, True), seconds(MANY, True)
    slope = (many - few) / (MANY - FEW)
    return FEW + (lookup - few) / slope if slope > 0 else 1.0
