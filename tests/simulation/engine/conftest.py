"""What tests of packed networks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sj_ann2snn.simulation.engine.packing import parts


@pytest.fixture
def x() -> Tensor:
    return torch.rand(11, 3, 10, 10, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def short(x: Tensor) -> Tensor:
    """Inputs whose sums are exact where those of weights are."""
    return (x * 16).round() / 16


@pytest.fixture
def in_numbers(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Computes something without packing."""

    def compute(work: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(parts, "MOST_STEPS", 0)
            return work()

    return compute
