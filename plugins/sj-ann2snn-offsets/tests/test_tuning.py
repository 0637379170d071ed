"""`tune` finds FTBC without being told, whatever other plugins are installed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import tune


def network() -> tuple[nn.Module, list[Tensor]]:
    """Six convolutions, and batches for them."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs in (2, 8, 8, 8, 8, 8):
        convolution = nn.Conv2d(inputs, 8, 3, padding=1)
        nn.init.orthogonal_(convolution.weight, gain=1.4)
        nn.init.normal_(convolution.bias, std=0.3)  # type: ignore[arg-type]
        layers += [convolution, nn.ReLU()]
    head = nn.Linear(8, 4)
    ann = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
    x = torch.randn(300, 2, 6, 6)
    with torch.no_grad():
        head.bias -= ann(x).mean(0)  # every class is the answer to some samples
    return ann, list(x.split(50))


def test_plain_neurons_get_biases_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SJ_ANN2SNN_LOAD_PLUGINS", "sj-ann2snn-offsets")
    ann, batches = network()
    fixed = {"neuron": "if", "mode": "99.9%", "readout": "mean", "layers": False, "progress": False}
    # Nothing loses so little in so few steps, so the result is what loses least.
    found, without = (tune(ann, batches, 1.0, T=8, **fixed, **options) for options in ({}, {"corrections": ()}))
    assert found.arguments["corrections"] == "ftbc"
    assert found.drop < without.drop
