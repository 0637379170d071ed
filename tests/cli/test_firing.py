"""Firing rates against the activations of the ANN."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sj_ann2snn import Converter, simulate
from sj_ann2snn.cli.firing import ann_inputs, firing_rates, neuron_rates
from sj_ann2snn.cli.pictures import LayerRates

pytest.importorskip("sklearn", reason="the demo trains on scikit-learn's digits")
pytest.importorskip("matplotlib", reason="the demo draws with matplotlib")


@pytest.mark.parametrize("steps", [1, 4, 50])
def test_one_neuron_is_a_staircase(steps: int) -> None:
    inputs = torch.linspace(-0.5, 2.0, 1000, dtype=torch.float64) + 1e-6
    rates = neuron_rates(inputs, steps)
    expected = (inputs * steps).floor().clamp(0, steps) / steps
    torch.testing.assert_close(rates, expected)


def test_rates_of_a_network_fit_its_inputs_and_its_output() -> None:
    torch.manual_seed(3)
    ann = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU())
    x = torch.rand(40, 5)
    converter = Converter([x], mode="1/2", progress=False)
    snn = converter(ann)
    rates = firing_rates(snn, ["1", "3"], x, steps=25)
    inputs = ann_inputs(ann, ["1", "3"], x)
    assert inputs["1"].shape == rates["1"].shape == (280,)
    torch.testing.assert_close(inputs["1"].view(40, 7), ann[0](x).detach())
    # The first layer's input is constant, so every neuron is the single neuron of the left-hand picture.
    currents = inputs["1"].double() / converter.report.scales["1"][0]
    away_from_a_step = ((currents * 25).frac() - 0.5).abs() < 0.49
    torch.testing.assert_close(
        rates["1"].double()[away_from_a_step], neuron_rates(currents, 25)[away_from_a_step], atol=1e-6, rtol=0
    )
    output = rates["3"].view(40, 6) * converter.report.scales["3"][0]
    torch.testing.assert_close(output, simulate(snn, x, T=25), atol=1e-5, rtol=1e-5)
    assert not any(module._forward_hooks for network in (ann, snn) for module in network.modules())


def test_the_saturated_share_counts_active_inputs() -> None:
    assert LayerRates("a", torch.tensor([-1.0, 0.5, 1.0, 1.5, 3.0]), torch.zeros(5)).saturated == 0.5
    assert LayerRates("a", torch.tensor([-1.0, 0.0]), torch.zeros(2)).saturated == 0.0
