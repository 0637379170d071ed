"""Networks whose currents and potentials are exact in single precision, so that no order of operations matters."""

from __future__ import annotations

from functools import partial
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sj_ann2snn import Converter

GRID = 2.0**-10
"""All weights are multiples of it."""


class Residual(nn.Module):
    """A sum of two branches, one of them an identity."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.first(x)))
        x = torch.relu(self.second(x) + x)
        return torch.relu(self.fc(self.pool(x).flatten(1)))


def chain() -> nn.Module:
    """Convolutions with groups and stride, an average pool, linear layers."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 12, (1, 3), stride=2, padding=(0, 1)),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 20),
        nn.ReLU(),
        nn.Linear(20, 4),
    )


def vectors() -> nn.Module:
    """Linear layers alone."""
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))


NETWORKS = {"chain": (chain, (3, 8, 8)), "residual": (Residual, (3, 8, 8)), "vectors": (vectors, (6,))}


def exact(name: str | int, samples: int = 12, **options: object) -> tuple[nn.Module, Tensor]:
    """A converted network, one of `NETWORKS` or the random one of a seed, with weights on a grid, and samples."""
    torch.manual_seed(0 if isinstance(name, str) else name)
    make, shape = NETWORKS[name] if isinstance(name, str) else (partial(RandomNetwork, name), (2, 8, 8))
    x = (torch.rand(64, *shape) * 64).round() / 64
    snn = Converter([x], progress=False, **options)(make())
    with torch.no_grad():
        for parameter in snn.parameters():
            parameter.copy_((parameter / GRID).round() * GRID)
        for buffer in snn.buffers():
            buffer.copy_((buffer / GRID).round() * GRID)
    return snn, x[:samples]


class RandomNetwork(nn.Module):
    """Some of the layers and branches that can be written, in a random order."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        random = Random(seed)
        kinds = ("plain", "groups", "dilated", "flat kernel", "pool", "padded pool", "sum", "difference", "leaky")
        self.kinds = [random.choice(kinds) for _ in range(random.randint(2, 4))]
        self.end = random.choice(("flatten", "mean", "pool"))
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.layers = nn.ModuleList(self._layer(kind) for kind in self.kinds)
        self.branches = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in self.kinds)
        size = 8 >> sum("pool" in kind for kind in self.kinds)
        self.last = nn.Linear(8 * size * size if self.end == "flatten" else 8, 5)

    @staticmethod
    def _layer(kind: str) -> nn.Module:
        made: dict[str, nn.Module] = {
            "groups": nn.Conv2d(8, 8, 3, padding=1, groups=4),
            "dilated": nn.Conv2d(8, 8, 3, padding=2, dilation=2, bias=False),
            "flat kernel": nn.Conv2d(8, 8, (1, 3), padding=(0, 1)),
            "pool": nn.AvgPool2d(2),
            "padded pool": nn.AvgPool2d(4, 2, 1),
        }
        return made.get(kind, nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        for kind, layer, branch in zip(self.kinds, self.layers, self.branches, strict=True):
            y = layer(x)
            if kind == "sum":
                y = y + branch(x) + x
            if kind == "difference":
                y = x - branch(x)
            x = y if "pool" in kind else F.leaky_relu(y, 0.25) if kind == "leaky" else torch.relu(y)
        if self.end == "flatten":
            return torch.relu(self.last(x.view(x.size(0), -1)))
        x = x.mean((2, 3)) if self.end == "mean" else F.adaptive_avg_pool2d(x, 1).flatten(1)
        out: Tensor = self.last(x)
        return out
