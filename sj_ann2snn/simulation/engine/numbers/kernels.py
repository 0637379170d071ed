"""The inner loops of IF neurons, and of the codes of their spikes, to be compiled."""

from __future__ import annotations

from typing import Any

from ..compiled.constants import BLOCK, CODE

__all__ = ["encode", "fire", "fire_in_place", "fire_integers"]

ONE_BITS = 0x3F800000
"""The number 1.0 in single precision; 0.0 has no bit set, -0.0 only the sign's."""

SIGN_BIT = 0x80000000


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
