"""The neuron and the mode against their definitions, and through the converter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sj_ann2snn_multithreshold import MultiThreshold, MultiThresholdMode, MultiThresholdNeuron
from torch import Tensor, nn

from sj_ann2snn import CalibrationSite, Converter, OptionError, evaluate, simulate

SETTINGS = [(8, 1, 4, True), (8, 2, 4, False), (3, 5, 2, False), (1, 3, 8, True)]


def by_definition(currents: list[float], levels: int, steps: int, finer: int, rest: bool) -> list[tuple[float, float]]:
    """What the neuron represents after every step, and its spike, by comparing it with every size there is."""
    value, total, found = float(levels if rest else 0), 0.0, []
    for step, current in enumerate(currents, 1):
        total += current
        smallest = 1 / finer ** (min(step, steps, 4) - 1)
        sizes = [k * smallest for k in range(-levels, levels + 1)]
        missing = max(0.0, total / step) - value
        spike = min(sizes, key=lambda size: abs(size - missing))
        value += spike
        found.append((value, spike / smallest))
    return found


@pytest.mark.parametrize(("levels", "steps", "finer", "rest"), SETTINGS)
def test_emits_the_spike_nearest_to_its_potential(levels: int, steps: int, finer: int, rest: bool) -> None:
    generator = torch.Generator().manual_seed(levels)
    # No potential lies halfway between two sizes.
    currents = torch.randn(6, 40, generator=generator, dtype=torch.float64) * levels
    neuron = MultiThresholdNeuron(levels=levels, steps=steps, finer=finer, rest=rest)
    neuron.step_mode = "m"
    outputs = neuron(currents.unsqueeze(1))
    wanted = [by_definition(column.tolist(), levels, steps, finer, rest) for column in currents.T]
    values = torch.tensor([[value for value, _ in one] for one in wanted]).T.double()
    spikes = torch.tensor([[spike for _, spike in one] for one in wanted]).T
    means = outputs.squeeze(1).cumsum(0) / torch.arange(1, 7).unsqueeze(1)
    torch.testing.assert_close(means, values)
    assert neuron.spikes_per_step(outputs).tolist() == spikes.abs().sum(1).round().int().tolist()
    assert neuron.emissions_per_step(outputs).tolist() == spikes.count_nonzero(dim=1).tolist()


def network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    layers = [layer for _ in range(3) for layer in (nn.Linear(24, 24), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(24, 5)).double(), torch.rand(200, 24, dtype=torch.float64)


def error(steps: int, **options: Any) -> float:
    ann, x = network()
    snn = Converter([x], mode="multi-threshold", progress=False, **options)(ann)
    wanted = ann(x).detach()
    return float((simulate(snn, x, T=steps) - wanted).norm() / wanted.norm())


def test_a_second_step_and_a_rest_and_more_levels_help() -> None:
    one, two = error(1, T=1), error(2, T=2)
    assert two < 0.5 * one < 0.35 * error(1, T=1, rest=False)
    assert two < 0.8 * error(2, T=2, rest=False)
    assert error(1, T=1, levels=4) > 1.4 * one
    assert error(3, T=3) < two


def test_a_second_spike_beats_the_same_sizes_at_every_step() -> None:
    assert error(2, T=2) < 0.8 * error(2, T=2, finer=1)


def test_the_mode_brings_the_neuron_and_its_options_reach_both() -> None:
    ann, x = network()
    converter = Converter([x], mode="multi-threshold", T=1, levels=5, progress=False)
    snn = converter(ann)
    neurons = [module for module in snn.modules() if isinstance(module, MultiThresholdNeuron)]
    assert len(neurons) == 3
    assert {(one.sizes.levels, one.sizes.steps, one.sizes.rest) for one in neurons} == {(5, 1, True)}
    assert converter.channel_wise
    plain = Converter([x], mode="multi-threshold", neuron="if", progress=False)(ann)
    assert not any(isinstance(module, MultiThresholdNeuron) for module in plain.modules())


def test_spikes_are_counted_as_sent() -> None:
    ann, x = network()
    snn = Converter([x], mode="multi-threshold", T=2, progress=False)(ann)
    result = evaluate(snn, [(x, ann(x).argmax(1))], T=2, progress=False)
    neurons = 3 * 24
    assert 0 < result.emissions_per_sample <= 2 * neurons
    assert result.emissions_per_sample < result.spikes_per_sample <= 2 * 8 * neurons


@pytest.mark.parametrize("rest", [False, True])
def test_the_scale_has_the_least_squared_error(rest: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(500, 3).relu() * torch.tensor([0.5, 1.0, 20.0])
    observer = MultiThresholdMode(T=1, levels=4, rest=rest).observer(
        CalibrationSite("relu", channel_axis=1, channels=3)
    )
    observer.observe(x)

    def squared(scale: Tensor) -> Tensor:
        size = scale / (8 if rest else 4)
        return ((x / size).round().clamp(max=8 if rest else 4) * size - x).square().mean(0)

    found = squared(observer.scale().float())
    for share in torch.linspace(0.05, 1.2, 100):
        assert bool((found <= 1.1 * squared(share * x.amax(0))).all())


def test_the_options_of_a_mode_given_as_an_instance_hold_for_its_neuron() -> None:
    ann, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(50, 4)
    by_name, by_instance = (
        Converter([x], mode=mode, progress=False, **options)(ann)
        for mode, options in (("multi-threshold", {"T": 3, "levels": 4}), (MultiThresholdMode(T=3, levels=4), {}))
    )
    assert torch.equal(simulate(by_name, x, T=3), simulate(by_instance, x, T=3))


OPTIONS = [
    ({"T": 0}, "T=0 is not allowed: the number of time steps must be an integer of at least 1"),
    ({"levels": 2.5}, "levels=2.5 is not allowed: the number of sizes of a spike must be an integer of at least 1"),
    ({"finer": 3}, "finer=3 is not allowed: the ratio of .* must be one of 1, 2, 4, 8, 16"),
    ({"finer": True}, "finer=True is not allowed"),
    ({"rest": 0.5}, "rest=0.5 is not allowed: it must be True, .* or False"),
]


@pytest.mark.parametrize("made", [MultiThreshold, MultiThresholdMode])
@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_options_are_checked(made: type[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        made(**options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_values_are_exact_in_every_precision(dtype: torch.dtype) -> None:
    currents = torch.linspace(0, 8, 33).expand(2, 1, 33)
    neuron = MultiThresholdNeuron(levels=8, steps=2)
    neuron.step_mode = "m"
    wanted = neuron(currents)
    neuron.reset()
    assert torch.equal(neuron(currents.to(dtype)).float(), wanted)
    assert torch.equal(wanted.mean(0), currents[0])
