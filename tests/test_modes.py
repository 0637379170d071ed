"""How modes are written: names, numbers, percentages, instances, and SpikingJelly's own call."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sj_ann2snn import Converter, LegacyArgumentWarning, ModeError, Normalization, evaluate
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
    with pytest.raises(ModeError, match=r"is not allowed: a fraction of the maximum lies in \(0, 1\]"):
        mode(written)


@pytest.mark.parametrize("written", ["0%", "100.1%", "-1%", "1000%", "nan%", "inf%"])
def test_percentages_out_of_range(written: str) -> None:
    with pytest.raises(ModeError, match=rf"^mode='{written}' is not allowed: a percentage lies in \(0, 100\]"):
        mode(written)


@pytest.mark.parametrize("written", ["%", "abc%", "99,9%", "99.9%%"])
def test_percentages_that_are_no_numbers(written: str) -> None:
    with pytest.raises(ModeError, match=rf"^mode='{written}' is not allowed: in front of the % stands a number"):
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
    with pytest.raises(ModeError, match=r"For a percentile write a string, mode='99\.9%'"):
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
    with pytest.raises(ModeError, match=r"lies in \(0, 1\]"):
        Fraction(fraction)


@pytest.mark.parametrize("percentile", [0.0, -1.0, 100.5, float("nan")])
def test_percentile_checks_its_range(percentile: float) -> None:
    with pytest.raises(ModeError, match=r"lies in \(0, 100\]"):
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


# SpikingJelly 0.0.0.0.14's own call ----------------------------------------------------------------


def loader() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [(torch.rand(8, 4, generator=generator), torch.randint(0, 3, (8,), generator=generator)) for _ in range(3)]


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("Max", Max),
        ("max", Max),
        ("MAX", Max),
        ("99.9%", Percentile),
        ("99%", Percentile),
        (1.0 / 2, Fraction),
        (0.3, Fraction),
    ],
)
def test_spikingjellys_own_call(written: Any, kind: type) -> None:
    with pytest.warns(LegacyArgumentWarning) as warned:
        positional = Converter(loader(), None, written, 0.1, True)
    with pytest.warns(LegacyArgumentWarning):
        named = Converter(dataloader=loader(), device=None, mode=written, momentum=0.1, fuse_flag=True)
    (warning,) = warned
    assert Path(warning.filename).name == Path(__file__).name
    message = str(warning.message)
    assert message.startswith("momentum=0.1 has no effect: statistics are exact over all of the calibration data")
    assert "maxpool_momentum" in message
    for converter in (positional, named):
        assert type(converter.normalization) is kind
        converter.progress = False
    ann = network()
    first, second = positional(ann), named(ann)
    assert positional.report.scales == named.report.scales
    assert (
        evaluate(first, loader(), T=20, progress=False).accuracy
        == evaluate(second, loader(), 20, progress=False).accuracy
    )


def test_momentum_changes_no_statistics() -> None:
    ann = network()
    scales = []
    for arguments in ({}, {"momentum": 0.1}, {"momentum": 0.9}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LegacyArgumentWarning)
            converter = Converter(loader(), progress=False, **arguments)
        converter(ann)
        scales.append(converter.report.scales)
    assert scales[0] == scales[1] == scales[2]
    largest = max(torch.relu(ann[0](x)).max().item() for x, _ in loader())
    assert scales[0]["1"] == pytest.approx((largest, largest))


def test_without_momentum_nothing_is_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Converter(loader(), "cpu", "Max")


def test_fuse_flag_false_keeps_batch_norms_apart() -> None:
    ann = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU()).eval()
    ann[1].running_mean.uniform_(-1, 1)
    fused, apart = (Converter(loader(), fuse_flag=flag, progress=False) for flag in (True, False))
    fused_names = [entry.name for entry in (fused(ann), fused.report)[1]]
    apart_names = [entry.name for entry in (apart(ann), apart.report)[1]]
    assert fused_names == ["0", "2"]
    assert apart_names == ["0", "1", "2"]
    assert fused.report["2"].scale == pytest.approx(apart.report["2"].scale, rel=1e-5)
