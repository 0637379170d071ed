"""The inner loop of a convolution of few inputs: adds the rows of weights of those that are not zero; needs numba."""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from .building import at, carried, carry_on, repeated
from .constants import FLOAT

__all__ = ["AT_ONCE", "LENGTHS", "MOST_PARTS", "add_rows", "has_feature"]

LENGTHS = (192, 96, 64, 48, 32, 16, 8, 4, 2, 1)
"""Numbers of a part of a row that there are loops for, the largest first."""

LANES = 16
"""Numbers of a vector, at most."""

MOST_PARTS = 3
"""Parts of a row to add to different places at the same time."""


def has_feature(name: str) -> bool:
    """Whether this processor is known to have some instructions."""
    try:
        return bool(binding.get_host_cpu_features().get(name))
    except RuntimeError:  # LLVM cannot tell on every system
        return False


AT_ONCE = 192 if has_feature("avx512f") else 96
"""Numbers to add at a time: 12 registers, of those that this processor has."""

WORD, LONG, SINGLE = ir.IntType(32), ir.IntType(64), ir.FloatType()


@intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
def add_rows(
    typing_context: Any,
    target: Any,
    target_bytes: Any,
    weights: Any,
    part_bytes: Any,
    row_bytes: Any,
    rows: Any,
    factors: Any,
    count: Any,
    parts: Any,
    length: Any,
) -> Any:
    """``target[part, :length] += sum(factor * weights[row, part, :length])`` over pairs of a row and a factor.

    Args:
        typing_context: Numba's.
        target: The address of numbers in single precision, like the weights'.
        target_bytes: Distance of the target of one part from the next.
        weights: The address of the first row.
        part_bytes: Distance of one part of a row from the next.
        row_bytes: Distance of one row from the next.
        rows: The address of the rows' numbers, 32-bit integers.
        factors: The address of their factors, in single precision.
        count: How many there are, at least one.
        parts: At most `MOST_PARTS`.
        length: Numbers of a part, one of `LENGTHS`; in all parts together at most `AT_ONCE`.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *given, parts, length = arguments
        done, wrong = (builder.append_basic_block(name) for name in ("done", "wrong"))
        choice = builder.switch(builder.add(builder.mul(length, LONG(MOST_PARTS + 1)), parts), wrong)
        for some in range(1, MOST_PARTS + 1):
            for numbers in LENGTHS:
                if some * numbers > AT_ONCE:
                    continue
                block = builder.append_basic_block(f"{some}_rows_of_{numbers}")
                choice.add_case(LONG(numbers * (MOST_PARTS + 1) + some), block)
                builder.position_at_end(block)
                _add(builder, some, numbers, *given)
                builder.branch(done)
        builder.position_at_end(wrong)
        builder.unreachable()
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 10), generate


def _add(
    builder: Any,
    parts: int,
    numbers: int,
    target: Any,
    target_bytes: Any,
    weights: Any,
    part_bytes: Any,
    row_bytes: Any,
    rows: Any,
    factors: Any,
    count: Any,
) -> None:
    """A loop over the rows that keeps that many sums in registers."""
    lanes = min(LANES, numbers)
    kind = ir.VectorType(SINGLE, lanes)
    places = [(part, LONG(first * FLOAT)) for part in range(parts) for first in range(0, numbers, lanes)]

    def offsets(distance: Any) -> list[Any]:
        return [builder.add(builder.mul(distance, LONG(part)), first) for part, first in places]

    def load(address: Any, kind: Any) -> Any:
        return builder.load(at(builder, address, kind), align=FLOAT)

    targets = [builder.add(target, offset) for offset in offsets(target_bytes)]
    inside = offsets(part_bytes)
    start = [load(one, kind) for one in targets]
    before = builder.block
    loop, behind = (builder.append_basic_block(name) for name in ("rows", "behind"))
    builder.branch(loop)
    builder.position_at_end(loop)
    (index,) = carried(builder, 1, LONG, before, (LONG(0),))
    sums = carried(builder, len(places), kind, before, start)
    offset = builder.mul(index, LONG(FLOAT))
    row = builder.add(weights, builder.mul(builder.zext(load(builder.add(rows, offset), WORD), LONG), row_bytes))
    factor = repeated(builder, load(builder.add(factors, offset), SINGLE), kind)
    added = []
    for one, part in zip(sums, inside, strict=True):
        product = builder.fmul(factor, load(builder.add(row, part), kind), flags=["contract"])
        added.append(builder.fadd(one, product, flags=["contract"]))
    following = builder.add(index, LONG(1))
    carry_on(loop, (index, *sums), (following, *added))
    builder.cbranch(builder.icmp_signed("<", following, count), loop, behind)
    builder.position_at_end(behind)
    for one, place in zip(added, targets, strict=True):
        builder.store(one, at(builder, place, kind), align=FLOAT)
