"""Numbers for people."""

from __future__ import annotations

import math

__all__ = ["percent", "quantity"]


def percent(value: float | None) -> str:
    """A share in percent, with as many digits as matter.

    >>> percent(0.5), percent(0.0312), percent(0.00004), percent(None)
    ('50 %', '3.1 %', '0.004 %', '?')
    """
    if value is None:
        return "?"
    if not math.isfinite(value):
        return "∞"
    number = 100 * value
    if number == 0:
        return "0 %"
    return f"{number:.3g} %" if number >= 1000 or number >= 9.95 else f"{number:.{2 if number >= 0.995 else 1}g} %"


def quantity(value: float | None) -> str:
    """A count or an amount for a table: in millions, billions or trillions where it is large.

    >>> quantity(0), quantity(0.1234), quantity(12.0), quantity(4321.4), quantity(1234567), quantity(None)
    ('0', '0.123', '12', '4,321', '1.23 M', '?')
    """
    if value is None:
        return "?"
    if not math.isfinite(value):
        return "∞"
    if abs(value) < 99.95:
        return f"{value:.3g}"
    if abs(value) < 999_999.5:
        return f"{value:,.0f}"
    for size, sign in ((1e9, "M"), (1e12, "G"), (1e15, "T")):
        if abs(value) < 0.9995 * size:
            return f"{value / size * 1e3:.3g} {sign}"
    return f"{value:.3g}"
