"""CIFAR-10 as it lies in the folder of shared data, and the networks that `train_cifar10.py` trains on it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

__all__ = ["DEVIATION", "MEAN", "NETWORKS", "WEIGHTS", "normalized", "pixels", "trained_network"]

MEAN = torch.tensor((0.4914, 0.4822, 0.4465)).view(3, 1, 1)
DEVIATION = torch.tensor((0.2470, 0.2435, 0.2616)).view(3, 1, 1)

WEIGHTS = Path(__file__).with_name("networks")
"""The state dicts that `train_cifar10.py` wrote, ``NAME.pth``, each with the log of its training, ``NAME.log``."""


def pixels(shared: Path, part: str, chosen: slice = slice(None)) -> tuple[Tensor, Tensor]:
    """The ``chosen`` images of a part, uint8 ``[N, 3, 32, 32]``, and their labels.

    Args:
        shared: The folder that holds ``data/cifar10_PART_jpeg.npz``.
        part: "train" or "test".
        chosen: Which of them.
    """
    stored = np.load(shared / "data" / f"cifar10_{part}_jpeg.npz")
    blob, offsets = stored["blob"], stored["offsets"]
    decoded = [
        np.asarray(Image.open(io.BytesIO(blob[offsets[i] : offsets[i + 1]].tobytes())))
        for i in range(len(offsets) - 1)[chosen]
    ]
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2), torch.from_numpy(stored["labels"][chosen]).long()


def normalized(images: Tensor) -> Tensor:
    """What the networks take: ``(x / 255 - mean) / deviation``."""
    return (images / 255 - MEAN.to(images.device)) / DEVIATION.to(images.device)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut, which is a 1×1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        changes = stride != 1 or inputs != outputs
        self.shortcut = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if changes
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet20(width: int = 16) -> nn.Module:
    """The ResNet-20 of He et al. 2016 for CIFAR-10 (0.27 million parameters), with projections as shortcuts."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for outputs in (width, 2 * width, 4 * width):
        for block in range(3):
            layers.append(BasicBlock(inputs, outputs, 2 if block == 0 and outputs > width else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def wide_resnet20() -> nn.Module:
    """A ResNet-20 twice as wide (1.08 million parameters)."""
    return resnet20(32)


def vgg7() -> nn.Module:
    """Six 3×3 convolutions with three max pools, as in VGG (1.15 million parameters)."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in (64, 128, 256):
        for _ in range(2):
            layers += [nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def vgg8() -> nn.Module:
    """Seven convolutions with four max pools, as in VGG (1.97 million parameters); the first one is 2×2."""
    layers: list[nn.Module] = [nn.Conv2d(3, 24, 2), nn.ReLU()]
    inputs = 24
    for outputs in (64, 256, 256):
        for pools in (True, False):
            layers += [nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if pools else []
            inputs = outputs
    return nn.Sequential(*layers, nn.MaxPool2d(3), nn.Flatten(), nn.Linear(inputs, 10))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": resnet20,
    "wide_resnet20": wide_resnet20,
    "vgg7": vgg7,
    "vgg8": vgg8,
}


def trained_network(name: str, folder: Path = WEIGHTS) -> nn.Module:
    """The network of that name with the weights in `folder`, in eval mode."""
    network = NETWORKS[name]()
    network.load_state_dict(torch.load(folder / f"{name}.pth", weights_only=True, map_location="cpu"))
    return network.eval()
