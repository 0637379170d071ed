"""Checks of options that modes, neurons, corrections and readouts share."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from ..errors import Ann2SnnError, OptionError
from ..support.wording import shown

__all__ = ["require_flag", "require_integer", "require_number", "require_shape"]


def require_integer(
    option: str,
    value: object,
    least: int = 1,
    most: int | None = None,
    *,
    what: str = "it",
    error: type[Ann2SnnError] = OptionError,
) -> int:
    """Check that `value` is an integer from `least` to `most`, and return it as an `int`.

    >>> require_integer("levels", 4, what="the number of levels")
    4
    >>> require_integer("levels", 0, what="the number of levels")
    Traceback (most recent call last):
    sj_ann2snn.errors.OptionError: levels=0 is not allowed: the number of levels must be an integer of at least 1.

    Args:
        option: Name of the option, for the message.
        value: The caller's value. NumPy's integers count as integers, booleans do not.
        least: Smallest allowed value.
        most: Largest allowed value; None for no limit.
        what: The option in words, for the message.
        error: The error to raise.

    Raises:
        OptionError: It is anything else (or `error`).
    """
    if isinstance(value, Integral) and not isinstance(value, bool):
        number = int(value)
        if number >= least and (most is None or number <= most):
            return number
    allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise error(f"{option}={shown(value)} is not allowed: {what} must be an integer {allowed}.")


def require_number(
    option: str,
    value: object,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    what: str = "it",
    noun: str = "a number",
    hint: str = "",
) -> float:
    """Check that `value` is a finite number within the bounds, and return it as a `float`.

    >>> require_number("decay", 0.9, above=0, below=1)
    0.9
    >>> require_number("decay", 1, above=0, below=1, what="the decay")
    Traceback (most recent call last):
    sj_ann2snn.errors.OptionError: decay=1 is not allowed: the decay must be a number in (0, 1).

    Args:
        option: Name of the option, for the message.
        value: The caller's value. Booleans do not count as numbers.
        above: Lower bound, exclusive.
        least: Lower bound, inclusive.
        below: Upper bound, exclusive.
        most: Upper bound, inclusive.
        what: The option in words, for the message.
        noun: What it must be, for the message.
        hint: A sentence to end the message.

    Raises:
        OptionError: It is anything else.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        if (
            math.isfinite(number)
            and (above is None or number > above)
            and (least is None or number >= least)
            and (below is None or number < below)
            and (most is None or number <= most)
        ):
            return number
    allowed = _interval(above, least, below, most)
    raise OptionError(
        f"{option}={shown(value)} is not allowed: {what} must be {noun}{allowed}.{' ' if hint else ''}{hint}"
    )


def require_flag(option: str, value: object) -> bool:
    """Check that `value` is a bool, and return it.

    >>> require_flag("mirror", True)
    True

    Raises:
        OptionError: It is anything else.
    """
    if isinstance(value, bool):
        return value
    raise OptionError(f"{option}={shown(value)} is not allowed: it must be True or False.")


def require_shape(option: str, value: object) -> tuple[int, ...]:
    """Check that `value` is the shape of a sample, as numbers or as text, and return it as a tuple.

    >>> require_shape("input_shape", "3x32x32")
    (3, 32, 32)
    >>> require_shape("input_shape", 8)
    (8,)

    Raises:
        OptionError: It is anything else.
    """
    given: Any = value
    try:
        sizes = given.lower().split("x") if isinstance(given, str) else [given] if isinstance(given, int) else given
        shape = tuple(int(size) for size in sizes)
    except (TypeError, ValueError):
        shape = ()
    if not shape or min(shape) < 1:
        raise OptionError(
            f"{option}={shown(value)} is not allowed: give the sizes of a sample, (3, 32, 32) or '3x32x32'."
        )
    return shape


def _interval(above: float | None, least: float | None, below: float | None, most: float | None) -> str:
    if below is None and most is None:
        low = above if above is not None else least
        if low is None:
            return ""
        return f" greater than {low:g}" if above is not None else f" of at least {low:g}"
    left = f"({above:g}" if above is not None else f"[{least:g}" if least is not None else "(-inf"
    right = f"{below:g})" if below is not None else f"{most:g}]"
    return f" in {left}, {right}"
