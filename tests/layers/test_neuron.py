"""The IF neuron: its rate and its initial potential, against plain Python."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, neuron

from sj_ann2snn import make_if_neuron

from ..helpers.neurons import run, spikes_in_python


@pytest.mark.parametrize("start", [0.0, 0.5, 0.9])
def test_the_neuron_does_what_plain_python_does(start: float) -> None:
    currents = torch.rand(50, dtype=torch.float64) * 1.4 - 0.2
    got = run(make_if_neuron(initial_potential=start), currents, 40)
    assert got.tolist() == spikes_in_python(currents.tolist(), 40, start)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=20), st.integers(1, 60), st.floats(0, 0.99))
def test_any_constant_drive_is_met_within_one_spike(currents: list[float], steps: int, start: float) -> None:
    drive = torch.tensor(currents, dtype=torch.float64)
    rate = run(make_if_neuron(initial_potential=start), drive, steps).mean(0)
    # k/T of the steps fire, where k is the number of thresholds that start + T * drive has passed.
    error = rate - drive.clamp(0.0, 1.0)
    assert (error.abs() <= (1.0 + 1e-9) / steps).all()


def test_without_initial_potential_the_rate_is_rounded_down() -> None:
    drive = torch.linspace(0.005, 0.995, 100, dtype=torch.float64)
    rate = run(make_if_neuron(), drive, 10).mean(0)
    assert torch.allclose(rate, (drive * 10 + 1e-9).floor() / 10, atol=1e-12)


def test_half_a_threshold_rounds_the_rate_to_the_nearest() -> None:
    drive = torch.linspace(0.005, 0.995, 100, dtype=torch.float64)
    rate = run(make_if_neuron(initial_potential=0.5), drive, 10).mean(0)
    assert torch.allclose(rate, (drive * 10 + 0.5).floor() / 10, atol=1e-12)
    assert (rate - drive).abs().max() <= 0.05 + 1e-9


def test_negative_currents_never_fire_and_count_against_later_ones() -> None:
    node = make_if_neuron()
    functional.reset_net(node)
    assert [node(torch.tensor([current])).item() for current in (-1.5, 1.0, 1.0, 1.0)] == [0.0, 0.0, 0.0, 1.0]


def test_the_neuron_is_spikingjellys_with_threshold_one_and_soft_reset() -> None:
    node = make_if_neuron()
    assert type(node) is neuron.IFNode
    assert (node.v_threshold, node.v_reset, node.step_mode) == (1.0, None, "s")


@pytest.mark.parametrize("start", [0.25, 0.5])
def test_the_initial_potential_comes_back_with_every_reset(start: float) -> None:
    node = make_if_neuron(initial_potential=start)
    assert node.v == start
    node(torch.tensor([0.4]))
    assert not isinstance(node.v, float)
    functional.reset_net(node)
    assert node.v == start
    functional.set_step_mode(node, "m")
    out = node(torch.full((4, 1), 0.5))
    assert out.flatten().tolist() == torch.tensor(spikes_in_python([0.5], 4, start)).flatten().tolist()
