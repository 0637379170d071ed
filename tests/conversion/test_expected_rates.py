"""The report has expected firing rates, and a layer that cannot fire within T steps is named."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, QuietLayerWarning, evaluate, simulate
from sj_ann2snn.conversion.expected_rates import ActivitySums

from ..helpers.networks import GradedMaker


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3)).eval()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(200, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def with_an_outlier(x: Tensor) -> Tensor:
    outlier = x.clone()
    outlier[7] *= 300
    return outlier


def test_the_report_has_the_mean_rates(x: Tensor) -> None:
    ann = network()
    for options in ({"mode": "max"}, {"mode": "99%"}, {"mode": "max", "channel_wise": True}):
        converter = Converter([x[:50], x[50:]], progress=False, **options)
        snn = converter(ann)
        result = evaluate(snn, [(x, torch.zeros(200, dtype=torch.int64))], T=100, progress=False)
        rates = [converter.report[name].rate for name in ("1", "3")]
        assert [layer.firing_rate for layer in result.layers] == pytest.approx(rates, rel=0.1)
        assert converter.report["2"].rate is None


def test_a_layer_with_an_outlier_is_named(x: Tensor, with_an_outlier: Tensor) -> None:
    snn = Converter([with_an_outlier], progress=False)(network())
    with pytest.warns(QuietLayerWarning, match=r"T=16 is too few for 2 layer\(s\).*: [13] \(about \d+ steps\)"):
        simulate(snn, x, T=16)
    with pytest.warns(QuietLayerWarning, match="T=16 is too few"):
        evaluate(snn, [(x, torch.zeros(200, dtype=torch.int64))], T=16, progress=False)
    with pytest.warns(QuietLayerWarning, match="T=16 is too few"):
        Converter([with_an_outlier], T=16, progress=False)(network())
    whole = nn.Sequential(network(), nn.Identity())
    with pytest.warns(QuietLayerWarning, match="T=16 is too few"):
        simulate(Converter([with_an_outlier], progress=False, convert_only="0")(whole), x, T=16)
    with pytest.warns(QuietLayerWarning):
        simulate(copy.deepcopy(snn), x, T=16)


@pytest.mark.parametrize(
    "options", [{"mode": "95%"}, {"neuron": GradedMaker(levels=300)}], ids=["a lower percentile", "graded spikes"]
)
def test_what_the_warning_advises_silences_it(x: Tensor, with_an_outlier: Tensor, options: dict[str, Any]) -> None:
    snn = Converter([with_an_outlier], progress=False, T=16, **options)(network())
    simulate(snn, x, T=16)


def test_more_steps_silence_it(x: Tensor, with_an_outlier: Tensor) -> None:
    simulate(Converter([with_an_outlier], progress=False)(network()), x[:2], T=4000)


@pytest.mark.parametrize("steps", [1, 2, 8, 32])
@pytest.mark.parametrize("mode", ["max", "99.9%", 0.5])
def test_a_healthy_network_is_not_warned_of(x: Tensor, mode: object, steps: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulate(Converter([x], mode=mode, progress=False, T=steps)(network()), x, T=steps)


def test_a_sparse_layer_is_not_quiet(x: Tensor) -> None:
    """Few neurons are active, but these fire often: the mean rate alone would say otherwise."""
    ann = network()
    with torch.no_grad():
        ann[0].bias[1:] = -100
        ann[0].bias[0] = 1
    converter = Converter([x], progress=False, T=16)
    simulate(converter(ann), x, T=16)
    rate = converter.report["1"].rate
    assert rate is not None
    assert rate < 1 / 32


def test_sums() -> None:
    sums = ActivitySums(None)
    sums.see(torch.tensor([[0.0, 1.0], [0.0, 3.0]]))
    assert (sums.mean_rate(torch.tensor(4.0)), sums.active_rate(torch.tensor(4.0))) == (0.25, 0.5)
    per_channel = ActivitySums(1)
    per_channel.see(torch.tensor([[2.0, 1.0], [4.0, 3.0]]))
    assert per_channel.mean_rate(torch.tensor([4.0, 8.0])) == pytest.approx(0.5)
    assert ActivitySums(None).active_rate(torch.tensor(1.0)) == 0.0
