"""In single precision on networks of real size: the simulator's spikes are those of the hand-written loop.

Layers computed for many steps at once, or by tables, add up in another order than step by step. The weights behind
binary spikes are rounded so that the order does not matter. In front of the first neuron, the loop leaves the order to
torch, so a current that meets the threshold to the last bit may fire a step later: at most one spike in 10,000 may
differ. Between two runs of the simulator, whatever the batch and the threads, none does.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn.cli.tutorial import tutorial_network
from sj_ann2snn.simulation.engine import OverTime, Simulator
from sj_ann2snn.simulation.engine.collectors import Call
from sj_ann2snn.simulation.engine.numbers.firing import is_spiking

from ..helpers.networks import convert, randomized, spikes_of, using_threads

SHARED = os.environ.get("SJ_ANN2SNN_SHARED")
"""Folder with the trained reference networks; see benchmarks/simulation_speed.py."""


class Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        changes = stride != 1 or before != after
        self.down = nn.Sequential(nn.Conv2d(before, after, 1, stride), nn.BatchNorm2d(after)) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.down is None else self.down(x)))


def resnet() -> nn.Module:
    stem = [nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU()]
    blocks = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 32, 1), Block(32, 64, 2), Block(64, 64, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def vgg() -> nn.Module:
    layers: list[nn.Module] = []
    before = 3
    for after in (32, 0, 64, 0, 128, 0, 128):
        layers += (
            [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()] if after else [nn.MaxPool2d(2)]
        )
        before = after or before
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def normalized_behind() -> nn.Module:
    """BatchNorm behind the activations, with factors of either sign, and max pools and zero padding behind it."""
    layers: list[nn.Module] = []
    before = 3
    for after in (32, 64, 64):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(after), nn.MaxPool2d(2)]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


NETWORKS = {
    "the tutorial's": (lambda: tutorial_network(28), (1, 28, 28)),
    "residual": (resnet, (3, 32, 32)),
    "with max pooling": (vgg, (3, 32, 32)),
    "BatchNorm behind activations": (normalized_behind, (3, 32, 32)),
}


def simulated(
    snn: nn.Module, x: Tensor, steps: int, *, threads: int = 1, batch: int | None = None
) -> dict[str, Tensor]:
    """Spikes ``[T, N, ...]`` of every neuron, as the simulator computes them."""

    class Spikes(OverTime):
        def __init__(self) -> None:
            super().__init__()
            self.seen: dict[str, list[Tensor]] = {}

        def watch(self, call: Call) -> None:
            if is_spiking(call.operation):
                self.seen.setdefault(call.name, []).append(call.result.clone())

        def result(self) -> dict[str, Tensor]:
            return {name: torch.cat(spikes) for name, spikes in self.seen.items()}

    simulator = Simulator(snn, steps)
    with using_threads(threads):
        tiles = [tile for part in x.split(batch or len(x)) for tile in simulator.run_all((part,), lambda _: Spikes())]
    return {name: torch.cat([tile[name] for tile in tiles], dim=1) for name in tiles[0]}


def differing(snn: nn.Module, x: Tensor, steps: int) -> float:
    """Share of the spikes that differ."""
    wanted, found = spikes_of(snn, x, steps), simulated(snn, x, steps)
    assert list(wanted) == list(found)
    wrong = sum(float((wanted[name] != found[name]).sum()) for name in wanted)
    return wrong / sum(float(spikes.sum()) for spikes in wanted.values())


@pytest.mark.parametrize("channel_wise", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_spikes_are_those_of_the_loop(name: str, channel_wise: bool) -> None:
    make, shape = NETWORKS[name]
    x = torch.rand(12, *shape)
    snn = convert(randomized(make()), x, mode="99.9%", channel_wise=channel_wise)
    assert differing(snn, x, 32) <= 1e-4


def perceptron() -> nn.Module:
    hidden = nn.Linear(200, 200), nn.BatchNorm1d(200), nn.ReLU(), nn.Linear(200, 100), nn.LeakyReLU(0.1)
    return nn.Sequential(nn.Linear(300, 200), nn.ReLU(), *hidden, nn.Linear(100, 10))


def sequences() -> nn.Module:
    layers = nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(7 * 48, 32), nn.ReLU(), nn.Linear(32, 5))


def decoder() -> nn.Module:
    up = nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 8, 2, 2, groups=2), nn.ReLU()
    return nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), *up, nn.Conv2d(8, 2, 1))


IN_PARTS = {
    "perceptron": (perceptron, (300,)),
    "sequences": (sequences, (7, 40)),
    "decoder": (decoder, (3, 12, 12)),
}


@pytest.mark.parametrize("name", IN_PARTS)
def test_spikes_depend_neither_on_the_batch_nor_on_the_threads(name: str) -> None:
    make, shape = IN_PARTS[name]
    x = torch.rand(10, *shape)
    snn = convert(randomized(make()), x, mode="99.9%")
    wanted = simulated(snn, x, 20)
    for threads, batch in ((1, 1), (1, 4), (2, 10)):
        found = simulated(snn, x, 20, threads=threads, batch=batch)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted), (threads, batch)


@pytest.mark.skipif(not SHARED, reason="SJ_ANN2SNN_SHARED names no folder with the reference networks")
@pytest.mark.parametrize(
    ("name", "shape"), [("mnist_cnn", (1, 28, 28)), ("resnet20", (3, 32, 32)), ("vgg_max", (3, 32, 32))]
)
def test_spikes_of_the_trained_reference_networks(name: str, shape: tuple[int, ...]) -> None:
    from reference_networks import reference_network  # lies in benchmarks/, which an sdist leaves out

    ann = reference_network(Path(SHARED or ""), name)
    x = torch.rand(25, *shape)
    snn = convert(ann, x, mode="99.9%")
    assert differing(snn, x, 32) <= 1e-4
