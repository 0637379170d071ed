"""Networks whose currents and potentials are exact in single precision, so that no order of operations matters."""

from __future__ import annotations

import torch
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


def exact(name: str, samples: int = 12, **options: object) -> tuple[nn.Module, Tensor]:
    """A converted network with weights and inputs on a grid, and samples."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    x = (torch.rand(64, *shape) * 64).round() / 64
    snn = Converter([x], progress=False, **options)(make())
    with torch.no_grad():
        for parameter in snn.parameters():
            parameter.copy_((parameter / GRID).round() * GRID)
        for buffer in snn.buffers():
            buffer.copy_((buffer / GRID).round() * GRID)
    return snn, x[:samples]
