"""Options that are integers, numbers and flags: what is taken, and what the message says of anything else."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from sj_ann2snn import InputError, OptionError, require_flag, require_integer, require_number, require_shape


@pytest.mark.parametrize("value", [1, 7, np.int64(3), np.uint8(2)])
def test_integers_come_back_as_int(value: Any) -> None:
    found = require_integer("levels", value)
    assert type(found) is int
    assert found == value


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "2", None, np.float32(2), np.bool_(True), math.nan])
def test_anything_else_than_an_integer_is_refused(value: Any) -> None:
    with pytest.raises(OptionError) as caught:
        require_integer("levels", value, what="the number of levels")
    assert (
        str(caught.value) == f"levels={value!r} is not allowed: the number of levels must be an integer of at least 1."
    )


def test_both_bounds_are_allowed_themselves() -> None:
    assert [require_integer("k", value, 0, 2) for value in range(3)] == [0, 1, 2]
    for value in (-1, 3):
        with pytest.raises(OptionError, match=rf"^k={value} is not allowed: it must be an integer from 0 to 2\.$"):
            require_integer("k", value, 0, 2)


def test_the_error_may_be_another_one() -> None:
    with pytest.raises(
        InputError, match=r"^T=0 is not allowed: the number of time steps must be an integer of at least 1\.$"
    ):
        require_integer("T", 0, what="the number of time steps", error=InputError)


@pytest.mark.parametrize("value", [0.5, 1, np.float32(0.25), Fraction(1, 3)])
def test_numbers_come_back_as_float(value: Any) -> None:
    found = require_number("rate", value, above=0, most=1)
    assert type(found) is float
    assert found == float(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "0.5", None, 1j])
def test_what_is_no_finite_number_is_refused(value: Any) -> None:
    with pytest.raises(OptionError, match=r" is not allowed: it must be a number\.$"):
        require_number("rate", value)


@pytest.mark.parametrize(
    ("bounds", "allowed", "refused", "shown"),
    [
        ({"above": 0, "below": 1}, [0.1, 0.9], [0, 1], " in (0, 1)"),
        ({"least": 0, "below": 1}, [0, 0.9], [-0.1, 1], " in [0, 1)"),
        ({"above": 0, "most": 100}, [0.1, 100], [0, 100.1], " in (0, 100]"),
        ({"least": 0, "most": 1}, [0, 1], [-1, 2], " in [0, 1]"),
        ({"above": 0}, [0.1], [0, -1], " greater than 0"),
        ({"least": 2}, [2], [1.9], " of at least 2"),
        ({"most": 2}, [-5, 2], [2.1], " in (-inf, 2]"),
    ],
)
def test_bounds(bounds: dict[str, float], allowed: list[float], refused: list[float], shown: str) -> None:
    for value in allowed:
        assert require_number("x", value, **bounds) == value
    for value in refused:
        with pytest.raises(OptionError) as caught:
            require_number("x", value, hint="Try another.", **bounds)
        assert str(caught.value) == f"x={value!r} is not allowed: it must be a number{shown}. Try another."


@pytest.mark.parametrize("value", [0, 1, "yes", None, np.bool_(True)])
def test_a_flag_is_a_bool(value: Any) -> None:
    assert require_flag("mirror", False) is False
    with pytest.raises(OptionError, match=r"^mirror=.* is not allowed: it must be True or False\.$"):
        require_flag("mirror", value)


@pytest.mark.parametrize(
    ("given", "wanted"), [("3x32X16", (3, 32, 16)), ("8", (8,)), (8, (8,)), ([1, 2], (1, 2)), (("4", 2), (4, 2))]
)
def test_a_shape_is_numbers_or_text(given: Any, wanted: tuple[int, ...]) -> None:
    assert require_shape("input_shape", given) == wanted


@pytest.mark.parametrize("given", ["", "3x", "3,4", (), (3, 0), -1, None, 2.5, object()])
def test_what_is_no_shape_is_refused(given: Any) -> None:
    with pytest.raises(
        OptionError, match=r"^input_shape=.* is not allowed: give the sizes of a sample, \(3, 32, 32\) or"
    ):
        require_shape("input_shape", given)
