"""What a plan refuses, and where it says so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import UnsupportedError

from ..helpers.networks import convert


class Scaled(nn.Module):
    """Takes a number beside the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor, factor: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x * factor)))


def test_an_input_without_samples_is_refused_as_an_input() -> None:
    with pytest.raises(
        UnsupportedError, match=r"factor \(input\): it has shape \(\) for two samples.*as a buffer"
    ) as caught:
        convert(Scaled(), [(torch.rand(20, 4), torch.tensor(2.0))])
    assert str(caught.value).count("\n  - ") == 1


class FirstOnly(nn.Module):
    """Keeps the first sample and goes on without the others."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x[:1]))
        return self.last(torch.relu(h * 2 + 1)).flip(1)


def test_where_the_samples_get_lost_is_named_and_not_what_follows() -> None:
    with pytest.raises(
        UnsupportedError, match=r"getitem .*shape \(1, 4\) for two samples and \(1, 4\) for three"
    ) as caught:
        convert(FirstOnly(), torch.rand(20, 4))
    assert str(caught.value).count("\n  - ") == 1
