"""Layers that read and write spikes in bytes on a CUDA device, by kernels for Triton.

They need Triton, which comes with torch for CUDA; without it, layers compute numbers as usual.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
from typing import Any

import torch
from torch import Tensor, nn

from ...compat import layer
from ...layers import CumulativeMaxPool, IntegerIF
from ...support.exact_sums import averaged_by_halves, exact_grid
from ...support.shapes import pair, windows_along
from .loops import BOUNDED
from .packed import Codes, channels_innermost
from .packed_convolutions import sums_are_exact
from .packed_layers import is_watched, limits, no_limits, pooling, potential_of

__all__ = [
    "KERNELS",
    "TritonConvolution",
    "average_codes",
    "can_be_coded",
    "fire_codes",
    "passes_trial",
    "pool_codes",
    "triton_convolution",
    "triton_works",
]

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

FIRE_BLOCK, POOL_BLOCK = 1024, 2048
"""Neurons, and inputs of a pool, in a block."""

KERNELS = "bytes on the device"
"""The name of all of them, for `bench`."""

COMPUTE_CAPABILITY = (8, 0)
"""From which on tensor cores multiply bytes as the kernels do."""


def triton_works(device: torch.device) -> bool:
    """True if the kernels run on that device."""
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    try:
        return _kernels_run(torch.cuda.current_device() if device.index is None else device.index)
    except torch.OutOfMemoryError:  # which says nothing of the next time
        return False


@functools.cache
def _kernels_run(index: int) -> bool:
    if importlib.util.find_spec("triton") is None or torch.cuda.get_device_capability(index) < COMPUTE_CAPABILITY:
        return False
    with torch.cuda.device(index):
        return passes_trial(torch.device("cuda"))


def passes_trial(device: torch.device) -> bool:
    """True if each kernel gives the right spikes there. Triton compiles C on its way, which needs a compiler, and other
    versions of it may refuse the kernels."""
    conv, neurons = nn.Conv2d(8, 8, 1, bias=False), [IntegerIF(torch.ones(1)).to(device) for _ in range(2)]
    nn.init.dirac_(conv.weight)
    currents = torch.full((2, 1, 8, 2, 2), 0.5, dtype=torch.float32, device=device)
    try:
        convolution = triton_convolution(conv.to(device))
        spikes = fire_codes(neurons[0], currents)
        if spikes is None or convolution is None:
            return False
        pooled, passed = pool_codes(CumulativeMaxPool(2, 2), spikes), convolution(spikes, neuron=neurons[1])
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return False
    if pooled is None or not isinstance(passed, Codes):
        return False
    return [int(found.codes.sum()) for found in (spikes, pooled, passed)] == [32, 8, 32]


def can_be_coded(x_seq: Tensor) -> bool:
    """True for currents ``[T, N, C, ...]`` in single precision, of images or of plain layers."""
    return x_seq.dtype == torch.float32 and x_seq.dim() in (3, 5) and x_seq.numel() > 0


def fire_codes(neuron: Any, x_seq: Tensor, initial: Tensor | None = None) -> Codes | None:
    """The spikes of a neuron for the currents ``[T, N, C, ...]``, which may be one step repeated.

    Args:
        neuron: An IF neuron of SpikingJelly's or one of integers, see `fires_packed`.
        x_seq: The currents.
        initial: The neuron's initial potential; it has none yet.

    Returns:
        None if Triton refuses the kernel; the neuron is as it was then.
    """
    steps, channels = x_seq.shape[0], x_seq.shape[2]
    same = x_seq.stride(0) == 0
    currents = channels_innermost(x_seq[:1] if same else x_seq, 2)
    potential = potential_of(neuron, x_seq.shape[1:], initial, x_seq.device)
    codes = torch.empty(steps, *currents.shape[1:], dtype=torch.int8, device=x_seq.device)
    neurons, fires = potential.numel(), limits(neuron, channels, x_seq.device)
    arguments = currents, 0 if same else neurons, potential, fires.thresholds, codes, neurons, steps
    constants = {"CHANNELS": channels, "BOUNDED": fires.fires == BOUNDED, "BLOCK": FIRE_BLOCK}
    blocks = math.ceil(neurons / FIRE_BLOCK)
    if not _launch("fire", (blocks,), codes, *arguments, *map(float, fires.ends), **constants):
        return None
    neuron.v = potential.movedim(-1, 1)
    return Codes(codes)


def pool_codes(pool: Any, spikes: Codes) -> Codes | None:
    """The output of a cumulative max pool; None if no window fits in, or if Triton refuses the kernel."""
    found = pooling(pool, spikes.shape, spikes.codes.device)
    if found is None:
        return None
    steps, samples, *sizes = found.sizes
    channels = spikes.shape[2]
    out = torch.empty(steps, samples, *found.size, channels, dtype=torch.int8, device=spikes.codes.device)
    window = 1 << (math.prod(sizes[5:7]) - 1).bit_length()
    block = max(1, POOL_BLOCK // window)
    arrays = spikes.codes, found.total, found.emitted, out
    blocks = math.ceil(out[0].numel() / block)
    if not _launch("pool", (blocks,), out, *arrays, steps, samples, *sizes, WINDOW=window, BLOCK=block):
        return None
    found.total.add_(spikes.codes.sum(0, dtype=found.total.dtype))
    found.leave(pool)
    return Codes(out, spikes.unit)


def average_codes(pool: Any, spikes: Codes) -> Codes | None:
    """The output of an average pool."""
    places = spikes.shape[3:]
    window, stride = pair(pool.kernel_size), pair(pool.stride)
    if len(places) != 2 or any(part > length for part, length in zip(window, places, strict=True)):
        return None  # the module raises the error
    windows = spikes.codes.unfold(2, window[0], stride[0]).unfold(3, window[1], stride[1])
    return Codes(windows.sum((-2, -1), dtype=torch.int8).contiguous(), spikes.unit / averaged_by_halves(pool))


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
        if isinstance(module.padding, str) or module.padding_mode != "zeros" or module.groups != 1:
            return None
        weight, geometry = module.weight, (*module.stride, *module.padding, *module.dilation)
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
        from .triton_kernels import NOTHING, NUMBERS, SPIKES

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
        launched = _launch(
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


def _launch(kernel: str, blocks: tuple[int, ...], on: Tensor, *arguments: Any, **constants: Any) -> bool:
    """Start a kernel on the device of a tensor; False if Triton cannot compile it for this device, as where it has too
    little memory for a block."""
    from triton.errors import TritonError

    kernels = importlib.import_module(".triton_kernels", __package__)
    with torch.cuda.device_of(on):  # type: ignore[no-untyped-call]
        try:
            getattr(kernels, kernel)[blocks](*arguments, **constants)
        except torch.OutOfMemoryError:
            raise
        except (TritonError, RuntimeError):  # passes of the compiler raise the latter
            return False
    return True
