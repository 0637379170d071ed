"""Networks whose currents are exact in single precision, so that no order of operations matters."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sj_ann2snn import Converter

GRID = 2.0**-10
"""All weights are multiples of it."""


class Residual(nn.Module):
    """Sums of branches, one of them an identity; a constant; a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.bn, self.offset = nn.BatchNorm2d(8), nn.Parameter(torch.full((8, 1, 1), 0.25))
        self.fc = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.first(x)))
        x = torch.relu(self.second(x) + x + self.offset)
        return torch.relu(self.fc(x.mean((2, 3))))


class Signals(nn.Module):
    """Conv1d, its padding, a transposed one, a pool, a channel affine in front."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(3)
        self.first = nn.Conv1d(3, 6, 3, padding="same", padding_mode="replicate")
        self.pool, self.wide = nn.AvgPool1d(2), nn.ConvTranspose1d(6, 4, 3, stride=2, output_padding=1)
        self.largest, self.fc = nn.MaxPool1d(3, 2, ceil_mode=True), nn.Linear(28, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.first(self.bn(x))))
        x = self.largest(torch.relu(self.wide(x)))
        return torch.relu(self.fc(x.flatten(1)))


class TwoOfEach(nn.Module):
    """Two inputs; outputs with names, one of them in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.vector = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Linear(6, 16)
        self.both, self.head, self.map = nn.Linear(80, 12), nn.Linear(12, 5), nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor, vector: Tensor) -> dict[str, Any]:
        seen = torch.relu(self.image(image))
        told = torch.relu(self.vector(vector))
        both = torch.relu(self.both(torch.cat([seen.flatten(1), told], 1)))
        return {"logits": self.head(both), "maps": (self.map(seen), told)}


class Moves(nn.Module):
    """Operations that only move elements: parts, padding, shuffling, nearest interpolation, a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(4, 4, 3)
        self.token, self.fc = nn.Parameter(torch.ones(1, 1, 4)), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        left, right = x.chunk(2, 1)
        x = torch.relu(self.second(F.pad(left - right, (1, 1, 2, 0))))
        x = F.interpolate(F.pixel_unshuffle(x, 2)[:, ::4], scale_factor=2.0)
        x = torch.cat([self.token.expand(x.size(0), -1, -1), x.flatten(2).transpose(1, 2)], 1)
        return self.fc(x).permute(0, 2, 1)


def chain() -> nn.Module:
    """Convolutions with groups, stride and dilation, average pools of several kinds, linear layers."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 12, (1, 3), padding=(0, 1)),
        nn.ReLU(),
        nn.AvgPool2d(2, 3, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(48, 20),
        nn.ReLU(),
        nn.Linear(20, 4),
    )


def volumes() -> nn.Module:
    """Three dimensions."""
    return nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(4, 4, 2), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


def pools() -> nn.Module:
    """Max pools: windows that overlap, with padding, with dilation."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2, 1, dilation=2), nn.Conv2d(6, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(1),
    )  # fmt: skip


def transposed() -> nn.Module:
    """Transposed convolutions, one with groups; a linear layer at every position; two layers in a row."""
    return nn.Sequential(
        nn.ConvTranspose1d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose1d(6, 4, 2, groups=2), nn.ReLU(),
        nn.Linear(24, 5), nn.ReLU(), nn.Flatten(), nn.Linear(20, 8), nn.Linear(8, 3),
    )  # fmt: skip


def vectors() -> nn.Module:
    """Linear layers alone."""
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "chain": (chain, ((3, 8, 8),)),
    "moves": (Moves, ((3, 8, 8),)),
    "pools": (pools, ((3, 8, 8),)),
    "residual": (Residual, ((3, 8, 8),)),
    "signals": (Signals, ((3, 12),)),
    "transposed": (transposed, ((3, 12),)),
    "two of each": (TwoOfEach, ((3, 8, 8), (6,))),
    "vectors": (vectors, ((6,),)),
    "volumes": (volumes, ((2, 4, 4, 4),)),
}


def samples(shapes: tuple[tuple[int, ...], ...], count: int = 64) -> tuple[Tensor, ...]:
    """Inputs that are multiples of 1/64, of both signs."""
    return tuple((torch.rand(count, *shape) * 80 - 16).round() / 64 for shape in shapes)


def converted(name: str, **options: Any) -> tuple[Any, tuple[Tensor, ...]]:
    """One of `NETWORKS`, converted with its weights on a grid, and twelve samples."""
    torch.manual_seed(0)
    make, shapes = NETWORKS[name]
    return on_grid(make(), shapes, **options)


def on_grid(ann: nn.Module, shapes: tuple[tuple[int, ...], ...], **options: Any) -> tuple[Any, tuple[Tensor, ...]]:
    x = samples(shapes)
    snn = Converter([x if len(x) > 1 else x[0]], progress=False, **options)(ann)
    if "weights" not in options:
        with torch.no_grad():
            for value in (*snn.parameters(), *snn.buffers()):
                value.copy_((value / GRID).round() * GRID)
    return snn, tuple(one[:12] for one in x)


class RandomNetwork(nn.Module):
    """Some of the layers and branches, in a random order."""

    def __init__(self, seed: int, *, integers: bool = False) -> None:
        super().__init__()
        random = Random(seed)
        kinds = ["plain", "groups", "dilated", "flat kernel", "pool", "max pool", "sum"]
        kinds += [] if integers else ["padded pool", "difference", "leaky", "parts"]
        self.kinds = [random.choice(kinds) for _ in range(random.randint(2, 4))]
        self.end = random.choice(("flatten", "mean", "pool"))
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.layers = nn.ModuleList(self._layer(kind) for kind in self.kinds)
        self.branches = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in self.kinds)
        size = 16 >> sum("pool" in kind for kind in self.kinds)
        self.last = nn.Linear(8 * size * size if self.end == "flatten" else 8, 5)

    @staticmethod
    def _layer(kind: str) -> nn.Module:
        made: dict[str, nn.Module] = {
            "groups": nn.Conv2d(8, 8, 3, padding=1, groups=4),
            "dilated": nn.Conv2d(8, 8, 3, padding=2, dilation=2, bias=False),
            "flat kernel": nn.Conv2d(8, 8, (1, 3), padding=(0, 1)),
            "pool": nn.AvgPool2d(2),
            "padded pool": nn.AvgPool2d(4, 2, 1),
            "max pool": nn.MaxPool2d(3, 2, 1),
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
            if kind == "parts":
                y = torch.cat([y[:, 4:], branch(x)[:, :4]], 1)
            x = y if "pool" in kind else F.leaky_relu(y, 0.25) if kind == "leaky" else torch.relu(y)
        if self.end == "flatten":
            return torch.relu(self.last(x.view(x.size(0), -1)))
        x = x.mean((2, 3)) if self.end == "mean" else F.adaptive_avg_pool2d(x, 1).flatten(1)
        out: Tensor = self.last(x)
        return out
