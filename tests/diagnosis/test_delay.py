"""The delay of a readout, estimated from the data."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, Delayed, InPlaceNeuron, NeuronMaker, NeuronSite, diagnose, simulate
from sj_ann2snn.diagnosis.delay import ELEMENTS, best_delay


class Slow(InPlaceNeuron):
    """An IF neuron that sees nothing for some steps."""

    t: int

    def __init__(self, latency: int) -> None:
        super().__init__(initial_potential=0.5)
        self.latency = latency
        self.register_memory("t", 0)

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.t = self.t + 1
        if self.t > self.latency:  # the output may lie where the input does
            self.v += x
            out.copy_((self.v >= 1).to(x))
            self.v -= out
        else:
            out.zero_()


class SlowMaker(NeuronMaker):
    """Neurons that see nothing for some steps, by the index of their layer."""

    name: ClassVar[str] = "slow"

    def __init__(self, latencies: dict[str, int]) -> None:
        self.latencies = latencies

    def make(self, site: NeuronSite) -> nn.Module:
        return Slow(self.latencies[site.name])


def network(outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, outputs)]
    return nn.Sequential(*layers).eval()


def images() -> Tensor:
    return torch.rand(60, 8, generator=torch.Generator().manual_seed(1))


def slow(ann: nn.Module, first: int, second: int) -> nn.Module:
    maker = SlowMaker({"1": first, "3": second})
    # Neurons whose mean output does not approach the current are refused; this one's does, in the end.
    return Converter([images()], mode="max", neuron=maker, progress=False)(ann)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 0), (0, 5), (2, 6)])
def test_the_latency_of_the_layers_is_found(first: int, second: int) -> None:
    ann = network()
    found = diagnose(ann, slow(ann, first, second), [images()], 200, progress=False)
    latency = max(first, second)  # the second layer waits while the first one does
    assert latency <= found.delay <= latency + 6
    assert found.to_dict()["delay"] == found.delay


@pytest.mark.parametrize("steps", [1, 2, 3, 16, 40])
@pytest.mark.parametrize("readout", ["mean", "last"])
def test_it_is_the_best_of_all_delays(steps: int, readout: str) -> None:
    ann, x = network(), images()
    snn = slow(ann, 1, 4)
    found = diagnose(ann, snn, [x[:25], x[25:]], steps, readout=readout, progress=False)
    with torch.no_grad():
        wanted = ann(x)

    def divergence(delay: int) -> float:
        answer = simulate(snn, x, steps, readout=Delayed(delay=delay))
        return float((answer - wanted).norm() / wanted.norm())

    every = {delay: divergence(delay) for delay in range(steps * 3 // 4 + 1)}
    assert every[found.delay] <= 1.021 * min(every.values())
    for advice in found.advice:
        assert advice.cause != "readout" or advice.arguments["delay"] <= steps / 2


def test_of_large_outputs_some_elements_are_enough() -> None:
    ann = network(3 * ELEMENTS)
    assert 4 <= diagnose(ann, slow(ann, 4, 0), [images()[:10]], 100, progress=False).delay <= 10


def test_several_outputs_and_outputs_without_channels() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network()

        def forward(self, x: Tensor) -> Any:
            x = self.body(x)
            return {"scores": x, "sum": x.sum(1)}

    ann = Two().eval()
    snn = Converter([images()], mode="max", neuron=SlowMaker({"body.1": 5, "body.3": 0}), progress=False)(ann)
    assert 5 <= diagnose(ann, snn, [images()], 100, progress=False).delay <= 11


def test_of_parts_the_largest_delay_counts() -> None:
    ann = nn.Sequential(network(8), nn.Tanh(), nn.Sequential(network(8))).eval()
    maker = SlowMaker({"1": 2, "3": 0, "0.1": 9, "0.3": 0})  # names in the part
    snn = Converter([images()], mode="max", neuron=maker, convert_only=["0", "2"], progress=False)(ann)
    assert 9 <= diagnose(ann, snn, [images()], 100, progress=False).delay <= 15


def test_the_shortest_of_equally_good_delays() -> None:
    assert best_delay(1.0, {1: 0.9, 2: 0.5, 3: 0.495, 4: 0.6}) == 2
    assert best_delay(0.5, {1: 0.5, 2: 0.7}) == 0
    assert best_delay(0.5, {}) == 0
