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
