"""Every test and every example in a docstring starts from the same random numbers.

A plugin for pytest. In `pyproject.toml`::

    [tool.pytest.ini_options]
    addopts = ["-p", "sj_ann2snn.testing.fixed_seed"]
"""

from __future__ import annotations

import pytest
import torch

__all__ = ["fixed_seed"]


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Seed torch with 0 before every test."""
    torch.manual_seed(0)
