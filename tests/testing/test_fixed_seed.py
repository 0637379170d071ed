"""The fixture that seeds every test; this suite uses it as plugins do."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.parametrize("run", range(2))
def test_every_test_starts_from_the_same_random_numbers(run: int) -> None:
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0)))
