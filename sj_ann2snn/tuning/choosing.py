"""Which of the conversions that were measured on the same samples is chosen, so that luck with them counts little."""

from __future__ import annotations

from collections.abc import Collection
from statistics import NormalDist

from .measuring import Point, Record

__all__ = ["chosen", "holds", "spare_errors"]

BY_LUCK = NormalDist().cdf(-1)
"""The chance that a drop is one standard error or more below its true value."""


def spare_errors(conversions: int) -> float:
    """How many standard errors below what is allowed a drop must lie, if the cheapest of several conversions is taken.

    One for a single conversion: its drop is that much too low with a chance of 16 %. Of several, one is, with a larger
    chance, and the cheapest that seems to hold is likely to be the one. Conversions of one network are measured on the
    same samples and err alike, so that k of them do not count as k independent ones, but as √k. With the planted noise
    of `tests/tuning/test_choosing.py` and 700 samples, that leaves a third of what is lost beyond the allowed points
    with one standard error to spare, for a quarter more cost.

    >>> [round(spare_errors(count), 2) for count in (1, 4, 12)]
    [1.0, 1.41, 1.69]
    """
    return -NormalDist().inv_cdf(BY_LUCK / max(1, conversions) ** 0.5)


def holds(point: Point, allowed: float, conversions: int) -> bool:
    """True if a point loses at most `allowed`, with enough standard errors to spare for so many conversions."""
    return point.drop + spare_errors(conversions) * point.error <= allowed


def chosen(records: Collection[Record], allowed: float) -> Point | None:
    """The cheapest point that loses at most `allowed`, with enough standard errors to spare for so many records.

    If there is none, then with one standard error to spare; then the point that is the likeliest to lose no more; and
    if none does, the point that loses least. None without any point.

    Args:
        records: Conversions that were measured on the same samples.
        allowed: Points that may be lost.
    """
    measured = [record for record in records if record.points]
    if not measured:
        return None
    for spare in (spare_errors(len(measured)), 1.0):
        first = min(measured, key=lambda record: record.rank(allowed, spare))
        found = first.cheapest(allowed, spare)
        if found is not None:
            return found
    points = [point for record in measured for point in record.points.values()]
    enough = [point for point in points if point.drop <= allowed]
    if enough:
        return min(enough, key=lambda point: point.drop + point.error)
    return min(points, key=lambda point: (point.drop, point.cost))
