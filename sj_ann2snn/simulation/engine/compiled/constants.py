"""Sizes and kinds that compiled loops and what calls them agree on."""

from __future__ import annotations

__all__ = [
    "BITS",
    "BLOCK",
    "BOUNDED",
    "CODE",
    "ENTRIES",
    "FLOAT",
    "FREE",
    "NOTHING",
    "NUMBERS",
    "SHORT",
    "SILENT",
    "SPIKES",
    "WHOLE",
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

SHORT = 2
"""Bytes of a small integer."""

WHOLE = 4
"""Bytes of an integer."""


BLOCK = 4096
"""Neurons to run over all steps at a time: their potentials stay in a core's first-level cache."""


# There are two loops because the compiler uses its vector code only if the arrays do not overlap.

NOTHING, NUMBERS, SPIKES = 0, 1, 2
"""What is added to the sums: nothing, numbers ``[T, N, out height, out columns, outputs]``, or spikes of that shape
times a factor for each channel."""
