"""The neurons' inner loops, to be compiled, and the flat arrays that they take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = [
    "BITS",
    "BLOCK",
    "BOUNDED",
    "CODE",
    "ENTRIES",
    "FLOAT",
    "FREE",
    "LANES",
    "SHORT",
    "SILENT",
    "WHOLE",
    "encode",
    "fire",
    "fire_in_place",
    "fire_integers",
    "flat",
    "is_dense",
]

SILENT, FREE, BOUNDED = 0, 1, 2
"""What sums charge: no neurons, neurons, or neurons whose potential saturates."""

BITS = 8
"""Packed spikes in a byte."""

CODE = 4
"""Spikes in a code of `encode`."""

ENTRIES = 1 << CODE
"""Rows of a table, one for each code."""

FLOAT = 4
"""Bytes of a number in single precision."""

LANES = 8
"""Numbers that the rows of weights of changes are multiples of."""

SHORT = 2
"""Bytes of a small integer."""

WHOLE = 4
"""Bytes of an integer."""

ONE_BITS = 0x3F800000
"""The number 1.0 in single precision; 0.0 has no bit set, -0.0 only the sign's."""

SIGN_BIT = 0x80000000

BLOCK = 4096
"""Neurons to run over all steps at a time: their potentials stay in a core's first-level cache."""


def is_dense(x: Tensor) -> bool:
    """True for a tensor that fills its memory without gaps, in the default layout or as channels_last images."""
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def flat(x_seq: Tensor) -> Any:
    """The memory of a sequence whose steps are dense, as a flat array."""
    steps, step = x_seq.shape[0], x_seq[0].numel()
    return torch.as_strided(x_seq, ((steps - 1) * x_seq.stride(0) + step,), (1,)).numpy()


# There are two loops because the compiler uses its vector code only if the arrays do not overlap.


def fire(x: Any, spikes: Any, potential: Any, threshold: Any, steps: int, x_stride: int, spikes_stride: int) -> None:
    """``v += x; s = v >= threshold; v -= threshold * s``; a stride is the distance from one step to the next."""
    for start in range(0, potential.shape[0], BLOCK):
        v = potential[start : start + BLOCK]
        for t in range(steps):
            currents = x[t * x_stride + start : t * x_stride + start + v.shape[0]]
            out = spikes[t * spikes_stride + start : t * spikes_stride + start + v.shape[0]]
            for i in range(v.shape[0]):
                charged = v[i] + currents[i]
                fires = charged >= threshold
                out[i] = fires
                v[i] = charged - threshold if fires else charged


def fire_in_place(x: Any, potential: Any, threshold: Any, steps: int, stride: int) -> None:
    """Like `fire`, but overwrites the currents with the spikes."""
    for start in range(0, potential.shape[0], BLOCK):
        v = potential[start : start + BLOCK]
        for t in range(steps):
            currents = x[t * stride + start : t * stride + start + v.shape[0]]
            for i in range(v.shape[0]):
                charged = v[i] + currents[i]
                fires = charged >= threshold
                currents[i] = fires
                v[i] = charged - threshold if fires else charged


def fire_integers(
    x: Any, spikes: Any, potential: Any, thresholds: Any, ends: Any, steps: int, x_stride: int, spikes_stride: int
) -> None:
    """Like `fire`, with a threshold for each neuron, and potentials that saturate at `ends`; may overwrite `x`."""
    low, high = ends[0], ends[1]
    for start in range(0, potential.shape[0], BLOCK):
        v = potential[start : start + BLOCK]
        limits = thresholds[start : start + BLOCK]
        for t in range(steps):
            currents = x[t * x_stride + start : t * x_stride + start + v.shape[0]]
            out = spikes[t * spikes_stride + start : t * spikes_stride + start + v.shape[0]]
            for i in range(v.shape[0]):
                charged = min(max(v[i] + currents[i], low), high)
                fires = charged >= limits[i]
                out[i] = fires
                v[i] = charged - limits[i] if fires else charged


def encode(
    spikes: Any, codes: Any, images: int, height: int, width: int, per_position: int, above: int, before: int
) -> int:
    """Encode four spikes of a position as the bits of a code, with a margin of zeros around each image.

    Args:
        spikes: The bits of ``[images, height, width, 4 * per_position]`` in single precision, flat.
        codes: ``[images, height + 2 * above, width + 2 * before, per_position]``, flat, zero.
        images: Number of images.
        height: Of an image.
        width: Of an image.
        per_position: Codes of a position.
        above: Rows of the margin above and below.
        before: Columns of the margin on either side.

    Returns:
        Zero if all spikes were 0 or 1; otherwise the codes are meaningless.
    """
    others = 0
    for line in range(images * height):
        image, y = divmod(line, height)
        begin = ((image * (height + 2 * above) + y + above) * (width + 2 * before) + before) * per_position
        row = spikes[line * width * per_position * CODE : (line + 1) * width * per_position * CODE]
        out = codes[begin : begin + width * per_position]
        for i in range(out.shape[0]):
            a, b, c, d = row[4 * i], row[4 * i + 1], row[4 * i + 2], row[4 * i + 3]
            # The lowest bit of the exponent of 1.0 is set.
            out[i] = (a >> 23 & 1) | (b >> 22 & 2) | (c >> 21 & 4) | (d >> 20 & 8)
        for i in range(row.shape[0]):
            bit = row[i] >> 23 & 1
            others |= (row[i] ^ bit * ONE_BITS) & (~SIGN_BIT | bit * SIGN_BIT)
    return others
