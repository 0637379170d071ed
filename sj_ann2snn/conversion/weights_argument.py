"""What the converter's argument `weights` means."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import OptionError
from ..support.wording import shown

__all__ = ["BITS", "WEIGHTS", "WeightsAsked", "weights_asked"]

BITS = {"int4": 4, "int8": 8, "int16": 16}
"""Widths of integers, and their bits."""

TUNED = "tuned"


@dataclass(frozen=True)
class WeightsAsked:
    """What the caller wants of the weights.

    >>> asked = weights_asked("tuned-int8")
    >>> asked.tuned, asked.integers, asked.bits
    (True, 'int8', 8)

    Attributes:
        tuned: Corrections may change them.
        integers: The width of integer weights, "int8"; None for floating point.
    """

    tuned: bool = False
    integers: str | None = None

    @property
    def bits(self) -> int | None:
        """The bits of integer weights; None for floating point."""
        return None if self.integers is None else BITS[self.integers]


WEIGHTS: dict[str, WeightsAsked] = {
    TUNED: WeightsAsked(tuned=True),
    **{name: WeightsAsked(integers=name) for name in BITS},
    **{f"{TUNED}-{name}": WeightsAsked(True, name) for name in BITS},
}
"""The allowed values of `weights`."""


def weights_asked(weights: str | None) -> WeightsAsked:
    """What `weights` asks for.

    Raises:
        OptionError: It is not known.
    """
    if weights is None:
        return WeightsAsked()
    if not isinstance(weights, str) or weights not in WEIGHTS:
        widths, both = (", ".join(repr(prefix + name) for name in BITS) for prefix in ("", f"{TUNED}-"))
        raise OptionError(
            f"weights={shown(weights)} is not known. Allowed are {widths}, for integers of that width; {TUNED!r}, to "
            f"let corrections change weights; {both}, for both; and None, for neither."
        )
    return WEIGHTS[weights]
