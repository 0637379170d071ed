"""Corrections of several submodules of one network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, simulate


class Two(nn.Module):
    """Two parts that convert, in a network that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 6))
        self.head = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sigmoid(self.body(x))).softmax(1)


def test_corrections_see_every_submodule_alone() -> None:
    torch.manual_seed(0)
    ann, x = Two().eval(), torch.randn(64, 6)
    snn = Converter([x], mode="low-latency", T=8, convert_only=["body", "head"], progress=False)(ann)
    with torch.no_grad():
        wanted = ann(x)
    assert (simulate(snn, x, T=8) - wanted).norm() < 0.05 * wanted.norm()
