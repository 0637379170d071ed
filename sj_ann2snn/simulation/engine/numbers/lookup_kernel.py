"""The inner loop of a convolution of spikes by table lookup, in vector instructions; needs numba.

A compiler does not keep the sums of several table rows in registers by itself, because it cannot know that the rows and
the result do not overlap. So the innermost sum is written directly as vector instructions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..compiled.constants import ENTRIES, FLOAT

__all__ = ["convolve_loop"]

WIDTHS = (16, 8)
"""Numbers that one instruction adds; a processor with shorter vectors takes several instructions."""

CHAINS = 4
"""Sums that run in parallel, because an addition takes longer to finish than the next one to start."""


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]  # numba is untyped
def add_rows(
    typing_context: Any, codes: Any, next_codes: Any, table: Any, start: Any, out: Any, width: Any, rows: Any, row: Any
) -> Any:
    """``out = start + sum of the rows that the codes name``, all given as addresses.

    Args:
        typing_context: Numba's.
        codes: The first code, a byte; `row` codes are contiguous.
        next_codes: Distance in bytes from one row of codes to the next.
        table: Tables ``[rows * row, 16, width]``, one for each code.
        start: ``[width]``, the initial sums.
        out: ``[width]``.
        width: Numbers in a table's row, a literal.
        rows: Rows of codes, a literal.
        row: Codes in a row, a literal.
    """
    if not all(isinstance(literal, types.IntegerLiteral) for literal in (width, rows, row)):
        return None
    numbers, height, length = (literal.literal_value for literal in (width, rows, row))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, distance, tables, begin, target = arguments[:5]
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(64)
        vectors = _vectors(numbers)
        chains = max(1, CHAINS // len(vectors))
        sums: list[list[Any]] = [[None] * len(vectors) for _ in range(chains)]

        def place(address: Any, offset: int, size: int) -> Any:
            vector = ir.VectorType(ir.FloatType(), size).as_pointer()
            return builder.inttoptr(builder.add(address, word(offset * FLOAT)), vector)

        sums[0] = [builder.load(place(begin, offset, size), align=FLOAT) for offset, size in vectors]
        for index in range(height * length):
            line, column = divmod(index, length)
            codes_there = builder.add(first, builder.mul(distance, word(line)))
            code = builder.load(builder.inttoptr(builder.add(codes_there, word(column)), byte))
            entry = builder.mul(builder.zext(code, word), word(numbers * FLOAT))
            address = builder.add(builder.add(tables, word(index * ENTRIES * numbers * FLOAT)), entry)
            chain = sums[index % chains]
            for k, (offset, size) in enumerate(vectors):
                found = builder.load(place(address, offset, size), align=FLOAT)
                chain[k] = found if chain[k] is None else builder.fadd(chain[k], found)
        for k, (offset, size) in enumerate(vectors):
            total = sums[0][k]
            for chain in sums[1:]:
                total = total if chain[k] is None else builder.fadd(total, chain[k])
            builder.store(total, place(target, offset, size), align=FLOAT)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5, width, rows, row), generate


def _vectors(numbers: int) -> list[tuple[int, int]]:
    """Offsets and sizes of the vectors that make up a row."""
    found: list[tuple[int, int]] = []
    offset = 0
    for size in WIDTHS:
        while numbers - offset >= size:
            found.append((offset, size))
            offset += size
    return found


@functools.cache
def convolve_loop(width: int, rows: int, row: int) -> Callable[..., None]:
    """The loop over all positions, to be compiled; it takes `rows` rows of `row` codes at a time.

    Its arguments: the codes ``[images, height, width, codes per position]`` with the margin, the tables
    ``[blocks, chunks down, chunks across, codes, 16, width]``, the biases ``[channels]`` and the result
    ``[images, out height, out width, channels]``, all flat; the sizes in these shapes; the strides; and the number of
    rows of the result to finish at a time.
    """

    def convolve(
        codes: Any,
        tables: Any,
        biases: Any,
        out: Any,
        images: int,
        height: int,
        columns: int,
        per_position: int,
        out_height: int,
        out_columns: int,
        stride_down: int,
        stride_across: int,
        blocks: int,
        chunks_down: int,
        chunks_across: int,
        lines_at_a_time: int,
    ) -> None:
        codes_at, tables_at, biases_at, out_at = (
            codes.ctypes.data,
            tables.ctypes.data,
            biases.ctypes.data,
            out.ctypes.data,
        )
        chunk = rows * row * ENTRIES * width * FLOAT
        position = blocks * width * FLOAT
        lines = images * out_height
        for begin in range(0, lines, lines_at_a_time):
            end = min(lines, begin + lines_at_a_time)
            for block in range(blocks):
                for down in range(chunks_down):
                    for across in range(chunks_across):
                        table = tables_at + ((block * chunks_down + down) * chunks_across + across) * chunk
                        for line in range(begin, end):
                            image = line // out_height
                            y = (line - image * out_height) * stride_down + down * rows
                            here = codes_at + (image * height + y) * columns * per_position + across * row
                            to = out_at + line * out_columns * position + block * width * FLOAT
                            for _ in range(out_columns):
                                start = biases_at + block * width * FLOAT if down == 0 and across == 0 else to
                                add_rows(here, columns * per_position, table, start, to, width, rows, row)
                                here += stride_across * per_position
                                to += position

    return convolve
