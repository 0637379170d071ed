"""COS: the shifts, the probe in a network, and its readout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sj_ann2snn_offsets import OffsetSpikes, OffsetSpikesNeuron
from torch import Tensor, nn

from sj_ann2snn import Converter, Delayed, OptionError, evaluate, simulate


def fired(currents: list[float], probe_steps: int) -> list[float]:
    neuron = OffsetSpikesNeuron(probe_steps=probe_steps)
    return [neuron(torch.tensor([current], dtype=torch.float64)).item() for current in currents]


@pytest.mark.parametrize(
    ("currents", "before", "after"),
    [
        ([0.8, -0.7, 0.8, -0.7], [1, 0, 0, 0], [0, 0, 0, 0]),  # v = -0.3 is left: the spike is taken back
        ([1.6, -1.5, 0.2], [1, 0, 0], [0, 0, 0]),  # fired from 2.1: shifted by more than a threshold
        ([-0.4, -0.3, 2.3], [0, 0, 1], [1, 0, 1]),  # v = 1.1 is left: one more
        ([0.4, 0.4, 0.4], [0, 1, 0], [0, 1, 0]),  # neither
        ([1.4, 1.4, 1.4], [1, 1, 1], [1, 1, 1]),  # saturated: no step is left for one more
        ([-0.4, -0.4, -0.4], [0, 0, 0], [0, 0, 0]),  # never fired: nothing to take back
    ],
)
def test_a_neuron_that_was_off_by_a_spike_is_not_off_again(
    currents: list[float], before: list[int], after: list[int]
) -> None:
    found = fired(currents * 2, len(currents))
    assert found[: len(currents)] == before
    assert found[len(currents) :] == after


def test_a_reset_probes_again() -> None:
    neuron, x = OffsetSpikesNeuron(probe_steps=2), torch.tensor([0.8])
    wanted = [neuron(value).item() for value in (x, -x, x, -x)]
    neuron.reset()
    assert [neuron(value).item() for value in (x, -x, x, -x)] == wanted


class Net(nn.Module):
    """A residual branch, behind which spikes arrive unevenly."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.third, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8 * 36, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.third(torch.relu(self.second(x))) + x)
        return self.head(x.flatten(1))


def network() -> nn.Module:
    torch.manual_seed(0)
    return Net().double()


def images(count: int = 40) -> Tensor:
    return torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_the_steps_that_count_are_better_than_the_same_steps_without_a_probe() -> None:
    """The steps after the probe against as many steps of IF neurons that start at the same potential."""
    x, ann = images(), network()

    def error(steps: int, **more: Any) -> float:
        snn = Converter([x], channel_wise=True, initial_potential=0.5, progress=False, **more)(ann)
        return float((simulate(snn, x, T=steps) - ann(x).detach()).square().mean())

    assert error(16, neuron="cos", probe_steps=8) < 0.9 * error(8)


def test_the_readout_leaves_the_probe_out_and_the_report_says_so() -> None:
    x, labels = images(), torch.zeros(40, dtype=torch.long)
    converter = Converter([x], neuron="cos", probe_steps=3, progress=False)
    snn = converter(network())
    assert torch.equal(simulate(snn, x, T=9), simulate(snn, x, T=9, readout=Delayed(delay=3)))
    assert "asks for the readout 'delayed' (delay=3)" in str(converter.report)
    assert len(evaluate(snn, [(x, labels)], T=9, progress=False).accuracy) == 9


def test_until_the_probe_ends_these_are_if_neurons() -> None:
    x = images()
    cos = Converter([x], neuron="cos", probe_steps=6, progress=False)(network())
    plain = Converter([x], initial_potential=0.5, progress=False)(network())
    torch.testing.assert_close(simulate(cos, x, T=6), simulate(plain, x, T=6))
    torch.testing.assert_close(simulate(cos, x, T=4), simulate(plain, x, T=4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probe_steps": 0}, "probe_steps=0 is not allowed: the number of steps of the probe must be an integer of at"),
        ({"initial_potential": 1.0}, r"initial_potential=1\.0 is not allowed"),
    ],
)
def test_options_out_of_range_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        OffsetSpikes(**options)
