"""Networks to export, and their way to a file and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sj_ann2snn import (
    export,
    load_network,
)

from ..helpers.networks import convert

FORMATS = {"archive": "network.zip", "torch": "network.pt"}

STEPS = 24


def pooled(pool: nn.Module, activation: nn.Module | None = None) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), activation or nn.ReLU(), pool, nn.Flatten(), nn.Linear(64, 8), nn.ReLU(),
        nn.Linear(8, 3),
    )  # fmt: skip


def images(samples: int = 40) -> Tensor:
    return torch.rand(samples, 1, 8, 8)


def round_trip(snn: nn.Module, folder: Path, format: str = "archive") -> Any:
    path = folder / FORMATS[format]
    export(snn, path)
    return load_network(path)


def small() -> Any:
    return convert(nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 2)), images())


def changed(module: nn.Module, **attributes: Any) -> nn.Module:
    for name, value in attributes.items():
        setattr(module, name, value)
    return module
