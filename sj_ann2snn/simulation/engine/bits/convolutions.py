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
from torch import Tensor, nn

from ....compat import layer
from ....support.compiled import compiled_loop
from ....support.exact_sums import largest_sums, sums_are_exact
from ....support.shapes import windows_along
from ..compiled.arrays import channels_innermost, flat, widest
from ..compiled.constants import BITS, FLOAT, NOTHING, NUMBERS, SHORT, SPIKES
from ..packed.modules import is_watched
from ..packed.neurons import limits, no_limits, potential_of
from .values import PackedBits, PackedCounts, PackedSpikes

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
    if type(module) in (nn.Linear, layer.Linear):
        weight = module.weight[:, :, None, None]
        geometry = (1, 1, 0, 0)
    elif type(module) in (nn.Conv2d, layer.Conv2d):  # a subclass may compute something else
        plain = module.dilation == (1, 1) and not isinstance(module.padding, str) and module.padding_mode == "zeros"
        if not plain or module.groups not in (1, module.in_channels):
            return None
        weight, geometry = module.weight, (*module.stride, *module.padding)
    else:
        return None
    depthwise = getattr(module, "groups", 1) > 1
    inputs = len(weight) if depthwise else weight.shape[1]
    fits = weight.dtype == torch.float32 and weight.device.type == "cpu" and not is_watched(module)
    if not fits or weight.shape[0] % BITS or inputs % BITS:
        return None
    if depthwise and module.in_channels != module.out_channels:
        return None
    bias = torch.zeros(len(weight), dtype=torch.float32) if module.bias is None else module.bias.detach()
    if not sums_are_exact(weight.detach(), bias, averaged):
        return None
    kind = PackedDepthwise if depthwise else PackedConvolution
    return kind(weight.detach(), bias, geometry, module.weight.dim() - 2)


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
    """A convolution of packed spikes or counts; several threads may share it. Linear layers see one position.

    Args:
        weight: ``[out, in, window height, window columns]``.
        bias: ``[out]``.
        geometry: Strides down and across, padding above and before.
        dimensions: Of space: 2 or 0.
        short: Add up in integers of 16 bits; by default if the sums fit into them.
    """

    reads = PackedBits

    def __init__(
        self, weight: Tensor, bias: Tensor, geometry: tuple[int, ...], dimensions: int = 2, short: bool | None = None
    ) -> None:
        self._weight, self._bias, self._geometry, self._dimensions = weight, bias, geometry, dimensions
        self._short = fits_short(weight) if short is None else short
        self.loop = ""
        """The loop of the last call."""
        self._has_tables = weight.numel() // BITS * 256 * self._size(planes=1) <= LARGEST
        self._made: dict[tuple[str, int, float], Any] = {}
        """Weights as the loops take them, by loop, number of planes and unit of the input."""

    def __call__(
        self,
        spikes: PackedBits,
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
        steps, samples, inputs, *places = spikes.shape
        outputs, _, *window = self._weight.shape
        if inputs != self.inputs or len(places) != self._dimensions:
            return None
        height, columns = places or (1, 1)
        down, across, above, before = self._geometry
        size = windows_along(height, window[0], down, above), windows_along(columns, window[1], across, before)
        if min(size) < 1:
            return None  # the module raises the error
        row_bytes = inputs * widest(outputs) * FLOAT
        if (spikes.planes * math.prod(window) + columns + 2 * before) * row_bytes > FARTHEST:
            return None
        shape = (steps, samples, outputs, *(size if places else ()))
        if addend is not None and tuple(addend.shape) != shape:
            return None
        kind, added = _added(addend)
        scale = NONE if factors is None else factors
        if neuron is None:
            potential, found = NONE, no_limits()
            out = torch.empty(steps, samples, *shape[3:], outputs, dtype=torch.float32)
        else:
            potential, found = potential_of(neuron, shape[1:], initial), limits(neuron, outputs)
            out = torch.empty(steps, samples, *shape[3:], outputs // BITS, dtype=torch.uint8)
        shapes = (steps, samples, inputs, outputs, height, columns, *size, *window, *self._geometry, spikes.planes)
        behind = tuple(map(flat, (added, scale, potential, found.thresholds, out)))
        self.loop, loop = self._chosen(spikes, height, columns, by_rows)
        loop(Work(spikes, Sizes(*shapes), (found.fires, kind), behind, found.ends))
        if neuron is None:
            return out.movedim(-1, 2)
        neuron.v = potential.movedim(-1, 1)
        return PackedSpikes(out)

    @property
    def inputs(self) -> int:
        """The number of channels that it reads."""
        return self._weight.shape[1]

    def _chosen(self, spikes: PackedBits, height: int, columns: int, by_rows: bool | None) -> tuple[str, Loop]:
        """The loop to take, and its name."""
        if by_rows is None:
            by_rows = self._is_faster_by_rows(spikes, height, columns)
        return (ROWS, self._rows) if by_rows else (LOOKUP, self._lookup)

    def _is_faster_by_rows(self, spikes: PackedBits, height: int, columns: int) -> bool:
        if not self._has_tables:
            return True
        shape, short = tuple(self._weight.shape), self._size(spikes.planes) == SHORT
        most = _crossover(shape, self._geometry, self._dimensions, height, columns, spikes.planes, short)
        return spikes.share() <= most

    def _rows(self, work: Work) -> None:
        from .kernels import convolve_by_rows

        sizes = work.sizes
        width, unit = widest(sizes.outputs), math.gcd(sizes.inputs // BITS, 8)
        row = sizes.steps * sizes.planes * sizes.window_height * sizes.columns * sizes.inputs
        lines = min(sizes.out_height, max(1, MOST_ROWS // row)) if sizes.outputs > width else 1
        rows = np.empty(lines * row + BITS, dtype=np.int32)
        starts = np.empty(lines * sizes.steps * (sizes.columns + 2 * sizes.before + 1), dtype=np.int64)
        size = self._size(sizes.planes)
        loop = convolve_by_rows(width, unit, *work.variant, size)
        self._run(loop, self._weights_in_rows, work, _places_of_ones(width * size), rows, starts, lines)

    def _lookup(self, work: Work) -> None:
        from .kernels import convolve_by_bytes, convolve_by_columns

        sizes = work.sizes
        if sizes.window_columns == 3 and sizes.stride_across == 1:
            width, position = self._lookup_width(sizes.planes), sizes.inputs // BITS
            loop = convolve_by_columns(width, *work.variant, position, sizes.planes, self._size(sizes.planes))
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
        outputs, width = len(self._weight), widest(len(self._weight))
        rows = self._weights(planes, unit).permute(0, 3, 4, 2, 1).reshape(-1, outputs // width, width)
        return rows.transpose(0, 1).to(DTYPES[self._size(planes)]).contiguous()

    def _lookup_width(self, planes: int) -> int:
        return math.gcd(len(self._weight), WIDEST_LOOKUP * FLOAT // self._size(planes))

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

    @property
    def inputs(self) -> int:
        return len(self._weight)

    def _chosen(self, spikes: PackedBits, height: int, columns: int, by_rows: bool | None) -> tuple[str, Loop]:
        return MASKS, self._masks

    def _masks(self, work: Work) -> None:
        from .kernels import convolve_depthwise

        self._run(convolve_depthwise(widest(self.inputs), *work.variant), self._weights_by_place, work)

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
    return NUMBERS, channels_innermost(addend, 2)


@functools.cache
def _crossover(
    weights: tuple[int, ...],
    geometry: tuple[int, ...],
    dimensions: int,
    height: int,
    columns: int,
    planes: int,
    short: bool,
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
    """
    weight = torch.zeros(weights, dtype=torch.float32)
    conv = PackedConvolution(weight, weight.new_zeros(weights[0]), geometry, dimensions, short)
    places = (min(height, weights[2] + 4), columns) if dimensions else ()
    generator = torch.Generator().manual_seed(0)

    def seconds(rate: float, by_rows: bool) -> float:
        bits = torch.full((planes, TRIAL_STEPS, 1, *places, weights[1] // BITS), 255, dtype=torch.uint8)
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
