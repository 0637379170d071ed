"""A small CNN with BatchNorm and dropout, images for it, and what it answers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..helpers.networks import randomized


def cnn(head: int = 5) -> nn.Sequential:
    ann = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(8, head),
    )
    return randomized(ann)  # type: ignore[return-value]


def images(count: int = 40, size: int = 8) -> Tensor:
    return torch.rand(count, 1, size, size)


def answer(ann: nn.Module, x: Tensor) -> Tensor:
    """What the ANN says at inference, on a copy."""
    with torch.no_grad():
        return copy.deepcopy(ann).eval()(x)
