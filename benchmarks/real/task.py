"""What a network is for, and on which data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Task:
    """A trained network with the data of its task.

    Attributes:
        network: As its package loads it.
        package: Where it comes from, by its name on the index.
        data: What the samples are.
        calibration: Batches for the converter.
        inputs: The test samples, [N, ...].
        targets: What is true of them, [N, ...].
        metric: Function of (output, target): one value per sample, larger is better, 1 at best.
        measures: What the metric says, in words.
        batch: Samples in a batch of the test; fewer where the outputs are large, which a metric sees after every step.
    """

    network: nn.Module
    package: str
    data: str
    calibration: list[Tensor]
    inputs: Tensor
    targets: Tensor
    metric: Callable[[Any, Tensor], Tensor]
    measures: str
    batch: int = 128
