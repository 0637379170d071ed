"""Scales per channel behind operations that have their channels in the last dimension."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, simulate


class Block(nn.Module):
    """A transformer's block; its neurons stand behind the normalizations and behind GELU and ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.after, self.wide, self.act = nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU()
        self.narrow, self.relu, self.head = nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.narrow(self.act(self.wide(self.after(x))))
        return self.head(self.relu(x).mean(1))


class ReluOfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act = nn.Linear(4, 8), nn.ReLU()
        self.attention, self.relu = nn.MultiheadAttention(8, 2, batch_first=True), nn.ReLU()
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.first(x))
        return self.head(self.relu(self.attention(y, y, y, need_weights=False)[0]))


@pytest.mark.parametrize("make", [Block, ReluOfAttention])
def test_channels_are_last_in_transformers(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    ann = make().eval()
    x = torch.randn(32, 6, 8 if make is Block else 4)
    converter = Converter([x], channel_wise=True, analog_neuron=True, initial_potential=0.5, progress=False)
    snn = converter(ann)
    assert not any(entry.channels_unknown for entry in converter.report)
    assert converter.report["relu"].scale[0] < converter.report["relu"].scale[1]
    for length in (6, 9, 3):
        inputs = torch.cat([x[:4], x[4:8]], 1)[:, :length]
        wanted = ann(inputs)
        error = (simulate(snn, inputs, T=512) - wanted).norm() / wanted.norm()
        assert error < 0.1
