"""The network of SpikingJelly's conversion tutorial, and its training."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import InputError

__all__ = ["train", "tutorial_network"]

CHANNELS, CLASSES, BLOCKS = 32, 10, 3


def tutorial_network(size: int) -> nn.Sequential:
    """Three times conv, BatchNorm, ReLU and average pooling, then linear and ReLU, for images of `size` by `size`.

    >>> [name for name, _ in tutorial_network(28).named_children()][:4]
    ['conv1', 'bn1', 'relu1', 'pool1']

    The convolutions are unpadded, as in the tutorial, if three poolings fit (from 22 pixels up); for smaller images
    they are padded by one.

    Raises:
        InputError: The images are too small even with padding.
    """
    padding = 0 if _left_over(size, 0) >= 1 else 1
    left = _left_over(size, padding)
    if left < 1:
        raise InputError(f"Images of {size} by {size} pixels are too small for three poolings; 8 by 8 is enough.")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for block in range(1, BLOCKS + 1):
        layers[f"conv{block}"] = nn.Conv2d(1 if block == 1 else CHANNELS, CHANNELS, 3, padding=padding)
        layers[f"bn{block}"] = nn.BatchNorm2d(CHANNELS, eps=1e-3)
        layers[f"relu{block}"] = nn.ReLU()
        layers[f"pool{block}"] = nn.AvgPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(CHANNELS * left * left, CLASSES)
    layers["relu4"] = nn.ReLU()
    return nn.Sequential(layers)


def train(
    network: nn.Sequential,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    seed: int,
    batch_size: int = 64,
    learning_rate: float = 5e-3,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Train with Adam on the cross-entropy, and leave the network in eval mode.

    The loss uses the input of the last ReLU, not its output: otherwise a class whose output is negative for all images
    would never get a gradient.
    """
    logits = network[:-1]
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    batches = math.ceil(len(images) / batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * batches)
    generator = torch.Generator().manual_seed(seed)
    network.train()
    with torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        for epoch in range(1, epochs + 1):
            total = 0.0
            for chosen in torch.randperm(len(images), generator=generator).tensor_split(batches):
                chosen = chosen.to(images.device)
                loss = nn.functional.cross_entropy(logits(images[chosen]), labels[chosen])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                total += loss.item() * len(chosen)
            tell(f"epoch {epoch} of {epochs}: loss {total / len(images):.4f}")
    network.eval()


def _left_over(size: int, padding: int) -> int:
    """Pixels along one side after all convolutions and poolings."""
    for _ in range(BLOCKS):
        size = (size - 2 + 2 * padding) // 2
    return size
