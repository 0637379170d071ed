"""Convolutions of spikes by table lookup equal the dense ones, and step aside where they cannot."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import simulate
from sj_ann2snn.conversion.round_weights import round_to_grid
from sj_ann2snn.simulation.engine.numbers.lookup import LARGEST, lookup_convolution

from ...helpers.networks import convert, randomized

needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")


def spikes(*size: int, rate: float = 0.2) -> Tensor:
    """Spikes ``[T, N, C, H, W]`` with the channels innermost."""
    merged = (torch.rand(size[0] * size[1], *size[2:]) < rate).float()
    return merged.contiguous(memory_format=torch.channels_last).view(size)


CONVOLUTIONS = {
    "plain": nn.Conv2d(16, 16, 3, padding=1),
    "strided": nn.Conv2d(8, 32, 3, stride=2, padding=1),
    "uneven": nn.Conv2d(4, 24, (3, 5), stride=(1, 2), padding=(2, 0)),
    "no bias": nn.Conv2d(16, 8, 3, bias=False),
    "1x1": nn.Conv2d(64, 40, 1),
    "row by row": nn.Conv2d(64, 64, 3, padding=1),
    "blocks of channels": nn.Conv2d(32, 192, 3, padding=1),
    "wide": nn.Conv2d(8, 8, 7, padding=3),
}


@needs_numba
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
def test_equals_the_dense_convolution(name: str, rate: float) -> None:
    conv = round_to_grid(CONVOLUTIONS[name])
    lookup = lookup_convolution(conv)
    assert lookup is not None
    x = spikes(3, 2, conv.in_channels, 9, 11, rate=rate)
    with torch.no_grad():
        assert torch.equal(lookup(conv, x, False).flatten(0, 1), conv(x.flatten(0, 1)))


@needs_numba
def test_without_rounded_weights_it_equals_up_to_the_order_of_summation() -> None:
    conv = CONVOLUTIONS["row by row"]
    lookup = lookup_convolution(conv)
    assert lookup is not None
    x = spikes(1, 4, 64, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(lookup(conv, x, False)[0], conv(x[0]), rtol=0, atol=1e-5)


@needs_numba
@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, -1e-30, 1e-30, float("nan"), float("inf")])
def test_leaves_what_is_no_spike_to_the_layer(value: float) -> None:
    conv = CONVOLUTIONS["plain"]
    lookup = lookup_convolution(conv)
    assert lookup is not None
    x = spikes(2, 2, 16, 6, 6)
    assert lookup(conv, x, False) is not None
    x[1, 1, 15, 5, 5] = value
    assert lookup(conv, x, False) is None


@needs_numba
def test_a_zero_of_either_sign_is_no_spike() -> None:
    conv = CONVOLUTIONS["plain"]
    lookup = lookup_convolution(conv)
    assert lookup is not None
    x = spikes(2, 2, 16, 6, 6)
    expected = lookup(conv, x, False)
    x[x == 0] = -0.0
    assert torch.equal(lookup(conv, x, False), expected)


@needs_numba
def test_images_in_another_layout_are_left_to_the_layer() -> None:
    conv = CONVOLUTIONS["plain"]
    lookup = lookup_convolution(conv)
    assert lookup is not None
    assert lookup(conv, spikes(2, 2, 16, 6, 6).contiguous(), False) is None
    assert lookup(conv, spikes(2, 2, 16, 6, 6).double(), False) is None


@needs_numba
def test_an_image_smaller_than_the_window_is_left_to_the_layer() -> None:
    conv = nn.Conv2d(4, 8, 5)
    lookup = lookup_convolution(conv)
    assert lookup is not None
    assert lookup(conv, spikes(1, 1, 4, 3, 3), False) is None


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(16, 16),
        nn.Conv1d(16, 16, 3),
        nn.Conv2d(16, 16, 3, groups=2),
        nn.Conv2d(16, 16, 3, dilation=2),
        nn.Conv2d(16, 16, 3, padding="same"),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(3, 16, 3),
        nn.Conv2d(16, 10, 3),
        nn.Conv2d(4, 8, 1),
        nn.Conv2d(16, 16, 3).double(),
        nn.Conv2d(512, 512, 3),
    ],
    ids=str,
)
def test_layers_without_lookup(module: nn.Module) -> None:
    assert lookup_convolution(module) is None


def test_tables_are_bounded() -> None:
    assert LARGEST < 512 * 512 * 9 * 4 * 4


def test_without_numba_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sj_ann2snn.simulation.engine.numbers.lookup.compiled_loop", lambda loop: None)
    assert lookup_convolution(CONVOLUTIONS["plain"]) is None


@needs_numba
def test_a_network_computes_the_same_with_and_without_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    layers: list[nn.Module] = []
    for before, after in [(3, 16), (16, 16), (16, 32)]:
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    ann = randomized(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)))
    x = torch.rand(6, 3, 12, 12)
    snn = convert(ann, x, mode="max")
    used: list[bool] = []

    def watched(module: nn.Module) -> Any:
        lookup = lookup_convolution(module)
        used.append(lookup is not None)
        return lookup

    monkeypatch.setattr("sj_ann2snn.simulation.engine.numbers.shortcuts.lookup_convolution", watched)
    by_lookup = simulate(snn, x, T=16)
    assert any(used)
    monkeypatch.setattr("sj_ann2snn.simulation.engine.numbers.shortcuts.lookup_convolution", lambda module: None)
    torch.testing.assert_close(by_lookup, simulate(snn, x, T=16), rtol=0, atol=1e-6)
