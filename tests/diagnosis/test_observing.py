"""What a diagnosis keeps to draw is what the network did."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, diagnose
from sj_ann2snn.compat import reset_net
from sj_ann2snn.diagnosis.observed import GraphNode, LayerObservation
from sj_ann2snn.diagnosis.observing import BINS, NEURONS, POINTS, STEPS, LayerSampler
from tests.helpers.diagnoses import HOSTILE, LONG, diagnosed, residual, two_outputs
from tests.helpers.networks import GradedMaker

T = 12


def spikes_by_hand(snn: nn.Module, layer: str, x: Tensor, steps: int) -> Tensor:
    """``[T, N, ...]``, from a loop over time as in SpikingJelly."""
    seen: list[Tensor] = []
    handle = snn.get_submodule(layer).register_forward_hook(lambda *given: seen.append(given[2].clone()))
    reset_net(snn)
    with torch.no_grad():
        for _ in range(steps):
            snn(x)
    handle.remove()
    reset_net(snn)
    return torch.stack(seen)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5)
    ).eval()


@pytest.mark.parametrize("options", [{}, {"neuron": GradedMaker()}, {"channel_wise": True}])
def test_rasters_and_rates_are_those_of_a_loop_by_hand(options: dict[str, Any]) -> None:
    torch.manual_seed(3)
    ann, x = network(), torch.rand(20, 1, 8, 8)
    snn = Converter([x], mode=0.6, progress=False, **options)(ann)
    found = diagnose(ann, snn, [x], T, progress=False)
    assert found.observed is not None
    for name in ("1", "3"):
        spikes = spikes_by_hand(snn, name, x, T)
        seen = found.observed.layers[name]
        raster = seen.raster
        assert raster is not None
        assert raster.steps == T
        assert len(raster.neurons) == NEURONS
        assert list(raster.activations) == sorted(raster.activations, reverse=True)
        for place, times, values in zip(raster.neurons, raster.times, raster.values, strict=True):
            emitted = spikes[(slice(None), 0, *place)]
            assert [t + 1 for t in emitted.nonzero().flatten().tolist()] == list(times)
            assert emitted[emitted != 0].tolist() == list(values)
        rates, histogram = spikes.double().mean(0), seen.histogram
        levels = round(float(1 / histogram.edges[-1])) if histogram.edges[-1] < 1 else 1
        assert levels == 1
        assert sum(histogram.rates) + histogram.zero[0] + histogram.above[0] + histogram.below[0] == rates.numel()
        assert histogram.zero[0] == int((rates == 0).sum())
        assert sum(histogram.activations) + histogram.zero[1] + histogram.above[1] == rates.numel()
        total = sum(rate > 0 or activation > 0 for activation, rate in zip(seen.activations, seen.rates, strict=True))
        assert total == len(seen.rates) <= POINTS


def counts(values: Tensor, edges: tuple[float, ...], levels: int) -> list[int]:
    nearest = (values * levels).round() / levels
    return [int(((nearest > low + 1e-9) & (nearest <= high + 1e-9)).sum()) for low, high in pairwise(edges)]


@pytest.mark.parametrize("steps", [1, 7, 24, 32, 100])
@pytest.mark.parametrize("largest", [1.0, 4.0])
def test_histograms(steps: int, largest: float) -> None:
    random = torch.Generator().manual_seed(0)
    activation = torch.rand(50, 6, 5, generator=random, dtype=torch.float64) * 1.3 * largest
    rate = (activation.clamp(max=largest) * steps).floor() / steps
    rate[0, 0, 0] = -1 / steps
    sampler = LayerSampler(torch.full((1, 6, 5), largest, dtype=torch.float64), steps, seed=0)
    for part in range(0, 50, 7):  # in pieces of any size
        sampler.add(activation[part : part + 7], rate[part : part + 7])
    found = sampler.result(None).histogram
    levels = steps * round(largest)
    assert len(found.rates) == math.ceil(levels / math.ceil(levels / BINS)) <= BINS
    assert found.edges[0] == 0
    assert found.edges[-1] == 1
    assert list(found.rates) == counts(rate / largest, found.edges, levels)
    assert list(found.activations) == counts(activation / largest, found.edges, levels)
    assert found.above == (0, int(((activation / largest * levels).round() > levels).sum()))
    assert found.below == (1, 0)
    assert found.zero[0] == int((rate == 0).sum())


def test_points_are_few_and_drawn_evenly_from_everything() -> None:
    sampler = LayerSampler(torch.ones(1), 1000, seed=0)
    for part in range(20):
        activation = torch.full((5, 4000), (part + 0.5) / 20, dtype=torch.float64)
        activation[:, ::2] = 0  # half of them are not active
        sampler.add(activation, activation)
    found = sampler.result(None)
    assert len(found.activations) == len(found.rates) == POINTS
    assert min(found.activations) > 0
    for part in range(20):
        share = sum(abs(value - (part + 0.5) / 20) < 1e-6 for value in found.activations) / POINTS
        assert share == pytest.approx(1 / 20, abs=0.03)


def test_small_layers_are_kept_whole() -> None:
    sampler = LayerSampler(None, 4, seed=0)
    values = torch.arange(1, 101, dtype=torch.float64).reshape(10, 10) / 100
    sampler.add(values, values)
    assert sorted(sampler.result(None).activations) == pytest.approx(sorted(values.flatten().tolist()))


def test_the_same_diagnosis_observes_the_same() -> None:
    ann = residual()
    assert diagnosed(ann).observed == diagnosed(ann).observed


def test_rasters_of_long_runs_are_cut() -> None:
    found = diagnosed(nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU()), STEPS + 50)
    assert found.observed is not None
    (seen,) = found.observed.layers.values()
    assert seen.raster is not None
    assert seen.raster.steps == STEPS
    assert max(max(times, default=0) for times in seen.raster.times) <= STEPS


def test_the_graph() -> None:
    observed = diagnosed(residual()).observed
    assert observed is not None
    assert observed.graph == (
        GraphNode("x", "input"),
        GraphNode(HOSTILE, "layer", ("x",), ("first",)),
        GraphNode("pool", "layer", (HOSTILE,), ()),
        GraphNode(LONG, "layer", ("pool",), ("second",)),
        GraphNode(f"{LONG}_negative", "layer", ("pool",), ("second",)),
        GraphNode("output", "output", (LONG, f"{LONG}_negative"), ("head",)),
    )


def test_the_graph_of_a_network_with_several_outputs() -> None:
    observed = diagnosed(two_outputs()).observed
    assert observed is not None
    names = [node.name for node in observed.graph]
    assert {"scores", "boxes"} <= set(names)
    by_name = {node.name: node for node in observed.graph}
    first = names[1]
    assert by_name["scores"].sources == (first,)
    assert by_name["scores"].through == ("second",)
    assert by_name["boxes"].sources == (names[2],)


def test_a_dead_layer() -> None:
    ann = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    torch.manual_seed(0)
    x = torch.rand(20, 1, 8, 8)
    snn = Converter([x], progress=False)(ann)
    found = diagnose(ann, snn, [torch.zeros(4, 1, 8, 8) - 50], 3, progress=False)
    assert found.observed is not None
    assert all(isinstance(one, LayerObservation) for one in found.observed.layers.values())
    found.to_html()
