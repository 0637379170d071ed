"""Pieces of LLVM code that intrinsics for numba have in common."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

__all__ = ["LANE", "at", "carried", "carry_on", "repeated"]

LANE = ir.IntType(32)


def at(builder: Any, address: Any, kind: Any) -> Any:
    """The pointer to a value of that kind at an address."""
    return builder.inttoptr(address, kind.as_pointer())


def repeated(builder: Any, number: Any, kind: Any) -> Any:
    """A vector of which every element is `number`."""
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, number, LANE(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(LANE, kind.count), [0] * kind.count))


def carried(builder: Any, count: int, kind: Any, before: Any, start: Any) -> list[Any]:
    """Values that a loop changes, with those before it, which come from the block `before`."""
    found = [builder.phi(kind) for _ in range(count)]
    carry_on(before, found, start)
    return found


def carry_on(block: Any, values: Any, after: Any) -> None:
    """Say what `values` are if a loop goes on at the end of a block."""
    for value, new in zip(values, after, strict=True):
        value.add_incoming(new, block)
