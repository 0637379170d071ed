"""The burst neuron, by itself and through the converter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sj_ann2snn_burst import Burst, BurstNeuron
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sj_ann2snn import Converter, OptionError, evaluate, simulate


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)]
    return nn.Sequential(*layers).double()


def images(samples: int = 100) -> Tensor:
    return torch.rand(samples, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def converted(**options: Any) -> nn.Module:
    return Converter([images()], channel_wise=True, progress=False, **options)(mlp())


def emitted_in_python(currents: list[float], levels: int, start: float) -> list[float]:
    potential, emitted = start, []
    for current in currents:
        potential += current
        spikes = 0.0
        while potential >= 1 and spikes < levels:
            potential, spikes = potential - 1, spikes + 1
        emitted.append(spikes)
    return emitted


# Currents in eighths: sums and differences of them are exact, so both sides see the same potentials.
EIGHTHS = st.lists(st.integers(-40, 60).map(lambda k: k / 8), min_size=1, max_size=30)


@settings(max_examples=100, deadline=None)
@given(EIGHTHS, st.integers(1, 6), st.sampled_from([0.0, 0.5]))
def test_fires_again_within_a_step_while_the_potential_allows(currents: list[float], levels: int, start: float) -> None:
    neuron = BurstNeuron(levels=levels, initial_potential=start)
    neuron.step_mode = "m"
    emitted = neuron(torch.tensor(currents).unsqueeze(1)).flatten().tolist()
    assert emitted == emitted_in_python(currents, levels, start)


@pytest.mark.parametrize("levels", [1, 3, 16])
@pytest.mark.parametrize("steps", [1, 5, 40])
def test_a_constant_drive_is_met_within_half_a_spike(levels: int, steps: int) -> None:
    drive = torch.linspace(-1, levels + 1, 200, dtype=torch.float64)
    neuron = BurstNeuron(levels=levels, initial_potential=0.5)
    rate = torch.stack([neuron(drive) for _ in range(steps)]).mean(0)
    assert (rate - drive.clamp(0, levels)).abs().max().item() <= (0.5 + 1e-9) / steps


def test_one_level_is_the_if_neuron() -> None:
    plain, burst = converted(initial_potential=0.5), converted(neuron="burst", levels=1)
    # Weights behind binary spikes are rounded to a grid, so the last bits differ.
    torch.testing.assert_close(simulate(burst, images(), T=30), simulate(plain, images(), T=30), atol=1e-12, rtol=1e-12)


def test_more_levels_err_less_at_the_same_steps() -> None:
    wanted = mlp()(images()).detach()
    errors = [(simulate(converted(neuron="burst", levels=k), images(), T=8) - wanted).norm().item() for k in (1, 4, 16)]
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < 0.5 * errors[1]


def test_step_modes_hand_written_loop_and_simulator_agree() -> None:
    snn = converted(neuron="burst")
    x = images(10)
    by_hand = torch.stack([snn(x) for _ in range(12)])
    functional.reset_net(snn)
    again = torch.stack([snn(x) for _ in range(12)])
    functional.reset_net(snn)
    functional.set_step_mode(snn, "m")
    at_once = snn(x.expand(12, *x.shape))
    functional.reset_net(snn)
    torch.testing.assert_close(again, by_hand, rtol=0, atol=0)
    torch.testing.assert_close(at_once, by_hand)
    torch.testing.assert_close(simulate(snn, x, T=12), by_hand.mean(0))


def test_a_burst_counts_as_many_spikes_as_it_holds() -> None:
    ann = nn.Sequential(nn.ReLU(), nn.Linear(1, 2))
    x = torch.tensor([[0.5], [1.0]])
    snn = Converter([x], neuron="burst", levels=4, progress=False)(ann)
    result = evaluate(snn, [(x, torch.zeros(2, dtype=torch.long))], T=10, progress=False)
    assert result.spikes_per_sample == (2 * 10 + 4 * 10) / 2
    assert result.emissions_per_sample == 10
    assert result.layers[0].firing_rate == 3.0


def test_the_report_keeps_lambda_and_names_the_neuron() -> None:
    converter = Converter([images()], neuron="burst", progress=False)
    converter(mlp())
    hidden = torch.relu(mlp()[0](images())).max().item()
    assert converter.report["1"].scale == pytest.approx((hidden, hidden))
    assert "sj-ann2snn-burst" in str(converter.report)


@pytest.mark.parametrize("levels", [0, -1, 2.5, True, "4"])
def test_levels_are_checked(levels: Any) -> None:
    with pytest.raises(OptionError, match=f"levels={levels!r} is not allowed: .* must be an integer of at least 1"):
        Converter(neuron="burst", levels=levels)


@pytest.mark.parametrize("start", [-0.1, 1.0, float("nan")])
def test_the_initial_potential_is_checked(start: float) -> None:
    with pytest.raises(OptionError, match=r"initial_potential=.* is not allowed: it must be a fraction"):
        Burst(initial_potential=start)
