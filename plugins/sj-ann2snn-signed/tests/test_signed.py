"""The signed neuron, by itself and through the converter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sj_ann2snn_signed import Signed, SignedNeuron
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
    potential, total, emitted = start, 0, []
    for current in currents:
        potential += current
        spikes = 0
        while potential >= 1 and spikes < levels:
            potential, spikes = potential - 1, spikes + 1
        while potential < 0 and spikes > -levels and total + spikes > 0:
            potential, spikes = potential + 1, spikes - 1
        total += spikes
        emitted.append(float(spikes))
    return emitted


# Currents in eighths: sums and differences of them are exact, so both sides see the same potentials.
EIGHTHS = st.lists(st.integers(-40, 40).map(lambda k: k / 8), min_size=1, max_size=30)


@settings(max_examples=100, deadline=None)
@given(EIGHTHS, st.integers(1, 6), st.sampled_from([0.0, 0.5]))
def test_takes_back_what_it_emitted_and_no_more(currents: list[float], levels: int, start: float) -> None:
    neuron = SignedNeuron(levels=levels, initial_potential=start)
    neuron.step_mode = "m"
    emitted = neuron(torch.tensor(currents).unsqueeze(1)).flatten().tolist()
    assert emitted == emitted_in_python(currents, levels, start)
    assert all(sum(emitted[:steps]) >= 0 for steps in range(len(emitted)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-0.9, 0.9), min_size=1, max_size=40))
def test_the_sum_is_the_rounded_relu_of_the_sum_whatever_the_order(currents: list[float]) -> None:
    neuron = SignedNeuron()
    neuron.step_mode = "m"
    # In the end a silent stretch lets it take back what is left to take back.
    drive = torch.tensor([*currents, *[0.0] * len(currents)], dtype=torch.float64).unsqueeze(1)
    total = neuron(drive).sum().item()
    assert abs(total - max(0.0, sum(currents))) <= 1 + 1e-9


def test_an_if_neuron_errs_where_the_signed_one_does_not() -> None:
    drive = torch.tensor([1.0] * 5 + [-1.0] * 5).unsqueeze(1)
    ann = nn.Sequential(nn.ReLU())
    totals = {}
    for name in ("if", "signed"):
        (neuron,) = (
            module
            for module in Converter([torch.rand(5, 1)], neuron=name, progress=False)(ann).modules()
            if hasattr(module, "initial_potential") or hasattr(module, "v_threshold")
        )
        neuron.step_mode = "m"
        totals[name] = neuron(drive).sum().item()
    assert totals == {"if": 5.0, "signed": 0.0}


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("steps", [1, 5, 40])
def test_a_constant_drive_is_met_within_half_a_spike(levels: int, steps: int) -> None:
    drive = torch.linspace(-1, levels + 1, 200, dtype=torch.float64)
    neuron = SignedNeuron(levels=levels, initial_potential=0.5)
    rate = torch.stack([neuron(drive) for _ in range(steps)]).mean(0)
    assert (rate - drive.clamp(0, levels)).abs().max().item() <= (0.5 + 1e-9) / steps


def test_errs_less_than_the_if_neuron() -> None:
    torch.manual_seed(0)
    ann = nn.Sequential(*(layer for _ in range(6) for layer in (nn.Linear(32, 32), nn.ReLU()))).double()
    for module in ann[::2]:
        nn.init.normal_(module.weight, std=(2 / 32) ** 0.5)
    x = torch.rand(100, 32, dtype=torch.float64)
    errors = {}
    for options in ({"neuron": "if", "initial_potential": 0.5}, {"neuron": "signed"}):
        snn = Converter([x], progress=False, **options)(ann)
        errors[options["neuron"]] = (simulate(snn, x, T=64) - ann(x)).norm().item()
    assert errors["signed"] < 0.6 * errors["if"]


def test_step_modes_hand_written_loop_and_simulator_agree() -> None:
    snn = converted(neuron="signed", levels=2)
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


def test_a_negative_spike_counts_as_one() -> None:
    ann = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    nn.init.eye_(ann[0].weight)
    nn.init.zeros_(ann[0].bias)
    with torch.no_grad():
        ann[2].weight.copy_(torch.tensor([[1.0, -0.9], [0.0, 1.0]]))
        ann[2].bias.zero_()
    x = torch.tensor([[0.75, 0.8], [1.0, 1.0], [1.0, 0.0]])
    snn = Converter([x], neuron="signed", progress=False)(ann)
    spikes: list[Tensor] = []
    for module in snn.modules():
        if isinstance(module, SignedNeuron):
            module.register_forward_hook(lambda _module, _args, out: spikes.append(out))
    result = evaluate(snn, [(x, torch.zeros(3, dtype=torch.long))], T=40, progress=False)
    assert any((out < 0).any() for out in spikes)
    assert result.spikes_per_sample == pytest.approx(sum(out.abs().sum().item() for out in spikes) / 3)


@pytest.mark.parametrize("levels", [0, -1, 2.5, True, "4"])
def test_levels_are_checked(levels: Any) -> None:
    with pytest.raises(OptionError, match=f"levels={levels!r} is not allowed: .* must be an integer of at least 1"):
        Converter(neuron="signed", levels=levels)


@pytest.mark.parametrize("start", [-0.1, 1.0, float("nan")])
def test_the_initial_potential_is_checked(start: float) -> None:
    with pytest.raises(OptionError, match=r"initial_potential=.* is not allowed: it must be a fraction"):
        Signed(initial_potential=start)
