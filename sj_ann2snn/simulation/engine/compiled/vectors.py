"""Vectors of numbers for loops that numba compiles; needs numba.

A compiler cannot know that arrays do not overlap, so it keeps no sums in registers over a loop of its own accord. These
functions say what a loop keeps there: a vector is a local variable like any other. Spikes are bits, those of the
channels of a position side by side, the first one lowest.

Widths are literals: the number of channels that a vector holds, 8, 16, 32 or 64.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from .building import LANE, at, repeated
from .constants import BITS, SHORT

__all__ = [
    "add",
    "as_floats",
    "charge",
    "charge_within",
    "count",
    "grow",
    "larger",
    "largest_of",
    "list_ones",
    "load",
    "load_like",
    "lowest",
    "nonzero",
    "ones_in",
    "scaled",
    "store",
    "store_word",
    "subtract",
    "unpacked",
    "word",
    "zeros",
]

FLOAT, HALF, LONG = ir.FloatType(), ir.IntType(16), ir.IntType(64)


class Floats(types.Type):  # type: ignore[misc]  # numba is untyped
    """A vector in single precision."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(f"Floats({width})")


class Counts(types.Type):  # type: ignore[misc]  # numba is untyped
    """A vector of 16-bit integers."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(f"Counts({width})")


@register_model(Floats)
class FloatsModel(models.PrimitiveModel):  # type: ignore[misc]  # numba is untyped
    def __init__(self, manager: Any, kind: Floats) -> None:
        super().__init__(manager, kind, ir.VectorType(FLOAT, kind.width))


@register_model(Counts)
class CountsModel(models.PrimitiveModel):  # type: ignore[misc]  # numba is untyped
    def __init__(self, manager: Any, kind: Counts) -> None:
        super().__init__(manager, kind, ir.VectorType(HALF, kind.width))


def _literal(width: Any) -> int | None:
    return width.literal_value if isinstance(width, types.IntegerLiteral) else None


def _load(builder: Any, address: Any, kind: Any, align: int) -> Any:
    return builder.load(at(builder, address, kind), align=align)


def _bits(builder: Any, address: Any, width: int) -> Any:
    """The spikes there as a vector of truth values."""
    return builder.bitcast(_load(builder, address, ir.IntType(width), 1), ir.VectorType(ir.IntType(1), width))


def _store_bits(builder: Any, truths: Any, address: Any, width: int) -> None:
    word = ir.IntType(width)
    builder.store(builder.bitcast(truths, word), at(builder, address, word), align=1)


def _kind(size: Any, width: Any) -> tuple[Any, Any] | None:
    """The types, for numba and LLVM, of a vector of numbers of that many bytes."""
    if _literal(size) is None or (count := _literal(width)) is None:
        return None
    short = _literal(size) == SHORT
    return (Counts(count) if short else Floats(count)), ir.VectorType(HALF if short else FLOAT, count)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]  # numba is untyped
def zeros(typing_context: Any, width: Any, size: Any) -> Any:
    """Zeros of `size` bytes: 2 for small integers, 4 for single precision."""
    if (found := _kind(size, width)) is None:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(found[1], None)

    return found[0](width, size), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]  # numba is untyped
def load(typing_context: Any, address: Any, width: Any, size: Any) -> Any:
    """The numbers of `size` bytes at an address."""
    if (found := _kind(size, width)) is None:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _load(builder, arguments[0], found[1], 2)

    return found[0](types.int64, width, size), generate


@intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
def as_floats(typing_context: Any, numbers: Any) -> Any:
    """The numbers in single precision."""
    if not isinstance(numbers, (Floats, Counts)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (found,) = arguments
        return found if isinstance(numbers, Floats) else builder.sitofp(found, ir.VectorType(FLOAT, numbers.width))

    return Floats(numbers.width)(numbers), generate


@intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
def load_like(typing_context: Any, other: Any, address: Any) -> Any:
    """As many numbers at an address as another vector has."""
    if not isinstance(other, Floats):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _load(builder, arguments[1], arguments[0].type, 4)

    return other(other, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
def store(typing_context: Any, numbers: Any, address: Any) -> Any:
    """Write the numbers to an address."""
    if not isinstance(numbers, Floats):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[0], at(builder, arguments[1], arguments[0].type), align=4)
        return context.get_dummy_value()

    return types.void(numbers, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
def add(typing_context: Any, one: Any, other: Any) -> Any:
    """The sums of the elements."""
    if not isinstance(one, (Floats, Counts)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments) if isinstance(one, Floats) else builder.add(*arguments)

    return one(one, other), generate


@intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
def subtract(typing_context: Any, one: Any, other: Any) -> Any:
    """The differences of the elements."""
    if not isinstance(one, Floats):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fsub(*arguments)

    return one(one, other), generate


@intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
def largest_of(typing_context: Any, one: Any, other: Any) -> Any:
    """The larger one of each pair of elements; NaN if one of them is, as torch's pools have it."""
    if not isinstance(one, Floats):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b = arguments
        chosen = builder.or_(builder.fcmp_ordered(">", a, b), builder.fcmp_unordered("uno", a, a))
        return builder.select(chosen, a, b)

    return one(one, other), generate


@intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
def scaled(typing_context: Any, factors: Any, spikes: Any) -> Any:
    """The factors of the channels that spike, 0 elsewhere; `spikes` is the address of the bits."""
    if not isinstance(factors, Floats):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        return builder.select(_bits(builder, arguments[1], kind.count), arguments[0], ir.Constant(kind, None))

    return factors(factors, types.int64), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]  # numba is untyped
def unpacked(typing_context: Any, spikes: Any, width: Any) -> Any:
    """The spikes as numbers; `spikes` is the address of the bits."""
    if (size := _literal(width)) is None:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.uitofp(_bits(builder, arguments[0], size), ir.VectorType(FLOAT, size))

    return Floats(size)(types.int64, width), generate


@intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
def charge(typing_context: Any, potential: Any, current: Any, threshold: Any, out: Any) -> Any:
    """``v += x; s = v >= threshold; v -= threshold * s``: returns v, and writes the bits of s to the address `out`."""
    if not isinstance(potential, Floats):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v, x, limits, address = arguments
        return _fired(builder, builder.fadd(v, x), limits, address)

    return potential(potential, current, threshold, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
def charge_within(
    typing_context: Any, potential: Any, current: Any, threshold: Any, low: Any, high: Any, out: Any
) -> Any:
    """Like `charge`, but the sum of potential and current saturates at `low` and `high`."""
    if not isinstance(potential, Floats):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v, x, limits, low, high, address = arguments
        charged = builder.fadd(v, x)
        for order, end in (("<", low), (">", high)):
            ends = repeated(builder, end, v.type)
            charged = builder.select(builder.fcmp_ordered(order, charged, ends), ends, charged)
        return _fired(builder, charged, limits, address)

    return potential(potential, current, threshold, types.float32, types.float32, types.int64), generate


def _fired(builder: Any, charged: Any, limits: Any, address: Any) -> Any:
    """The potentials after firing; writes the spikes to an address."""
    fires = builder.fcmp_ordered(">=", charged, limits)
    _store_bits(builder, fires, address, charged.type.count)
    return builder.select(fires, builder.fsub(charged, limits), charged)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]  # numba is untyped
def count(typing_context: Any, totals: Any, spikes: Any, width: Any) -> Any:
    """Add the bits at the address `spikes` to the 16-bit numbers at the address `totals`; returns these."""
    if (size := _literal(width)) is None:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.VectorType(HALF, size)
        place = at(builder, arguments[0], kind)
        found = builder.add(builder.load(place, align=2), builder.zext(_bits(builder, arguments[1], size), kind))
        builder.store(found, place, align=2)
        return found

    return Counts(size)(types.int64, types.int64, width), generate


@intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
def larger(typing_context: Any, one: Any, other: Any) -> Any:
    """The larger ones of two vectors of integers."""
    if not isinstance(one, Counts):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.icmp_signed(">", *arguments), *arguments)

    return one(one, other), generate


@intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
def grow(typing_context: Any, largest: Any, before: Any, out: Any) -> Any:
    """Write to the address `out` the bits of what is larger than at the address `before`, and replace it there."""
    if not isinstance(largest, Counts):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        place = at(builder, arguments[1], kind)
        grows = builder.icmp_signed(">", arguments[0], builder.load(place, align=2))
        builder.store(arguments[0], place, align=2)
        _store_bits(builder, grows, arguments[2], kind.count)
        return context.get_dummy_value()

    return types.void(largest, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]  # numba is untyped
def word(typing_context: Any, address: Any, size: Any) -> Any:
    """`size` bytes at an address, as an integer."""
    if (length := _literal(size)) is None:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = _load(builder, arguments[0], ir.IntType(8 * length), 1)
        return found if length == 8 else builder.zext(found, LONG)

    return types.int64(types.int64, size), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]  # numba is untyped
def store_word(typing_context: Any, number: Any, address: Any, size: Any) -> Any:
    """Write the lowest `size` bytes of an integer to an address."""
    if (length := _literal(size)) is None:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.IntType(8 * length)
        found = arguments[0] if length == 8 else builder.trunc(arguments[0], kind)
        builder.store(found, at(builder, arguments[1], kind), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, size), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]  # numba is untyped
def nonzero(typing_context: Any, address: Any, width: Any) -> Any:
    """Which of the numbers in single precision at an address are not zero, as bits."""
    if (size := _literal(width)) is None:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.VectorType(FLOAT, size)
        found = builder.fcmp_unordered("!=", _load(builder, arguments[0], kind, 4), ir.Constant(kind, None))
        bits = builder.bitcast(found, ir.IntType(size))
        return bits if size == 64 else builder.zext(bits, LONG)

    return types.int64(types.int64, width), generate


@intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
def list_ones(typing_context: Any, byte: Any, places: Any, start: Any, address: Any) -> Any:
    """Write eight integers to an address, of which as many count as bits of the byte are set: `start` plus what
    `places`, the address of ``[256, 8]``, says of them.

    No branch depends on the bits, so that none is predicted wrongly.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, places, start, to = arguments
        kind = ir.VectorType(LANE, BITS)
        entry = builder.add(places, builder.shl(byte, LONG(5)))  # of 32 bytes each
        found = builder.add(_load(builder, entry, kind, 4), repeated(builder, builder.trunc(start, LANE), kind))
        builder.store(found, at(builder, to, kind), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
def lowest(typing_context: Any, bits: Any) -> Any:
    """The place of the lowest bit of a number other than zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]  # numba is untyped
def ones_in(typing_context: Any, bits: Any) -> Any:
    """How many bits of a number are set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.int64), generate
