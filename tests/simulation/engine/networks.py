"""Networks whose spikes can stay packed in many of their layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.one = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.two = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.two(F.relu(self.one(x))) + self.shortcut(x))


def network() -> nn.Module:
    """Residual blocks, max and average pools, a layer with an odd number of channels, and linear layers."""
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        Block(16, 16),
        Block(16, 32, 2),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 20, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(20, 16, 1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 24),
        nn.ReLU(),
        nn.Linear(24, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    ).eval()


def averaging() -> nn.Module:
    """Convolutions and a shortcut behind average pools."""
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d((1, 2)),
        Block(24, 24),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, 5),
    ).eval()


def stem() -> nn.Module:
    """As ResNets for large images begin: windows of a max pool overlap, and its output is a shortcut."""
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        Block(16, 16),
        nn.Conv2d(16, 12, 1),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
        Block(12, 16, 2),
        Block(16, 16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    ).eval()


class Rearranging(nn.Module):
    """Layers that no loop over packed values stands for: groups, parts, sizes, coordinates, pools of currents."""

    coordinates: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, 1, 1)
        self.grouped = nn.Conv2d(12, 16, 3, 2, 1, groups=2)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.beside = nn.Conv2d(18, 16, 3, 1, 1)
        self.larger = nn.ConvTranspose2d(16, 6, 2, 2)
        self.last = nn.Linear(600, 5)
        self.register_buffer("coordinates", (torch.arange(50.0).view(1, 2, 5, 5) / 64))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        y = self.grouped(x)
        first, second = y.chunk(2, 1)
        y = self.pool(torch.cat([second, first], 1))
        y = torch.cat([y, self.coordinates.repeat(y.size(0), 1, 1, 1)], 1)
        y = torch.relu(self.beside(y)) + y[:, :16]
        y = F.interpolate(y, size=(x.size(2) // 2, x.size(3) // 2))
        y = torch.relu(self.larger(y))
        return self.last(y.view(y.size(0), -1))  # type: ignore[no-any-return]


def rearranging() -> nn.Module:
    torch.manual_seed(8)
    return Rearranging().eval()


def grouped() -> nn.Module:
    """Grouped convolutions between 1×1 ones, as in RegNets and ResNeXts."""
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, 1, 1, groups=4),
        nn.ReLU(),
        nn.Conv2d(16, 48, 1),
        nn.ReLU(),
        nn.Conv2d(48, 48, 3, 2, 1, groups=3),
        nn.ReLU(),
        nn.Conv2d(48, 10, 1, groups=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(10, 5),
    ).eval()


def inverted() -> nn.Module:
    """Depthwise convolutions between 1×1 ones, as in MobileNets."""
    torch.manual_seed(6)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.ReLU6(),
        nn.Conv2d(16, 16, 3, 1, 1, groups=16),
        nn.ReLU6(),
        nn.Conv2d(16, 8, 1),
        nn.Conv2d(8, 24, 1),
        nn.ReLU6(),
        nn.AvgPool2d(2, 1),
        nn.Conv2d(24, 24, 3, 2, 1, groups=24),
        nn.ReLU6(),
        nn.Conv2d(24, 16, 1),
        nn.ReLU6(),
        nn.Flatten(),
        nn.Linear(64, 5),
    ).eval()


class Branching(nn.Module):
    """Joins, surrounds, enlarges and cuts what neurons say, and flattens images of an odd number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 12, 1)
        self.inner, self.outer = nn.Conv2d(20, 10, 3), nn.Conv2d(8, 6, 3, padding=1)
        self.pool, self.up, self.border = nn.MaxPool2d(2, ceil_mode=True), nn.Upsample(scale_factor=2), nn.ZeroPad2d(1)
        self.joined, self.same = nn.Conv2d(14, 16, 3, stride=2), nn.AdaptiveAvgPool2d(5)
        self.hidden, self.last = nn.Linear(400, 30), nn.Linear(30, 5)

    def forward(self, x: Tensor) -> Tensor:
        one = F.relu(self.one(x))
        both = torch.cat([one, F.relu(self.two(x))], 1)
        inner = F.relu(self.inner(self.border(both)))
        small = self.pool(one)
        wide = F.pad(F.relu(self.outer(self.up(small))), (1, 1, 1, 1))
        enlarged = F.interpolate(inner[:, :, ::2, ::2], scale_factor=2, mode="nearest")
        again = torch.cat((one, wide[:, :, 1:-1, 1:-1]), dim=1)
        y = self.same(F.relu(self.joined(F.pad(again, (0, 1, 0, 1)))))
        features = torch.cat([y.view(y.size(0), -1), torch.flatten(enlarged, 1)[:, :0]], 1)
        result: Tensor = self.last(F.relu(self.hidden(features)) + F.relu(self.hidden(torch.flatten(y, 1))))
        return result


def branching() -> nn.Module:
    """See `Branching`."""
    torch.manual_seed(8)
    return Branching().eval()


class Lines(nn.Module):
    """Convolutions and pools of signals."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(3, 12, 7, padding=3),
            nn.ReLU(),
            nn.MaxPool1d(3, 2, 1),
            nn.Conv1d(12, 16, 5),
            nn.ReLU(),
            nn.AvgPool1d(2),
            nn.Conv1d(16, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv1d(16, 16, 3, groups=16),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x.flatten(2)[..., :90])
        return result


def lines() -> nn.Module:
    """See `Lines`."""
    torch.manual_seed(9)
    return Lines().eval()


class Decoder(nn.Module):
    """Makes images of features, twice as large and again; one of its layers is told how large."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, stride=2)
        self.twice, self.told = nn.ConvTranspose2d(16, 12, 2, 2), nn.ConvTranspose2d(12, 8, 4, 2, 1)
        self.line, self.last = nn.ConvTranspose1d(8, 8, 3, 2), nn.Conv1d(8, 5, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.twice(F.relu(self.first(x))))
        x = F.relu(self.told(x, output_size=(17, 16))).flatten(2)
        return self.last(F.relu(self.line(x[:, :, :40]))).mean(2)


def decoder() -> nn.Module:
    """See `Decoder`."""
    torch.manual_seed(10)
    return Decoder().eval()


class TwoSided(nn.Module):
    """Activations of both signs, one slope or one for each channel, in images, lines and features."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 10, 3), nn.Conv2d(10, 16, 3)
        self.first, self.second, self.third = nn.PReLU(10), nn.LeakyReLU(0.1), nn.PReLU(8)
        self.pool, self.line = nn.MaxPool2d(2, 2, ceil_mode=True), nn.Conv1d(16, 8, 3)
        self.hidden, self.last = nn.Linear(16, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.two(self.pool(self.first(self.one(x)))))
        x = self.third(self.line(x.flatten(2)))
        result: Tensor = self.last(F.leaky_relu(self.hidden(x.flatten(1)), 0.3))
        return result


def two_sided() -> nn.Module:
    """See `TwoSided`."""
    torch.manual_seed(11)
    return TwoSided().eval()


class Dilated(nn.Module):
    """Windows with gaps, in images and in lines, where what lies behind the end is cut off (a causal network)."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.wide = nn.Conv2d(3, 10, 3, padding=1), nn.Conv2d(10, 12, 3, padding=2, dilation=2)
        self.one, self.two = nn.Conv1d(12, 16, 3, padding=2), nn.Conv1d(16, 12, 3, padding=8, dilation=4)
        self.last = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.wide(F.relu(self.image(x)))).flatten(2)
        y = F.relu(self.one(x)[..., :-2])
        y = F.relu(self.two(y)[..., :-8] + x)
        result: Tensor = self.last(y[..., -1])
        return result


def dilated() -> nn.Module:
    """See `Dilated`."""
    torch.manual_seed(12)
    return Dilated().eval()
