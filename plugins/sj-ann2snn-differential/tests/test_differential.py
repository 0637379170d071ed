"""The neuron against its definition, and what it spends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sj_ann2snn_differential import Differential, DifferentialNeuron
from torch import Tensor, nn

from sj_ann2snn import Converter, OptionError, evaluate, simulate


def by_definition(currents: list[float], thresholds: int) -> list[float]:
    """What the neuron stands for after every step."""
    sizes = [0.0, *(sign * 2.0**-k for k in range(thresholds) for sign in (1, -1))]
    total = value = 0.0
    values = []
    for step, current in enumerate(currents, 1):
        total += current
        missing = max(0.0, total / step) - value
        # Halfway between two sizes the larger one goes out, and none where that brings it no nearer.
        value += min(sizes, key=lambda size: (abs(size - missing), size != 0, -abs(size)))
        values.append(value)
    return values


@pytest.mark.parametrize("thresholds", [1, 2, 5, 8])
def test_sends_the_spike_that_brings_it_nearest_to_the_mean_current(thresholds: int) -> None:
    generator = torch.Generator().manual_seed(thresholds)
    currents = (torch.randint(-64, 128, (30, 50), generator=generator) / 64).double()
    neuron = DifferentialNeuron(thresholds=thresholds)
    neuron.step_mode = "m"
    steps = torch.arange(1, 31).unsqueeze(1)
    values = neuron(currents.unsqueeze(1)).squeeze(1).cumsum(0) / steps
    wanted = torch.tensor([by_definition(column.tolist(), thresholds) for column in currents.T]).T
    torch.testing.assert_close(values, wanted.double())


def test_a_settled_input_costs_no_spikes() -> None:
    neuron = DifferentialNeuron()
    neuron.step_mode = "m"
    neuron(torch.full((6, 1, 4), 0.8125))
    assert neuron.count_spikes(torch.empty(0)) > 0
    neuron(torch.full((20, 1, 4), 0.8125))
    assert neuron.count_spikes(torch.empty(0)) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("in_the_simulator", [False, True])
def test_a_neuron_halfway_between_two_values_stays_with_one(dtype: torch.dtype, in_the_simulator: bool) -> None:
    """It used to change from one to the other at every step, and with it the neurons behind."""
    x = (torch.arange(-16, 48, dtype=dtype) / 16 + 1 / 16).repeat(2, 1)
    if in_the_simulator:
        ann = nn.Sequential(nn.Identity(), nn.ReLU())
        snn = Converter([torch.ones(2, 64, dtype=dtype)], neuron="differential", thresholds=4, progress=False)(ann)
        spikes = evaluate(snn, [(x, torch.zeros(2).long())], T=20, progress=False).spikes_over_time
        assert spikes[5] == spikes[-1] > 0
        return
    neuron = DifferentialNeuron(thresholds=4)
    neuron.step_mode = "m"
    neuron(x.expand(8, *x.shape))
    before = neuron.value
    neuron(x.expand(12, *x.shape))
    assert torch.equal(neuron.value, before)  # type: ignore[arg-type]
    assert neuron.count_spikes(torch.empty(0)) == 0


def network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (nn.Linear(24, 24), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(24, 5)).double(), torch.rand(60, 24, dtype=torch.float64)


def test_follows_the_ann_in_few_steps_where_rates_need_many() -> None:
    ann, x = network()
    errors = {}
    for name, options in (("if", {"initial_potential": 0.5}), ("differential", {})):
        snn = Converter([x], neuron=name, progress=False, **options)(ann)
        errors[name] = (simulate(snn, x, T=16) - ann(x)).norm().item()
    assert errors["differential"] < 0.2 * errors["if"]


def test_spikes_are_counted_as_sent() -> None:
    ann, x = network()
    snn = Converter([x], neuron="differential", progress=False)(ann)
    batches = [(x, ann(x).argmax(1))]
    result = evaluate(snn, batches, T=64, progress=False)
    few, many = evaluate(snn, batches, T=8, progress=False).spikes_per_sample, result.spikes_per_sample
    assert (result.spikes_over_time[7], result.spikes_over_time[-1]) == (few, many)
    neurons = 4 * 24
    assert 0 < few <= 8 * neurons
    # At most one in a step, and hardly any once the input has settled.
    assert few <= many < 4 * few


@pytest.mark.parametrize("thresholds", [0, -1, 25, 2.5, True, "4"])
def test_the_number_of_sizes_is_checked(thresholds: Any) -> None:
    message = f"thresholds={thresholds!r} is not allowed: the number of spike sizes must be an integer from 1 to 24"
    with pytest.raises(OptionError, match=message):
        Differential(thresholds=thresholds)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("thresholds", [1, 3, 8, 24])
def test_the_nearest_size_is_found_in_every_precision(thresholds: int, dtype: torch.dtype) -> None:
    sizes = torch.tensor([0.0, *(sign * 2.0**-k for k in range(thresholds) for sign in (1, -1))], dtype=torch.float64)
    torch.manual_seed(0)
    exact = torch.cat([torch.tensor([0.0, -0.0, 3.0, -1e30, torch.inf, -torch.inf]), sizes, 0.75 * sizes, 1.5 * sizes])
    x = torch.cat([exact, torch.randn(2000) * torch.rand(2000) ** 6]).to(dtype)
    shown = x.clone()
    found = DifferentialNeuron(thresholds=thresholds).nearest(x)
    assert found.dtype == dtype
    assert torch.equal(x, shown)
    wide = x.double().clamp(-4, 4)
    assert torch.isin(found.double(), sizes).all()
    distance = (wide[:, None] - sizes).abs().amin(1)
    torch.testing.assert_close((wide - found.double()).abs(), distance, rtol=0, atol=0)


@pytest.mark.parametrize("options", [{}, {"channel_wise": True}, {"mode": 0.5}])
def test_an_activation_with_an_upper_bound_ends_there(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(64, 3)).double()
    x = 60 * torch.rand(30, 1, 6, 6, dtype=torch.float64)
    assert (ann[:2](x) == 6).double().mean() > 0.1
    snn = Converter([x], neuron="differential", thresholds=20, progress=False, **options)(ann)
    torch.testing.assert_close(simulate(snn, x, T=40), ann(x), rtol=1e-3, atol=1e-3)
