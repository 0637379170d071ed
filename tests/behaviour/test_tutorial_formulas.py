"""Formulas of docs/tutorial.md that its own code does not check, or checks for one setting only."""

from __future__ import annotations

import pytest
import torch
from spikingjelly.activation_based import functional, monitor, neuron
from torch import nn

from sj_ann2snn import Converter, make_if_neuron


def converted(mode: str | float, initial: float) -> tuple[nn.Sequential, nn.Module, dict[str, float], torch.Tensor]:
    """A network of three layers, the converted one, its scales, and the samples that it was calibrated with."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    samples = torch.rand(50, 6)
    converter = Converter(mode=mode, initial_potential=initial, dataloader=[samples], progress=False)
    snn = converter(net)
    return net, snn, {layer: smallest for layer, (smallest, _) in converter.report.scales.items()}, samples


@pytest.mark.parametrize("initial", [0.0, 0.5])
@pytest.mark.parametrize("mode", ["max", "99.9%", 0.5])
@torch.no_grad()
def test_the_error_of_a_layer_is_what_it_inherits_and_its_own_remainder(mode: str | float, initial: float) -> None:
    """(7) everywhere, and (9) where the ANN's ReLU receives a positive input, clipping included."""
    steps = 24
    net, snn, scale, samples = converted(mode, initial)
    recorded = monitor.OutputMonitor(snn, neuron.IFNode)
    for _ in range(steps):
        snn(samples)
    value = {layer: scale[layer] * torch.stack(recorded[layer]).mean(0) for layer in scale}
    left = {layer: scale[layer] * (snn.get_submodule(layer).v - initial) / steps for layer in scale}
    recorded.remove_hooks()
    functional.reset_net(snn)

    torch.testing.assert_close(value["1"], net[0](samples) - left["1"])
    torch.testing.assert_close(value["3"], net[2](value["1"]) - left["3"])
    first, current = net[:2](samples), net[:3](samples)
    inherited = (value["1"] - first) @ net[2].weight.T
    active = current > 0
    assert 0.1 < active.float().mean() < 0.9
    torch.testing.assert_close((value["3"] - current)[active], (inherited - left["3"])[active], rtol=1e-4, atol=1e-5)
    if mode == 0.5:
        assert (first > scale["1"]).any(), "nothing is clipped"


@pytest.mark.parametrize("initial", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("steps", [1, 8, 100])
@torch.no_grad()
def test_rate_under_a_constant_current(initial: float, steps: int) -> None:
    """(4), in arithmetic without rounding."""
    current = torch.arange(-128, 257) / 128
    neurons = make_if_neuron(initial_potential=initial)
    rate = sum(neurons(current) for _ in range(steps)) / steps
    assert torch.equal(rate, torch.floor(steps * current + initial).clamp(0, steps) / steps)


@torch.no_grad()
def test_first_spike() -> None:
    """(14): under a current of a/λ the first spike comes at step ⌈λ/a⌉."""
    current = torch.arange(1, 97) / 64
    neurons = make_if_neuron()
    spikes = torch.stack([neurons(current) for _ in range(64)])
    assert torch.equal(spikes.argmax(0) + 1, torch.ceil(1 / current).long())


@pytest.mark.parametrize("percent", [50.0, 99.0, 99.9])
@torch.no_grad()
def test_percentile_counts_zeros(percent: float) -> None:
    """(12) for other percentiles than the page's."""
    torch.manual_seed(0)
    net, samples = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), torch.randn(500, 6)
    net[0].bias.fill_(0.5)
    converter = Converter(mode=f"{percent}%", dataloader=[samples], progress=False)
    converter(net)
    expected = torch.quantile(net[:2](samples).double().flatten(), percent / 100).item()
    assert converter.report["1"].scale[0] == pytest.approx(expected, rel=2**-12)


@torch.no_grad()
def test_pooling_currents_in_front_of_the_neurons_answers_too_much_unless_they_are_constant() -> None:
    """What the page says of `maxpool="pre-spike"`."""
    rates = torch.tensor([[0.5, 0.5], [0.0, 0.0]]).reshape(1, 1, 2, 2)
    in_turn = (
        torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]]).reshape(2, 1, 1, 2, 2).repeat(8, 1, 1, 1, 1)
    )
    assert torch.equal(in_turn.mean(0), rates)
    for currents, expected in ((in_turn, 1.0), (rates.expand(16, -1, -1, -1, -1), 0.5)):
        neurons = make_if_neuron()
        out = sum(neurons(nn.functional.max_pool2d(current, 2)) for current in currents) / 16
        assert out.item() == expected
