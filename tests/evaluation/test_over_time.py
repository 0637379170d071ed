"""Spikes, emissions and synaptic operations after every step, against a loop by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

from sj_ann2snn import Converter, InPlaceNeuron, NeuronMaker, evaluate
from sj_ann2snn.evaluation.activity import EXACT, Connections
from sj_ann2snn.simulation.engine import tiling

from ..helpers.networks import convert, spikes_of

STEPS = 11
SAMPLES = 9


def network() -> tuple[nn.Module, Tensor]:
    layers = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)
    )
    return layers.double(), torch.randn(SAMPLES, 1, 8, 8, dtype=torch.float64) * 2


def measured(snn: nn.Module, x: Tensor, **arguments: Any) -> Any:
    labels = torch.zeros(len(x), dtype=torch.int64)
    return evaluate(snn, [(x[:4], labels[:4]), (x[4:], labels[4:])], T=STEPS, progress=False, **arguments)


def cumulated(per_step: Tensor) -> list[float]:
    found: list[float] = (per_step.double().cumsum(0) / SAMPLES).tolist()
    return found


@pytest.mark.parametrize("budget", [1, 3000, 1 << 22])
def test_counts_after_every_step_are_those_of_a_loop(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiling.TILE_BYTES, "cpu", budget)
    ann, x = network()
    snn = convert(ann, x)
    result = measured(snn, x)
    seen = spikes_of(snn, x, STEPS)
    pooled = nn.functional.avg_pool2d(seen["1"].flatten(0, 1), 2).view(STEPS, SAMPLES, -1)
    spikes = sum(one.flatten(1).sum(1) for one in seen.values())
    synops = 8 * (pooled != 0).flatten(1).sum(1) + 3 * seen["5"].flatten(1).sum(1)
    assert list(result.spikes_over_time) == pytest.approx(cumulated(spikes))
    assert list(result.synops_over_time) == pytest.approx(cumulated(synops))
    assert result.emissions_over_time == result.spikes_over_time
    assert result.spikes_over_time[-1] == result.spikes_per_sample
    assert result.synops_over_time[-1] == result.synops_per_sample
    assert result.emissions_over_time[-1] == result.emissions_per_sample


def test_fewer_steps_count_what_a_shorter_run_counts() -> None:
    ann, x = network()
    snn = convert(ann, x)
    whole = measured(snn, x)
    for steps in (1, 4, 7):
        short = evaluate(snn, [(x, torch.zeros(SAMPLES, dtype=torch.int64))], T=steps, progress=False)
        assert short.spikes_per_sample == whole.spikes_over_time[steps - 1]
        assert short.synops_per_sample == whole.synops_over_time[steps - 1]


def test_an_early_exit_counts_what_was_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiling.TILE_BYTES, "cpu", 1)  # one step at a time: a sample stops at once
    ann, x = network()
    snn = convert(ann, x)
    whole, early = measured(snn, x), measured(snn, x, early_exit=0.8)
    assert 1 < early.steps_per_sample < STEPS
    assert early.spikes_over_time[0] == whole.spikes_over_time[0]
    assert early.spikes_over_time[-1] == early.spikes_per_sample < whole.spikes_per_sample
    assert early.synops_over_time[-1] == early.synops_per_sample < whole.synops_per_sample
    assert list(early.synops_over_time) == sorted(early.synops_over_time)


def test_networks_that_run_step_by_step() -> None:
    snn = nn.Sequential(layer.Linear(4, 8), neuron.IFNode(v_reset=None), layer.Linear(8, 3)).double()
    x = torch.randn(SAMPLES, 4, dtype=torch.float64)
    (spikes,) = spikes_of(snn, x, STEPS).values()
    result = measured(snn, x)
    assert list(result.spikes_over_time) == pytest.approx(cumulated(spikes.flatten(1).sum(1)))
    # The first layer belongs to every step of such a network.
    dense = torch.full((STEPS,), 4.0 * 8 * SAMPLES, dtype=torch.float64)
    assert list(result.synops_over_time) == pytest.approx(cumulated(dense + 3 * spikes.flatten(1).sum(1)))


def test_parts_of_a_network() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.part(x).softmax(1)
            return found

    x = torch.randn(SAMPLES, 4, dtype=torch.float64)
    snn = Converter([x], mode="max", convert_only="part", progress=False)(Two())
    result = measured(snn, x)
    assert len(result.spikes_over_time) == STEPS
    assert result.spikes_over_time[-1] == result.spikes_per_sample > result.spikes_over_time[0]
    assert result.synops_over_time[-1] == result.synops_per_sample > result.synops_over_time[0]


class Levels(InPlaceNeuron):
    """Several spikes per step."""

    def step(self, x: Tensor, out: Tensor) -> None:
        self.v += x
        torch.floor(self.v, out=out).clamp_(min=0)
        self.v -= out


class Elsewhere(Levels):
    """Counts whole runs by itself, like a neuron whose outputs are not its spikes."""

    sent = 0

    def fire(self, x_seq: Tensor, spikes: Tensor) -> None:
        super().fire(x_seq, spikes)
        self.sent = int(spikes.sum())

    def count_spikes(self, emitted: Tensor) -> int:
        return self.sent


class Halves(Levels):
    """Counts otherwise, from the outputs alone."""

    def count_spikes(self, emitted: Tensor) -> int:
        return 2 * int(emitted.sum())


def with_neuron(kind: type[InPlaceNeuron]) -> Any:
    class Maker(NeuronMaker):
        name = "of-the-test"

        def unit(self, scale: Tensor) -> Tensor:
            return scale / 4

        def make(self, site: Any) -> nn.Module:
            return kind()

    ann, x = network()
    return measured(Converter([x], neuron=Maker(), progress=False)(ann), x)


def test_graded_spikes() -> None:
    result = with_neuron(Levels)
    assert result.spikes_over_time[-1] == result.spikes_per_sample
    assert result.emissions_over_time[-1] == result.emissions_per_sample < result.spikes_per_sample
    assert len(result.emissions_over_time) == STEPS


def test_neurons_that_count_whole_runs() -> None:
    graded = with_neuron(Levels)
    torch.manual_seed(0)
    double = with_neuron(Halves)
    assert len(double.spikes_over_time) == STEPS
    assert double.spikes_over_time[-1] == double.spikes_per_sample
    elsewhere = with_neuron(Elsewhere)
    assert elsewhere.spikes_per_sample > 0
    assert elsewhere.spikes_over_time == elsewhere.emissions_over_time == ()
    assert elsewhere.synops_over_time[-1] == elsewhere.synops_per_sample
    assert graded.spikes_over_time


def test_large_layers_are_counted_exactly() -> None:
    reached = torch.randint(1, 4000, (6, 50, 50), dtype=torch.int64).double()
    assert reached.sum() > 3 * EXACT
    x = (torch.rand(3, 2, 6, 50, 50) < 0.5).float()
    found = Connections.of(reached)
    assert len(found.bounds) > 3
    assert found.operations(x) == (x.double() * reached).flatten(1).sum(1).tolist()
    assert Connections.of(reached * 8).operations(x.bfloat16()) == [8 * count for count in found.operations(x)]


def test_a_layer_that_nothing_reads() -> None:
    found = Connections.of(torch.zeros(2, 3, dtype=torch.float64))
    assert found.operations(torch.ones(4, 1, 2, 3)) == [0.0] * 4
