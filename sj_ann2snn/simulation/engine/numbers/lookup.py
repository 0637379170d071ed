"""Convolutions of spikes by table lookup: a quarter of the additions, and no multiplication.

The spikes of four neighbouring channels form a four-bit code. Their contribution to the outputs is one of 16 sums of
weights, which a precomputed table holds. The convolution is then the sum of the table rows that the codes in its window
select. The result equals that of the dense convolution, except for the order of summation.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ....support.compiled import compiled_loop
from ..compiled.arrays import flat_steps
from ..compiled.constants import CODE, ENTRIES, FLOAT
from . import kernels

__all__ = ["LookupConvolution", "lookup_convolution"]

NEAR = 1 << 15
"""Bytes of tables to process at a time: they stay in a core's first-level cache."""

FINISHED = 1 << 19
"""Bytes of the result to finish at a time: they stay in the core's second-level cache."""

LARGEST = 1 << 24
"""Largest size of a layer's tables in bytes (four times its weights) that still stays in a cache."""

FEWEST = 4
"""Fewest codes at a time that make reading and writing partial sums worthwhile."""

WIDEST = 64
"""Channels of the result to sum at a time."""


@dataclass(frozen=True)
class _Pieces:
    """The order in which a convolution's tables are processed.

    Attributes:
        width: Channels of the result at a time.
        rows: Rows of the window at a time, all of them or one.
        row: Codes of such a row at a time.
    """

    width: int
    rows: int
    row: int

    @staticmethod
    def of(conv: nn.Conv2d) -> _Pieces | None:
        """The pieces for `conv`; None if table lookup is not worthwhile."""
        height, row = conv.kernel_size[0], conv.kernel_size[1] * conv.in_channels // CODE
        if height * row * ENTRIES * conv.out_channels * FLOAT > LARGEST:
            return None
        width = max(size for size in range(8, WIDEST + 1, 8) if conv.out_channels % size == 0)
        fitting = NEAR // (ENTRIES * width * FLOAT)
        if height * row <= fitting * 5 // 4:
            pieces = _Pieces(width, height, row)
        else:
            pieces = _Pieces(width, 1, max(n for n in range(1, min(row, fitting) + 1) if row % n == 0))
        return pieces if pieces.rows * pieces.row >= FEWEST else None


def lookup_convolution(module: nn.Module) -> LookupConvolution | None:
    """The convolution `module` by table lookup; None without numba, or if that is impossible or not worthwhile."""
    if not isinstance(module, nn.Conv2d) or module.weight.dtype != torch.float32 or module.weight.device.type != "cpu":
        return None
    plain = module.groups == 1 and module.dilation == (1, 1) and not isinstance(module.padding, str)
    if not plain or module.padding_mode != "zeros" or module.in_channels % CODE or module.out_channels % 8:
        return None
    pieces = _Pieces.of(module)
    return LookupConvolution(pieces) if pieces and compiled_loop(kernels.encode) else None


class LookupConvolution:
    """One convolution over time; several threads may share it.

    As soon as an input is neither 0 nor 1 (graded spikes, averages of spikes), it leaves this and all later inputs to
    the module.
    """

    def __init__(self, pieces: _Pieces) -> None:
        self._pieces = pieces
        self._lock = threading.Lock()
        self._tables: Tensor | None = None
        self._binary = True

    def __call__(self, conv: Any, x_seq: Tensor, overwrite: bool) -> Tensor | None:
        """The currents ``[T, N, ...]`` for the spikes `x_seq`; None if these are not binary spikes."""
        x = x_seq.flatten(0, 1)
        if not self._binary or x.dtype != torch.float32 or not x.numel() or x.dim() != 4:
            return None
        if not x.is_contiguous(memory_format=torch.channels_last):
            return None
        images, channels, height, width = x.shape
        (above, before), per_position = conv.padding, channels // CODE
        margin = torch.zeros(images, height + 2 * above, width + 2 * before, per_position, dtype=torch.uint8)
        codes = margin.view(-1).numpy()
        encode: Any = compiled_loop(kernels.encode)
        if encode(_bits(x), codes, images, height, width, per_position, above, before):
            self._binary = False
            return None
        out_height = (margin.shape[1] - conv.kernel_size[0]) // conv.stride[0] + 1
        out_width = (margin.shape[2] - conv.kernel_size[1]) // conv.stride[1] + 1
        if out_height < 1 or out_width < 1:
            return None  # the module raises the error
        size = images, conv.out_channels, out_height, out_width
        out = torch.empty(size, dtype=torch.float32, memory_format=torch.channels_last)
        bias = torch.zeros(conv.out_channels, dtype=torch.float32) if conv.bias is None else conv.bias.detach()
        pieces = self._pieces
        self._loop()(
            codes,
            self._tables_of(conv).view(-1).numpy(),
            bias.numpy(),
            flat_steps(out.unsqueeze(0)),
            *(images, margin.shape[1], margin.shape[2], per_position, out_height, out_width, *conv.stride),
            conv.out_channels // pieces.width,
            conv.kernel_size[0] // pieces.rows,
            conv.kernel_size[1] * per_position // pieces.row,
            max(1, FINISHED // (out_width * conv.out_channels * FLOAT)),
        )
        return out.view(*x_seq.shape[:2], *out.shape[1:])

    def _loop(self) -> Any:
        from .lookup_kernel import convolve_loop

        return compiled_loop(convolve_loop(self._pieces.width, self._pieces.rows, self._pieces.row))

    def _tables_of(self, conv: Any) -> Tensor:
        with self._lock:
            if self._tables is None:
                self._tables = tables(conv.weight.detach(), self._pieces.width)
            return self._tables


def tables(weight: Tensor, width: int) -> Tensor:
    """The tables ``[blocks of outputs, codes, 16, width]`` of the weights ``[out, in, height, width]``.

    >>> tables(torch.arange(4.0).reshape(1, 4, 1, 1), 1)[0, 0, :4, 0]
    tensor([0., 0., 1., 1.])
    """
    outputs = weight.shape[0]
    by_code = weight.permute(2, 3, 1, 0).reshape(-1, CODE, outputs)
    bits = torch.tensor([[code >> bit & 1 for bit in range(CODE)] for code in range(ENTRIES)]).to(weight)
    rows = bits @ by_code  # [codes, 16, outputs]
    return rows.view(-1, ENTRIES, outputs // width, width).permute(2, 0, 1, 3).contiguous()


def _bits(x: Tensor) -> Any:
    """The memory of dense numbers, read as integers of the same size."""
    return flat_steps(x.unsqueeze(0)).view("uint32")
