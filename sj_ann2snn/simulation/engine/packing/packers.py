"""Which loops compute packed spikes on a device: numba's on bits on a CPU, Triton's on bytes on a CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ....support.compiled import compiled_loop
from ..bits.convolutions import PackedConvolution, packed_convolution
from ..bits.dilated import PackedDilated, dilated_convolution
from ..bits.layers import average_packed, fire_packed, pool_packed
from ..bits.transposed import PackedTransposed, transposed_convolution
from ..bits.values import PackedSpikes, can_be_packed
from ..changes.convolutions import ChangeConvolution
from ..codes.convolutions import TritonConvolution, triton_convolution
from ..codes.launch import KERNELS
from ..codes.layers import average_codes, can_be_coded, fire_codes, pool_codes
from ..codes.trial import triton_works
from ..codes.values import Codes
from ..levels.convolutions import LevelConvolution
from ..numbers import kernels
from ..packed.values import Packed

__all__ = ["CURRENTS_ALONE", "Convolution", "Packers", "packers_for"]

Convolution = (
    PackedConvolution | PackedDilated | PackedTransposed | LevelConvolution | ChangeConvolution | TritonConvolution
)

CURRENTS_ALONE = (PackedDilated, PackedTransposed)
"""Convolutions that charge no neurons."""


@dataclass(frozen=True)
class Packers:
    """The loops of a kind of device.

    Attributes:
        spikes: What neurons write.
        fits: True for currents that neurons can be charged with.
        convolution: A layer, and how many spikes an average pool in front of it takes together, as a convolution of
            spikes; None if it is none.
        fire: The spikes of a neuron, see `fires_packed`, for currents; None where that fails.
        pool: The output of a max pool, see `pools_packed`.
        average: The output of an average pool, see `averages_packed`.
        moves: What moves values may move them as they are stored.
        graded: There are loops for graded spikes and for changes, too.
        loop: The loop of a neuron or a pool on its own, for `bench`.
    """

    spikes: type[Packed]
    fits: Callable[[Tensor], bool]
    convolution: Callable[[Any, int], Convolution | None]
    fire: Callable[[Any, Tensor], Packed | None]
    pool: Callable[[Any, Any], Packed | None]
    average: Callable[[Any, Any], Packed | None]
    moves: bool
    graded: bool
    loop: str


def _of_bits(module: Any, averaged: int) -> Convolution | None:
    """A convolution of bits, of any kind."""
    makers = packed_convolution, dilated_convolution, transposed_convolution
    return next((found for make in makers if (found := make(module, averaged)) is not None), None)


BITS = Packers(
    PackedSpikes,
    can_be_packed,
    _of_bits,
    fire_packed,
    pool_packed,
    average_packed,
    moves=True,
    graded=True,
    loop="bits",
)

BYTES = Packers(
    Codes,
    can_be_coded,
    triton_convolution,
    fire_codes,
    pool_codes,
    average_codes,
    moves=False,
    graded=False,
    loop=KERNELS,
)


def packers_for(device: torch.device) -> Packers | None:
    """The loops for that device; None if layers compute numbers there."""
    if triton_works(device):
        return BYTES
    return BITS if device.type == "cpu" and compiled_loop(kernels.fire) is not None else None
