"""Layers that read and write packed spikes: IF neurons, cumulative max pools and average pools."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...compat import is_plain_if, layer
from ...layers import CumulativeMaxPool, IntegerIF
from ...support.compiled import compiled_loop
from ...support.exact_sums import averaged_by_halves
from ...support.shapes import pair, windows_along
from .loops import BITS, BOUNDED, FREE, SILENT
from .packed import PackedCounts, PackedSpikes, channels_innermost, flat, widest

__all__ = [
    "Limits",
    "average_packed",
    "averages_packed",
    "fire_packed",
    "fires_packed",
    "is_plain_convolution",
    "is_watched",
    "limits",
    "no_limits",
    "pool_packed",
    "pooled_size",
    "pooling",
    "pools_packed",
    "potential_of",
]

MOST_AVERAGED = 16
"""Largest window of an average pool whose spikes are counted in bits."""


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


def potential_of(
    neuron: Any, shape: tuple[int, ...], initial: Tensor | None = None, device: torch.device | None = None
) -> Tensor:
    """A neuron's membrane potential for currents of the `shape` ``(N, C, ...)``, channels innermost: memory of its own
    that may be written to, on a `device`. An `initial` potential ``(C, ...)`` is added."""
    potential = _potential(neuron, shape, device)
    if initial is not None:
        potential += initial.expand(shape[1:]).movedim(0, -1)
    return potential


def _potential(neuron: Any, shape: tuple[int, ...], device: torch.device | None) -> Tensor:
    v = neuron.v
    if isinstance(v, Tensor) and v.shape == shape:
        return channels_innermost(v, 1)
    if isinstance(neuron, IntegerIF):
        single = torch.empty(shape, dtype=torch.float32, device=device)
        return single.copy_(neuron.potential.expand(shape)).movedim(1, -1).contiguous()
    samples, channels, *places = shape
    start = float(v) if isinstance(v, (int, float)) else 0.0
    return torch.full((samples, *places, channels), start, dtype=torch.float32, device=device)


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


def limits(neuron: Any, channels: int, device: torch.device | None = None) -> Limits:
    """The thresholds of a neuron with so many channels, on a `device`."""
    if isinstance(neuron, IntegerIF):
        thresholds = neuron.threshold.reshape(-1).expand(channels).contiguous()
        return Limits(thresholds, neuron.threshold.numel() == 1, BOUNDED, (_single(neuron.low), _single(neuron.high)))
    thresholds = _repeated(float(neuron.v_threshold), channels, device or torch.device("cpu"))
    return Limits(thresholds, True, FREE, (_single(0), _single(0)))


def no_limits() -> Limits:
    """Where there are no neurons."""
    return Limits(torch.zeros(1, dtype=torch.float32), True, SILENT, (_single(0), _single(0)))


@functools.lru_cache(maxsize=256)
def _repeated(number: float, times: int, device: torch.device) -> Tensor:
    """A number so many times; only to be read."""
    return torch.full((times,), number, dtype=torch.float32, device=device)


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


def is_plain_convolution(module: Any) -> bool:
    """True for a convolution of images in single precision on a CPU, without groups, gaps in its windows, or margins
    other than zeros."""
    if type(module) not in (nn.Conv2d, layer.Conv2d) or is_watched(module):  # a subclass may compute something else
        return False
    plain = module.dilation == (1, 1) and not isinstance(module.padding, str) and module.padding_mode == "zeros"
    weight = module.weight
    return plain and module.groups == 1 and weight.dtype == torch.float32 and weight.device.type == "cpu"


def pools_packed(pool: nn.Module) -> bool:
    """True for a pool that `pool_packed` can stand for: of images, without gaps in its windows."""
    if type(pool) is not CumulativeMaxPool or pool.spatial != 2 or pool.ceil_mode:
        return False
    return pair(pool.dilation) == (1, 1)


class Pooling(NamedTuple):
    """What the loop of a cumulative max pool needs besides spikes.

    Attributes:
        total: The spikes so far ``[N, height, columns, C]``, whole numbers: memory that may be written to.
        emitted: Those that it has passed on ``[N, out height, out columns, C]``, likewise.
        size: Height and columns of the output.
        sizes: All shapes, in the loop's order.
        apart: The windows lie within the image and have no position in common.
    """

    total: Tensor
    emitted: Tensor
    size: tuple[int, int]
    sizes: tuple[int, ...]
    apart: bool

    def leave(self, pool: Any) -> None:
        """Give the pool its memory."""
        pool.cumulative, pool.emitted = self.total, self.emitted


def pooled_size(pool: Any, places: tuple[int, ...]) -> tuple[int, int] | None:
    """Height and columns of a pool's output for an image of `places`; None if no window fits in: the module raises the
    error."""
    window, stride, padding = pair(pool.kernel_size), pair(pool.stride), pair(pool.padding)
    height, columns = (windows_along(*one) for one in zip(places, window, stride, padding, strict=True))
    return (height, columns) if min(height, columns) > 0 else None


def pooling(pool: Any, shape: tuple[int, ...], device: torch.device | None = None) -> Pooling | None:
    """What the loop of a cumulative max pool needs for spikes ``(T, N, C, height, columns)``; None if none fits in."""
    steps, samples, channels, height, columns = shape
    size = pooled_size(pool, (height, columns))
    if size is None:
        return None
    if isinstance(pool.cumulative, Tensor):
        total, emitted = pool.cumulative.contiguous(), pool.emitted.contiguous()
    else:
        total = torch.zeros(samples, height, columns, channels, dtype=torch.int16, device=device)
        emitted = torch.zeros(samples, *size, channels, dtype=torch.int16, device=device)
    window, stride, padding = pair(pool.kernel_size), pair(pool.stride), pair(pool.padding)
    sizes = (steps, samples, channels, height, columns, *size, *window, *stride, *padding)
    return Pooling(total, emitted, size, sizes, window == stride and padding == (0, 0))


def pool_packed(pool: Any, spikes: PackedSpikes) -> PackedSpikes | None:
    """The output of a cumulative max pool."""
    from .packed_kernels import pool_bits

    found = pooling(pool, spikes.shape)
    if found is None:
        return None
    steps, samples, channels, *_ = spikes.shape
    out = torch.empty(steps, samples, *found.size, channels // BITS, dtype=torch.uint8)
    loop: Any = compiled_loop(pool_bits(widest(channels), found.apart))
    loop(*map(flat, (spikes.bits, found.total, found.emitted, out)), found.sizes)
    found.leave(pool)
    return PackedSpikes(out)


def averages_packed(pool: nn.Module) -> bool:
    """True for an average pool that `average_packed` can stand for: of images, within them, of a power of two of
    spikes."""
    if type(pool) not in (nn.AvgPool2d, layer.AvgPool2d) or is_watched(pool):
        return False
    return 1 < averaged_by_halves(pool) <= MOST_AVERAGED and pair(pool.padding) == (0, 0) and not pool.ceil_mode


def average_packed(pool: Any, spikes: PackedSpikes) -> PackedCounts | None:
    """The output of an average pool."""
    from .packed_kernels import average_bits

    steps, samples, channels, *places = spikes.shape
    if len(places) != 2:
        return None
    size = pooled_size(pool, (places[0], places[1]))
    if size is None:
        return None
    window, stride = pair(pool.kernel_size), pair(pool.stride)
    taken = averaged_by_halves(pool)
    out = torch.empty(taken.bit_length(), steps, samples, *size, channels // BITS, dtype=torch.uint8)
    loop: Any = compiled_loop(average_bits(len(out), math.gcd(channels // BITS, 8)))
    loop(flat(spikes.bits), flat(out), steps * samples, channels // BITS, (*places, *size, *window, *stride))
    return PackedCounts(out, 1 / taken)
