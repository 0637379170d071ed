"""The energy of single operations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

from ...errors import OptionError
from ...support.wording import did_you_mean, listed, shown

__all__ = ["PRESETS", "EnergyPerOperation", "energy_per_operation"]


@dataclass(frozen=True)
class EnergyPerOperation:
    """The energy of one operation of each kind, in pJ.

    >>> EnergyPerOperation().mac, EnergyPerOperation(mac=0.23, accumulate=0.03).multiply
    (4.6, 0.2)

    The defaults are those of 32-bit floating-point numbers in 45 nm CMOS (Horowitz, "Computing's energy problem (and
    what we can do about it)", ISSCC 2014, figure 1.1.9), which most papers on spiking networks use.

    Attributes:
        mac: One multiplication and one addition.
        accumulate: One addition.
        multiply: One multiplication; by default `mac` less `accumulate`.
        update: One step of one neuron. Zero by default: most papers do not count it. Two additions, 2 * 0.9, are the
            charge and the reset of an IF neuron.
        name: What to call these figures in tables.

    Raises:
        OptionError: A figure is no finite number of at least zero, or `mac` is below `accumulate`.
    """

    mac: float = 4.6
    accumulate: float = 0.9
    multiply: float | None = None
    update: float = 0.0
    name: str = ""

    def __post_init__(self) -> None:
        for field in ("mac", "accumulate", "multiply", "update"):
            value = getattr(self, field)
            if field == "multiply" and value is None:
                continue
            if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
                raise OptionError(
                    f"EnergyPerOperation({field}={shown(value)}) is not allowed: it must be an energy in pJ, a finite "
                    "number of at least 0."
                )
            object.__setattr__(self, field, float(value))
        if self.multiply is None:
            if self.mac < self.accumulate:
                raise OptionError(
                    f"EnergyPerOperation(mac={self.mac:g}, accumulate={self.accumulate:g}) is not allowed: a MAC is a "
                    "multiplication and an addition, so it cannot cost less than the addition. Give multiply= as well "
                    "if that is what you measured."
                )
            object.__setattr__(self, "multiply", round(self.mac - self.accumulate, 12))
        if not isinstance(self.name, str):
            raise OptionError(f"EnergyPerOperation(name={shown(self.name)}) is not allowed: it must be a string.")

    def of(
        self, *, macs: float = 0.0, accumulates: float = 0.0, multiplications: float = 0.0, updates: float = 0.0
    ) -> float:
        """The energy of some operations, in pJ.

        >>> EnergyPerOperation().of(macs=10, accumulates=100)
        136.0
        """
        assert self.multiply is not None
        return macs * self.mac + accumulates * self.accumulate + multiplications * self.multiply + updates * self.update

    def __str__(self) -> str:
        update = f", update {self.update:g} pJ" if self.update else ", neuron updates not counted"
        name = f"{self.name}: " if self.name else ""
        return (
            f"{name}MAC {self.mac:g} pJ, accumulate {self.accumulate:g} pJ, multiplication {self.multiply:g} pJ{update}"
        )


PRESETS: Mapping[str, EnergyPerOperation] = {
    "float32": EnergyPerOperation(4.6, 0.9, 3.7, name="32-bit float, 45 nm"),
    "float16": EnergyPerOperation(1.5, 0.4, 1.1, name="16-bit float, 45 nm"),
    "int32": EnergyPerOperation(3.2, 0.1, 3.1, name="32-bit integer, 45 nm"),
    "int8": EnergyPerOperation(0.23, 0.03, 0.2, name="8-bit integer, 45 nm"),
}
"""Horowitz's figures, by the kind of number."""


def energy_per_operation(given: object) -> EnergyPerOperation:
    """What the argument `energy` means.

    Raises:
        OptionError: It is neither a known name nor an `EnergyPerOperation`.
    """
    if given is None:
        return PRESETS["float32"]
    if isinstance(given, EnergyPerOperation):
        return given
    if isinstance(given, str) and given in PRESETS:
        return PRESETS[given]
    near = did_you_mean(given, PRESETS) if isinstance(given, str) else ""
    raise OptionError(
        f"energy={shown(given)} is not allowed: it must be {listed(map(repr, PRESETS))}, or your own figures, "
        f"EnergyPerOperation(mac=4.6, accumulate=0.9), in pJ.{f' {near}' if near else ''}"
    )
