"""MACs of one pass, against counts by hand and by torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sj_ann2snn import costs
from sj_ann2snn.evaluation.costs.macs import count_macs

from ...helpers.networks import Written, convert

CASES: dict[str, tuple[nn.Module, tuple[int, ...], int]] = {
    "Linear": (nn.Linear(4, 3), (4,), 12),
    "Linear over a sequence": (nn.Linear(4, 3), (5, 4), 60),
    "Conv1d": (nn.Conv1d(2, 3, 3), (2, 6), 4 * 3 * 6),
    "Conv2d": (nn.Conv2d(2, 3, 3, padding=1), (2, 4, 4), 16 * 3 * 18),
    "Conv2d, strided": (nn.Conv2d(2, 3, 3, stride=2), (2, 7, 7), 9 * 3 * 18),
    "Conv2d, grouped": (nn.Conv2d(4, 6, 3, groups=2), (4, 5, 5), 9 * 6 * 18),
    "Conv3d": (nn.Conv3d(1, 2, 2), (1, 3, 3, 3), 8 * 2 * 8),
    "ConvTranspose2d": (nn.ConvTranspose2d(2, 3, 3, stride=2), (2, 4, 4), 16 * 3 * 18),
    "matrix and vector": (Written(lambda net, x: x @ net.w, w=nn.Parameter(torch.rand(4))), (4,), 4),
    "einsum": (Written(lambda net, x: torch.einsum("ni,oi->no", x, net.w), w=nn.Parameter(torch.rand(3, 4))), (4,), 12),
    "attention": (
        Written(lambda net, x: F.scaled_dot_product_attention(x, x, x)),
        (2, 5, 4),
        2 * 2 * 5 * 5 * 4,
    ),
    "two streams": (Written(lambda net, x: torch.matmul(x, x.transpose(1, 2))), (5, 4), 100),
    "TransformerEncoderLayer": (
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval(),
        (5, 4),
        5 * 4 * 16 + 2 * 5 * 5 * 4 + 2 * 5 * 32,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_macs_of_one_sample(name: str) -> None:
    network, shape, wanted = CASES[name]
    x = torch.rand(1, *shape)
    count, _ = count_macs(network, lambda: network(x))
    assert count.total == wanted
    assert not count.not_counted
    doubled, _ = count_macs(network, lambda: network(torch.cat([x, x])))
    assert doubled.total == 2 * wanted


@pytest.mark.parametrize("name", [name for name in CASES if "Conv" in name or "Linear" in name])
def test_macs_are_half_of_the_flops_that_torch_counts(name: str) -> None:
    network, shape, _ = CASES[name]
    ann: Any = nn.Sequential(network, nn.ReLU(), nn.Flatten())
    ann.append(nn.Linear(ann(torch.rand(1, *shape)).shape[1], 2))
    nn.init.constant_(network.bias, 1.0)  # so that no layer is dead
    x = torch.rand(3, *shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ann(x[:1])
    found = costs(ann, convert(ann, x), [x], 4, progress=False)
    assert found.ann_macs == counter.get_total_flops() / 2
    assert sum(one.ann_macs for one in found) == found.ann_macs


def test_layers_are_told_apart() -> None:
    shared = nn.Linear(4, 4)
    network = nn.ModuleDict({"a": shared, "b": nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 1))})

    def run() -> Tensor:
        x = torch.rand(1, 4)
        found: Tensor = network["b"](network["a"](network["a"](x)))
        return found

    assert count_macs(network, run)[0].layers == {"a": 32, "b.0": 8, "b.1": 2}


UNKNOWN: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "LSTM": lambda: (nn.LSTM(4, 3), torch.rand(1, 1, 4)),
    "Bilinear": lambda: (Written(lambda net, x: net.layer(x, x), layer=nn.Bilinear(4, 4, 2)), torch.rand(1, 4)),
    "cdist": lambda: (Written(lambda net, x: torch.cdist(x, x)), torch.rand(1, 3, 4)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_named(name: str) -> None:
    network, x = UNKNOWN[name]()
    assert count_macs(network, lambda: network(x))[0].not_counted


def test_hooks_go_away_after_an_error() -> None:
    network = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(RuntimeError):
        count_macs(network, lambda: network(torch.rand(1, 5)))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
