"""How modes are written: names, numbers, percentages and instances."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sj_ann2snn import Converter, ModeError, Normalization
from sj_ann2snn.builtin.normalizations import Fraction, Max, Percentile


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def mode(written: object) -> Normalization:
    return Converter(mode=written).normalization


@pytest.mark.parametrize("written", ["max", "Max", "MAX", " max "])
def test_max_in_any_case(written: str) -> None:
    assert type(mode(written)) is Max


def test_the_default_is_max() -> None:
    assert type(Converter().normalization) is Max


@pytest.mark.parametrize(
    ("written", "percentile"),
    [("99.9%", 99.9), ("99.9 %", 99.9), (" 99% ", 99.0), ("100%", 100.0), ("50%", 50.0), ("0.1%", 0.1), ("1e-1%", 0.1)],
)
def test_percentiles(written: str, percentile: float) -> None:
    strategy = mode(written)
    assert isinstance(strategy, Percentile)
    assert strategy.percentile == percentile
    assert str(strategy) == f"{percentile:g}%"


@pytest.mark.parametrize(
    ("written", "fraction"),
    [
        (0.5, 0.5),
        (1 / 3, 1 / 3),
        (1.0, 1.0),
        (1, 1.0),
        ("0.5", 0.5),
        (".25", 0.25),
        ("1", 1.0),
        ("1/2", 0.5),
        (" 1 / 4 ", 0.25),
        ("2/5", 0.4),
        (1e-9, 1e-9),
    ],
)
def test_fractions(written: object, fraction: float) -> None:
    strategy = mode(written)
    assert isinstance(strategy, Fraction)
    assert strategy.fraction == fraction


@pytest.mark.parametrize(
    "written", [0, 0.0, -0.5, 1.5, 2, float("nan"), float("inf"), "0", "1.5", "3/2", "2", "1/0", "0/3"]
)
def test_fractions_out_of_range(written: object) -> None:
    with pytest.raises(ModeError, match=r"is not allowed: a fraction of the maximum must be in \(0, 1\]"):
        mode(written)


@pytest.mark.parametrize("written", ["0%", "100.1%", "-1%", "1000%", "nan%", "inf%"])
def test_percentages_out_of_range(written: str) -> None:
    with pytest.raises(ModeError, match=rf"^mode='{written}' is not allowed: a percentage must be in \(0, 100\]"):
        mode(written)


@pytest.mark.parametrize("written", ["%", "abc%", "99,9%", "99.9%%"])
def test_percentages_that_are_no_numbers(written: str) -> None:
    with pytest.raises(ModeError, match=rf"^mode='{written}' is not allowed: write a number"):
        mode(written)


@pytest.mark.parametrize("written", [True, False, None, b"max", "mean", "", [0.5], ("max",), "minmax"])
def test_what_no_mode_is_written_like(written: object) -> None:
    with pytest.raises(ModeError, match=r"is not known\..*Known modes: .*max \(sj-ann2snn .*") as caught:
        mode(written)
    assert f"mode={written!r} " in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(("typo", "meant"), [("maxx", "max"), ("Mxa", "max")])
def test_close_matches_are_offered(typo: str, meant: str) -> None:
    with pytest.raises(ModeError, match=rf"Did you mean .*'{meant}'"):
        mode(typo)


@pytest.mark.parametrize("written", ["99.9", 99.9])
def test_a_percentile_without_its_sign_is_told_how_to_write_it(written: object) -> None:
    with pytest.raises(ModeError, match=r"For a percentile, write a string, mode='99\.9%'"):
        mode(written)


def test_an_instance_stands_for_the_name() -> None:
    strategy = Percentile(99.5)
    assert mode(strategy) is strategy
    converter = Converter([torch.rand(10, 4)], mode=strategy, progress=False)
    converter(network())
    assert converter.report.mode == "99.5%"
    assert converter.report.mode_owner == "your own argument"


def test_a_class_is_no_mode() -> None:
    with pytest.raises(ModeError, match=r"^mode=Percentile is a class; give an instance, mode=Percentile\(\.\.\.\)"):
        mode(Percentile)


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.01, float("nan")])
def test_fraction_checks_its_range(fraction: float) -> None:
    with pytest.raises(ModeError, match=r"must be in \(0, 1\]"):
        Fraction(fraction)


@pytest.mark.parametrize("percentile", [0.0, -1.0, 100.5, float("nan")])
def test_percentile_checks_its_range(percentile: float) -> None:
    with pytest.raises(ModeError, match=r"must be in \(0, 100\]"):
        Percentile(percentile)


@pytest.mark.parametrize("written", ["max", "99.9%", 0.5, "1/2"])
def test_what_a_mode_is_called_leads_back_to_it(written: object) -> None:
    strategy = mode(written)
    assert type(mode(str(strategy))) is type(strategy)
    assert str(mode(str(strategy))) == str(strategy)


@pytest.mark.parametrize(("written", "share"), [("max", 1.0), (0.5, 0.5), ("1/4", 0.25), ("100%", 1.0)])
def test_the_scale_is_what_the_mode_says(written: object, share: float) -> None:
    ann, x = network(), torch.rand(50, 4)
    converter = Converter([x[:20], x[20:]], mode=written, progress=False)
    converter(ann)
    largest = torch.relu(ann[0](x)).max().item()
    assert converter.report["1"].scale == pytest.approx((share * largest, share * largest), rel=2e-4)
