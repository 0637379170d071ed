"""SpikingJelly 0.0.0.0.14's own call of its converter."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sj_ann2snn import Converter, LegacyArgumentWarning, evaluate
from sj_ann2snn.builtin.normalizations import Fraction, Max, Percentile


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


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
        converter = Converter(loader(), "cpu", "Max")
    assert isinstance(converter.normalization, Max)


def test_fuse_flag_false_keeps_batch_norms_apart() -> None:
    ann = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU()).eval()
    ann[1].running_mean.uniform_(-1, 1)
    fused, apart = (Converter(loader(), fuse_flag=flag, progress=False) for flag in (True, False))
    fused_names = [entry.name for entry in (fused(ann), fused.report)[1]]
    apart_names = [entry.name for entry in (apart(ann), apart.report)[1]]
    assert fused_names == ["0", "2"]
    assert apart_names == ["0", "1", "2"]
    assert fused.report["2"].scale == pytest.approx(apart.report["2"].scale, rel=1e-5)
