"""Cumulative max pools of numbers in one pass through memory: the same numbers as the pool's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, simulate
from sj_ann2snn.layers import CumulativeMaxPool
from sj_ann2snn.simulation.engine.numbers import pooling
from sj_ann2snn.simulation.engine.numbers.pooling import pool_in_one_pass

from ...helpers.networks import run_by_hand

pytest.importorskip("numba", reason="numba is not installed")


def images(channels: int, steps: int = 3) -> Tensor:
    """As channels_last."""
    return torch.randn(steps, 2, 7, 9, channels).movedim(-1, 2)


@pytest.mark.parametrize("channels", [4, 9, 10, 28, 64, 96])
@pytest.mark.parametrize(
    ("window", "stride", "padding"), [(2, None, 0), (3, 2, 1), ((2, 3), (1, 2), (0, 1)), (2, 3, 0), (3, 1, 1)]
)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_pools(channels: int, window: Any, stride: Any, padding: Any, ceil_mode: bool) -> None:
    torch.manual_seed(channels)
    one, other = (CumulativeMaxPool(2, window, stride, padding, ceil_mode=ceil_mode) for _ in range(2))
    for steps in (3, 1):  # the second time, they go on with what they remember
        x = images(channels, steps)
        found = pool_in_one_pass(one, x)
        assert found is not None
        assert torch.equal(found, other.multi_step_forward(x))
        assert torch.equal(one.cumulative, other.cumulative)  # type: ignore[arg-type]
        assert torch.equal(one.emitted, other.emitted)  # type: ignore[arg-type]


def test_nan_is_passed_on() -> None:
    one, other = (CumulativeMaxPool(2, 3, 2, 1) for _ in range(2))
    x = images(16)
    x[1, 0, 3, 2, 4], x[0, 1, 15, 0, 0], x[0, 0, 7, 6, 8] = torch.nan, torch.nan, torch.inf
    found, wanted = pool_in_one_pass(one, x), other.multi_step_forward(x)
    assert found is not None
    assert torch.allclose(found, wanted, equal_nan=True, atol=0, rtol=0)
    assert bool(found.isnan().any())


def test_what_is_left_to_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = CumulativeMaxPool(2, 2)
    assert pool_in_one_pass(pool, images(3)) is None  # too few channels
    assert pool_in_one_pass(pool, torch.randn(3, 2, 8, 7, 9)) is None  # channels first
    assert pool_in_one_pass(pool, images(8).double()) is None
    assert pool_in_one_pass(pool, images(8)[..., :1]) is None  # no window fits in
    assert pool_in_one_pass(pool, images(8)[:, :0]) is None
    assert pool_in_one_pass(CumulativeMaxPool(2, 2, dilation=2), images(8)) is None
    assert pool_in_one_pass(CumulativeMaxPool(1, 2), torch.randn(3, 2, 8, 9)) is None
    monkeypatch.setattr(pooling, "compiled_loop", lambda _: None)
    assert pool_in_one_pass(pool, images(8)) is None


def test_a_network_does_what_it_does_by_hand() -> None:
    torch.manual_seed(0)
    ann = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.LeakyReLU(0.2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(12, 4, 3), nn.Flatten()
    )
    x = torch.rand(3, 3, 12, 12)
    snn = Converter([x], progress=False)(ann.eval())
    assert torch.allclose(simulate(snn, x, 11), run_by_hand(snn, x, 11).mean(0), atol=1e-5)
