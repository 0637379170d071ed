"""Layers that read and write packed spikes: IF neurons, convolutions, linear layers and cumulative max pools."""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...compat import is_plain_if, layer
from ...layers import CumulativeMaxPool, IntegerIF
from ...support.compiled import compiled_loop
from ...support.exact_sums import exact_grid
from ...support.shapes import pair
from .loops import BITS, FLOAT
from .packed import PackedSpikes, channels_innermost, flat, widest

__all__ = ["PackedConvolution", "fire_packed", "fires_packed", "packed_convolution", "pool_packed", "pools_packed"]

LARGEST = 3 << 20
"""Largest tables of bytes of spikes, in bytes: they stay in a core's second-level cache, as far as they are used."""

WIDEST_LOOKUP = 32
"""Outputs to sum at a time by table lookup; more would fill the cache with rows that are not used."""

FEW, MANY = 1 / 32, 1 / 8
"""Firing rates at which the loops are timed, powers of two."""

TRIALS, TRIAL_STEPS = 4, 32
"""Times that a loop is timed, and the steps at a time: enough for the loop to take longer than the call around it."""

NONE = torch.zeros(1)
"""What a loop gets for an argument that it does not read."""


def fire_packed(neuron: Any, x_seq: Tensor) -> PackedSpikes:
    """The spikes of an IF neuron for the currents ``[T, N, C, ...]``, which may be one step repeated."""
    from .packed_kernels import fire_bits

    steps = x_seq.shape[0]
    same = x_seq.stride(0) == 0
    currents = channels_innermost(x_seq[:1] if same else x_seq, 2)
    potential = potential_of(neuron, x_seq.shape[1:])
    bits = torch.empty(steps, *currents.shape[1:-1], currents.shape[-1] // BITS, dtype=torch.uint8)
    found = limits(neuron, potential.shape[-1])
    width = widest(potential.numel() if found.same else potential.shape[-1])
    loop: Any = compiled_loop(fire_bits(width, found.fires))
    thresholds = found.thresholds[:1].expand(width).contiguous() if found.same else found.thresholds
    loop(
        flat(currents),
        0 if same else potential.numel(),
        flat(potential),
        flat(thresholds),
        found.ends,
        flat(bits),
        steps,
    )
    neuron.v = potential.movedim(-1, 1)
    return PackedSpikes(bits)


def potential_of(neuron: Any, shape: tuple[int, ...]) -> Tensor:
    """A neuron's membrane potential for currents of the `shape` ``(N, C, ...)``, channels innermost: memory of its own
    that may be written to."""
    v = neuron.v
    if isinstance(v, Tensor) and v.shape == shape:
        return channels_innermost(v, 1)
    if isinstance(neuron, IntegerIF):
        return torch.empty(shape).copy_(neuron.potential.expand(shape)).movedim(1, -1).contiguous()
    samples, channels, *places = shape
    return torch.full((samples, *places, channels), float(v) if isinstance(v, (int, float)) else 0.0)


@dataclass(frozen=True)
class Limits:
    """Where the neurons of a layer fire, and where their potentials end.

    Attributes:
        thresholds: ``[channels]``, in single precision.
        same: They are all the same.
        fires: How the loops charge the neurons.
        ends: The smallest and the largest potential, for loops that heed them.
    """

    thresholds: Tensor
    same: bool
    fires: int
    ends: tuple[Any, Any]


def limits(neuron: Any, channels: int) -> Limits:
    """The thresholds of a neuron with so many channels."""
    from .packed_kernels import BOUNDED, FREE

    if isinstance(neuron, IntegerIF):
        thresholds = neuron.threshold.reshape(-1).expand(channels).contiguous()
        return Limits(thresholds, neuron.threshold.numel() == 1, BOUNDED, (_single(neuron.low), _single(neuron.high)))
    return Limits(torch.full((channels,), float(neuron.v_threshold)), True, FREE, (_single(0), _single(0)))


def _single(number: float) -> Any:
    return torch.tensor(float(number), dtype=torch.float32).numpy()[()]


def fires_packed(neuron: Any) -> bool:
    """True for a neuron that `fire_packed` can stand for: SpikingJelly's IF, or one of integers with a threshold for
    each channel."""
    if isinstance(neuron, IntegerIF):
        shape = tuple(neuron.threshold.shape)
        by_channel = neuron.threshold.numel() == 1 or (len(shape) in (1, 3) and all(size == 1 for size in shape[1:]))
        return by_channel and neuron.threshold.dtype == torch.float32 and not is_watched(neuron)
    return is_plain_if(neuron) and neuron.v_threshold > 0


def is_watched(module: nn.Module) -> bool:
    """True for a module with hooks."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def pools_packed(pool: nn.Module) -> bool:
    """True for a pool that `pool_packed` can stand for: of images, with windows side by side."""
    if type(pool) is not CumulativeMaxPool or pool.spatial != 2 or pool.ceil_mode:
        return False
    plain = pair(pool.stride) == pair(pool.kernel_size) and pair(pool.padding) == (0, 0)
    return plain and pair(pool.dilation) == (1, 1)


def pool_packed(pool: Any, spikes: PackedSpikes) -> PackedSpikes | None:
    """The output of a cumulative max pool; its memory holds whole numbers, channels innermost."""
    from .packed_kernels import pool_bits

    steps, samples, channels, height, columns = spikes.shape
    window = pair(pool.kernel_size)
    size = height // window[0], columns // window[1]
    if not size[0] * size[1]:
        return None  # the module raises the error
    if not isinstance(pool.cumulative, Tensor):
        pool.cumulative = torch.zeros(samples, height, columns, channels, dtype=torch.int16)
        pool.emitted = torch.zeros(samples, *size, channels, dtype=torch.int16)
    out = torch.empty(steps, samples, *size, channels // BITS, dtype=torch.uint8)
    loop: Any = compiled_loop(pool_bits(widest(channels)))
    total, emitted = pool.cumulative.contiguous(), pool.emitted.contiguous()
    loop(*map(flat, (spikes.bits, total, emitted, out)), *(steps, samples, channels, height, columns), *size, *window)
    pool.cumulative, pool.emitted = total, emitted
    return PackedSpikes(out)


def packed_convolution(module: Any) -> PackedConvolution | None:
    """A convolution or linear layer for packed spikes; None if it is of another kind, or if its sums are not exact."""
    if type(module) in (nn.Linear, layer.Linear):
        weight = module.weight[:, :, None, None]
        geometry = (1, 1, 0, 0)
    elif type(module) in (nn.Conv2d, layer.Conv2d):  # a subclass may compute something else
        plain = module.groups == 1 and module.dilation == (1, 1) and not isinstance(module.padding, str)
        if not plain or module.padding_mode != "zeros":
            return None
        weight, geometry = module.weight, (*module.stride, *module.padding)
    else:
        return None
    fits = weight.dtype == torch.float32 and weight.device.type == "cpu" and not module._forward_hooks
    if not fits or module._forward_pre_hooks or weight.shape[0] % BITS or weight.shape[1] % BITS:
        return None
    bias = torch.zeros(len(weight)) if module.bias is None else module.bias.detach()
    if not sums_are_exact(weight.detach(), bias):
        return None
    return PackedConvolution(weight.detach(), bias, geometry, module.weight.dim() - 2)


def sums_are_exact(weight: Tensor, bias: Tensor) -> bool:
    """True if no sum of a channel's weights and its bias is rounded, so that their order does not matter.

    >>> sums_are_exact(torch.tensor([[0.5, 0.25]]), torch.zeros(1)), sums_are_exact(torch.rand(1, 9), torch.ones(1))
    (True, False)
    """
    numbers = weight.flatten(1).double(), bias.double()
    grid = exact_grid(*numbers, torch.float32)
    if grid is None:
        return False
    return all(bool((steps == steps.round()).all()) for steps in (numbers[0] / grid[:, None], numbers[1] / grid))


def fits_short(weight: Tensor) -> bool:
    """True for integers ``[out, ...]`` whose sums fit into 16 bits, whichever of them are added.

    >>> fits_short(torch.tensor([[30000.0, 2767.0]])), fits_short(torch.tensor([[30000.0, 2768.0]]))
    (True, False)
    """
    rows = weight.flatten(1)
    most = torch.maximum(rows.clamp(min=0).sum(1), -rows.clamp(max=0).sum(1)).max()
    return bool((rows == rows.round()).all()) and float(most) < 1 << 15


class PackedConvolution:
    """A convolution of packed spikes; several threads may share it. Linear layers have images of one position.

    Args:
        weight: ``[out, in, window height, window columns]``.
        bias: ``[out]``.
        geometry: Strides down and across, padding above and before.
        dimensions: Of space: 2 or 0.
        short: Add up in integers of 16 bits; by default if the sums fit into them.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, geometry: tuple[int, ...], dimensions: int = 2, short: bool | None = None
    ) -> None:
        self._weight, self._bias, self._geometry, self._dimensions = weight, bias, geometry, dimensions
        short = fits_short(weight) if short is None else short
        self._dtype, self._size = (torch.int16, 2) if short else (torch.float32, FLOAT)
        self._has_tables = weight.numel() // BITS * 256 * self._size <= LARGEST

    def __call__(
        self,
        spikes: PackedSpikes,
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
        from .packed_kernels import SILENT

        steps, samples, inputs, *places = spikes.shape
        outputs, wanted, *window = self._weight.shape
        if inputs != wanted or len(places) != self._dimensions:
            return None
        height, columns = places or (1, 1)
        down, across, above, before = self._geometry
        size = (height + 2 * above - window[0]) // down + 1, (columns + 2 * before - window[1]) // across + 1
        if min(size) < 1:
            return None  # the module raises the error
        shape = (steps, samples, outputs, *(size if places else ()))
        if addend is not None and tuple(addend.shape) != shape:
            return None
        kind, added = _added(addend)
        scale = NONE if factors is None else factors
        if neuron is None:
            potential, found = NONE, Limits(NONE, True, SILENT, (_single(0), _single(0)))
            out = torch.empty(steps, samples, *shape[3:], outputs)
        else:
            potential, found = potential_of(neuron, shape[1:]), limits(neuron, outputs)
            if initial is not None:
                potential += initial.expand(shape[2:]).movedim(0, -1)
            out = torch.empty(steps, samples, *shape[3:], outputs // BITS, dtype=torch.uint8)
        sizes = (steps, samples, inputs, outputs, height, columns, *size, *window, *self._geometry)
        if by_rows is None:
            by_rows = self._is_faster_by_rows(spikes, height, columns)
        loop = self._rows if by_rows else self._lookup
        arrays = [flat(one) for one in (self._bias, added, scale, potential, found.thresholds)]
        loop(flat(spikes.bits), arrays, found, flat(out), sizes, kind)
        if neuron is None:
            return out.movedim(-1, 2)
        neuron.v = potential.movedim(-1, 1)
        return PackedSpikes(out)

    def _is_faster_by_rows(self, spikes: PackedSpikes, height: int, columns: int) -> bool:
        if not self._has_tables:
            return True
        short = self._dtype is torch.int16
        most = _crossover(tuple(self._weight.shape), self._geometry, self._dimensions, height, columns, short)
        return spikes.share() <= most

    def _rows(self, spikes: Any, arrays: list[Any], found: Limits, out: Any, sizes: tuple[int, ...], kind: int) -> None:
        from .packed_kernels import convolve_by_rows

        steps, _, inputs, outputs, _, columns, *_ = sizes
        width = widest(outputs)
        padded = columns + 2 * sizes[-1]
        rows = torch.empty(steps * sizes[8] * columns * inputs, dtype=torch.int64)
        starts = torch.empty(steps * (padded + 1), dtype=torch.int64)
        loop: Any = compiled_loop(convolve_by_rows(width, math.gcd(inputs // BITS, 8), found.fires, kind, self._size))
        loop(spikes, self._weights_in_rows, *arrays, found.ends, out, rows.numpy(), starts.numpy(), sizes)

    def _lookup(
        self, spikes: Any, arrays: list[Any], found: Limits, out: Any, sizes: tuple[int, ...], kind: int
    ) -> None:
        from .packed_kernels import convolve_by_bytes

        padded = sizes[5] + 2 * sizes[-1]
        window = torch.zeros(sizes[8] * padded * (sizes[2] // BITS), dtype=torch.uint8)
        loop: Any = compiled_loop(convolve_by_bytes(self._lookup_width, found.fires, kind, self._size))
        loop(spikes, self._tables, *arrays, found.ends, out, window.numpy(), sizes)

    @functools.cached_property
    def _weights_in_rows(self) -> Any:
        outputs, width = len(self._weight), widest(len(self._weight))
        rows = self._weight.permute(2, 3, 1, 0).reshape(-1, outputs // width, width)
        return flat(rows.transpose(0, 1).to(self._dtype).contiguous())

    @property
    def _lookup_width(self) -> int:
        return math.gcd(len(self._weight), WIDEST_LOOKUP * FLOAT // self._size)

    @functools.cached_property
    def _tables(self) -> Any:
        return flat(tables(self._weight, self._lookup_width).to(self._dtype))


def tables(weight: Tensor, width: int) -> Tensor:
    """The tables ``[blocks of outputs, bytes, 256 + PAD, width]`` of the weights ``[out, in, height, columns]``.

    >>> tables(torch.arange(8.0).reshape(1, 8, 1, 1), 1)[0, 0, :4, 0]
    tensor([0., 0., 1., 1.])
    """
    from .packed_kernels import PAD

    outputs = len(weight)
    by_byte = weight.permute(2, 3, 1, 0).reshape(-1, BITS, outputs)
    bits = torch.tensor([[byte >> bit & 1 for bit in range(BITS)] for byte in range(256)]).to(weight)
    rows = F.pad(bits @ by_byte, (0, 0, 0, PAD))
    return rows.view(-1, 256 + PAD, outputs // width, width).permute(2, 0, 1, 3).contiguous()


def _added(addend: PackedSpikes | Tensor | None) -> tuple[int, Tensor]:
    from .packed_kernels import NOTHING, NUMBERS, SPIKES

    if addend is None:
        return NOTHING, NONE
    if isinstance(addend, PackedSpikes):
        return SPIKES, addend.bits
    return NUMBERS, channels_innermost(addend, 2)


@functools.cache
def _crossover(
    weights: tuple[int, ...], geometry: tuple[int, ...], dimensions: int, height: int, columns: int, short: bool
) -> float:
    """The firing rate up to which adding rows of weights is faster than table lookup, by a trial on this machine.

    Args:
        weights: The shape of a convolution's weights; the next two arguments are its others.
        geometry: See `PackedConvolution`.
        dimensions: See `PackedConvolution`.
        height: Of the images; a few lines of them are tried.
        columns: Of the images.
        short: See `PackedConvolution`.
    """
    conv = PackedConvolution(torch.zeros(weights), torch.zeros(weights[0]), geometry, dimensions, short)
    places = (min(height, weights[2] + 4), columns) if dimensions else ()
    generator = torch.Generator().manual_seed(0)

    def seconds(rate: float, by_rows: bool) -> float:
        bits = torch.full((TRIAL_STEPS, 1, *places, weights[1] // BITS), 255, dtype=torch.uint8)
        for _ in range(round(-math.log2(rate))):  # each time, half of the spikes go
            bits &= torch.randint(256, bits.shape, generator=generator, dtype=torch.uint8)
        found = []
        for _ in range(TRIALS):
            start = time.perf_counter()
            conv(PackedSpikes(bits), neuron=SimpleNamespace(v=0.0, v_threshold=1.0), by_rows=by_rows)
            found.append(time.perf_counter() - start)
        return min(found)

    lookup, few, many = seconds(MANY, False), seconds(FEW, True), seconds(MANY, True)
    slope = (many - few) / (MANY - FEW)
    return FEW + (lookup - few) / slope if slope > 0 else 1.0
