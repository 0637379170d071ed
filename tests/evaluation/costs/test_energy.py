"""Energies of single operations."""

from __future__ import annotations

from typing import Any

import pytest

from sj_ann2snn import EnergyPerOperation, OptionError
from sj_ann2snn.evaluation.costs.energy import PRESETS, energy_per_operation
from sj_ann2snn.evaluation.costs.result import energy_text


def test_the_figures_of_horowitz() -> None:
    figures = {name: (one.multiply, one.accumulate, one.mac) for name, one in PRESETS.items()}
    assert figures == {
        "float32": (3.7, 0.9, 4.6),
        "float16": (1.1, 0.4, 1.5),
        "int32": (3.1, 0.1, 3.2),
        "int8": (0.2, 0.03, 0.23),
    }
    assert all(
        one.multiply is not None and one.mac == pytest.approx(one.multiply + one.accumulate) for one in PRESETS.values()
    )
    assert energy_per_operation(None) is energy_per_operation("float32")


def test_ones_own_figures() -> None:
    own = EnergyPerOperation(mac=10, accumulate=1)
    assert own.multiply == 9
    assert own.of(macs=1, accumulates=2, multiplications=3, updates=4) == 10 + 2 + 27
    assert EnergyPerOperation(1.0, 2.0, multiply=0.5).multiply == 0.5  # as measured
    assert energy_per_operation(own) is own


@pytest.mark.parametrize("given", [{"mac": -1}, {"accumulate": "1"}, {"update": float("nan")}, {"multiply": True}])
def test_what_is_no_energy(given: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="must be an energy in pJ"):
        EnergyPerOperation(**given)


def test_a_mac_costs_no_less_than_its_addition() -> None:
    with pytest.raises(OptionError, match="cannot cost less than the addition"):
        EnergyPerOperation(mac=0.5)
    with pytest.raises(OptionError, match="name=3"):
        EnergyPerOperation(name=3)  # type: ignore[arg-type]


def test_units() -> None:
    assert [energy_text(10.0**power) for power in (-1, 0, 3, 6, 9, 12)] == [
        "0.1 pJ",
        "1 pJ",
        "1 nJ",
        "1 µJ",
        "1 mJ",
        "1 J",
    ]
