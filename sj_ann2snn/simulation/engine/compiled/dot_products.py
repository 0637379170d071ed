"""The inner loop of a convolution of small integers: multiplies pairs of 16 bits, and adds in 32; needs numba.

Processors have an instruction for it (`vpdpwssd`), which takes twice as many products at a time as one for numbers in
single precision. LLVM recognizes it in the plain arithmetic that is written here.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .building import at, carried, carry_on, repeated
from .constants import SHORT

__all__ = ["PAIR", "SUM", "add_products"]

PAIR = 2 * SHORT
"""Bytes of the integers that are multiplied at a time for one sum."""

SUM = 4
"""Bytes of a sum."""

WHOLE, LONG = ir.IntType(32), ir.IntType(64)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]  # numba is untyped
def add_products(
    typing_context: Any,
    codes: Any,
    weights: Any,
    sums: Any,
    rows: Any,
    row_bytes: Any,
    pairs: Any,
    position_bytes: Any,
    positions: Any,
    distance: Any,
    vectors: Any,
    lanes: Any,
) -> Any:
    """Products of a window with the weights of some outputs, for a few positions side by side.

    Args:
        typing_context: Numba's.
        codes: The address of the first code of the first window, a 16-bit integer.
        weights: The address of the weights ``[rows, pairs, vectors * lanes, 2]``.
        sums: The address of the result ``[positions, vectors * lanes]`` in 32-bit integers.
        rows: Rows of a window.
        row_bytes: Distance of one row of codes from the next.
        pairs: Pairs of codes in a row of the window, next to each other.
        position_bytes: Distance of one position of the result from the next.
        positions: How many, a literal.
        distance: Bytes from one window to the next, a literal.
        vectors: Vectors of outputs, a literal.
        lanes: Outputs of a vector, a literal.
    """
    literals = (positions, distance, vectors, lanes)
    if not all(isinstance(literal, types.IntegerLiteral) for literal in literals):
        return None
    numbers = tuple(literal.literal_value for literal in literals)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = _summed(builder, arguments[:2], arguments[3:6], *numbers)
        _, _, count, width = numbers
        for index, total in enumerate(found):
            position, vector = divmod(index, count)
            offset = builder.add(builder.mul(arguments[6], LONG(position)), LONG(vector * width * SUM))
            builder.store(total, at(builder, builder.add(arguments[2], offset), total.type), align=SUM)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7, *literals), generate


def _summed(
    builder: Any,
    addresses: Any,
    bounds: Any,
    positions: int,
    distance: int,
    vectors: int,
    lanes: int,
) -> list[Any]:
    """Two loops, over rows and pairs, that keep all sums in registers."""
    codes, weights = addresses
    rows, row_bytes, pairs = bounds
    kind = ir.VectorType(WHOLE, lanes)
    begin = builder.block
    outer, inner, behind, done = (builder.append_basic_block(name) for name in ("rows", "pairs", "behind", "done"))
    builder.branch(outer)

    builder.position_at_end(outer)
    row, line, here = carried(builder, 3, LONG, begin, (LONG(0), codes, weights))
    totals = carried(builder, positions * vectors, kind, begin, [ir.Constant(kind, None)] * positions * vectors)
    builder.branch(inner)

    builder.position_at_end(inner)
    pair, weight = carried(builder, 2, LONG, outer, (LONG(0), here))
    sums = carried(builder, positions * vectors, kind, outer, totals)
    shorts = ir.VectorType(ir.IntType(16), 2 * lanes)
    read = [
        builder.load(at(builder, builder.add(weight, LONG(vector * lanes * PAIR)), shorts), align=SHORT)
        for vector in range(vectors)
    ]
    first = builder.add(line, builder.mul(pair, LONG(PAIR)))
    added = []
    for position in range(positions):
        two = builder.load(at(builder, builder.add(first, LONG(position * distance)), WHOLE), align=SHORT)
        both = builder.bitcast(repeated(builder, two, kind), shorts)
        for vector in range(vectors):
            added.append(_multiplied(builder, sums[position * vectors + vector], both, read[vector]))
    next_pair, next_weight = builder.add(pair, LONG(1)), builder.add(weight, LONG(vectors * lanes * PAIR))
    carry_on(inner, (pair, weight, *sums), (next_pair, next_weight, *added))
    builder.cbranch(builder.icmp_signed("<", next_pair, pairs), inner, behind)

    builder.position_at_end(behind)
    next_row = builder.add(row, LONG(1))
    carry_on(behind, (row, line, here, *totals), (next_row, builder.add(line, row_bytes), next_weight, *added))
    builder.cbranch(builder.icmp_signed("<", next_row, rows), outer, done)

    builder.position_at_end(done)
    return added


def _multiplied(builder: Any, total: Any, codes: Any, weights: Any) -> Any:
    """``total + codes[0::2] * weights[0::2] + codes[1::2] * weights[1::2]``."""
    lanes = total.type.count
    wide = ir.VectorType(WHOLE, 2 * lanes)
    products = builder.mul(builder.sext(codes, wide), builder.sext(weights, wide))
    halves = []
    for start in (0, 1):
        order = ir.Constant(ir.VectorType(WHOLE, lanes), list(range(start, 2 * lanes, 2)))
        halves.append(builder.shuffle_vector(products, ir.Constant(wide, ir.Undefined), order))
    return builder.add(total, builder.add(*halves))
