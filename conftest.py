"""What holds for the suite and for the examples in docstrings."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test starts from the same random numbers."""
    torch.manual_seed(0)
