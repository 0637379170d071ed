"""Small trained networks, and ways to plant one fault in one layer of a conversion."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from sj_ann2snn import CalibrationSite, InPlaceNeuron, NeuronMaker, NeuronSite, Normalization, Observer, make_if_neuron
from tests.helpers.networks import Written

__all__ = ["NETWORKS", "DeadChannels", "LateMaker", "Planted", "digits", "trained"]


@functools.cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images ``[N, 1, 8, 8]`` and labels, to train and to test."""
    found = load_digits()
    images = torch.as_tensor(found.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.as_tensor(found.target, dtype=torch.int64)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, test = order[:-400], order[-400:]
    return images[train], labels[train], images[test], labels[test]


def _linear() -> nn.Module:
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU()),
        *(nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10)),
    )


def _convolutional() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)),
    )


def _residual() -> nn.Module:
    def forward(net: Any, x: Tensor) -> Any:
        x = net.relu1(net.norm1(net.conv1(x)))
        x = net.relu2(x + net.norm2(net.conv2(x)))
        x = net.relu3(net.norm3(net.conv3(x)))
        return net.head(x.mean((2, 3)))

    return Written(
        forward,
        conv1=nn.Conv2d(1, 8, 3, stride=2, padding=1),
        norm1=nn.BatchNorm2d(8),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(8, 8, 3, padding=1),
        norm2=nn.BatchNorm2d(8),
        relu2=nn.ReLU(),
        conv3=nn.Conv2d(8, 24, 3, stride=2, padding=1),
        norm3=nn.BatchNorm2d(24),
        relu3=nn.ReLU(),
        head=nn.Linear(24, 10),
    )


def _bounded() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU6()),
        *(nn.Conv2d(8, 24, 3, padding=1), nn.ReLU6(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(96, 32), nn.ReLU(), nn.Linear(32, 10)),
    )


def _two_sided() -> nn.Module:
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 48), nn.LeakyReLU(0.1), nn.Linear(48, 48), nn.ReLU()),
        *(nn.Linear(48, 10),),
    )


def _deep() -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(64, 40), nn.ReLU()]
    for _ in range(5):
        layers += [nn.Linear(40, 40), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(40, 10))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "linear": _linear,
    "convolutional": _convolutional,
    "residual": _residual,
    "bounded": _bounded,
    "two-sided": _two_sided,
    "deep": _deep,
}


@functools.cache
def _trained(name: str) -> nn.Module:
    torch.manual_seed(1)
    images, labels, _, _ = digits()
    network = NETWORKS[name]().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(20 if name == "deep" else 6):
        for chosen in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    return network.eval()


def trained(name: str) -> nn.Module:
    """A copy of a network, trained for a few seconds."""
    return copy.deepcopy(_trained(name))


class _PlantedObserver(Observer):
    def __init__(self, site: CalibrationSite, factor: float) -> None:
        super().__init__(site)
        self.factor, self.largest = factor, torch.zeros(())

    def observe(self, x: Tensor) -> None:
        self.largest = self.largest.maximum(x.max())

    def merge(self, other: Any) -> None:
        self.largest = self.largest.maximum(other.largest)

    def scale(self) -> Tensor:
        return self.factor * self.largest.double()


class Planted(Normalization):
    """The largest activation; in one layer, times a factor."""

    name: ClassVar[str] = "planted"

    def __init__(self, layer: str, factor: float) -> None:
        self.layer, self.factor = layer, factor

    def observer(self, site: CalibrationSite) -> Observer:
        return _PlantedObserver(site, self.factor if site.name == self.layer else 1.0)


class _DeadObserver(_PlantedObserver):
    def observe(self, x: Tensor) -> None:
        assert self.site.channel_axis is not None
        largest = x.transpose(0, self.site.channel_axis).flatten(1).amax(1)
        self.largest = largest.maximum(self.largest.expand_as(largest))

    def scale(self) -> Tensor:
        scale = self.largest.double().clamp(min=1e-3)
        if self.factor != 1:
            scale[::2] *= self.factor
        return scale


class DeadChannels(Planted):
    """The largest activation of every channel; in every other channel of one layer, times a large factor."""

    name: ClassVar[str] = "dead-channels"

    def observer(self, site: CalibrationSite) -> Observer:
        return _DeadObserver(site, self.factor if site.name == self.layer else 1.0)


class _Late(InPlaceNeuron):
    """Every other neuron waits for some steps, and then emits up to `most` spikes in a step."""

    t: int

    def __init__(self, wait: int, most: int) -> None:
        super().__init__(initial_potential=0.5)
        self.wait, self.most = wait, most
        self.register_memory("t", 0)

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v += x
        self.t = self.t + 1
        emitted = self.v.floor().clamp_(0, self.most)
        if self.t <= self.wait:
            emitted.clamp_(max=1)
            emitted[:, ::2] = 0
        self.v -= emitted
        out.copy_(emitted)


class LateMaker(NeuronMaker):
    """IF neurons; in one layer, neurons that make the current of the next layer uneven."""

    name: ClassVar[str] = "late"

    def __init__(self, layer: str, wait: int, most: int = 2) -> None:
        self.layer, self.wait, self.most = layer, wait, most

    def make(self, site: NeuronSite) -> nn.Module:
        late = site.name == self.layer
        return _Late(self.wait, self.most) if late else make_if_neuron(initial_potential=0.5)
