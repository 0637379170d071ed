"""Whole networks: step mode "m" computes on [T, N, ...] what the loop in step mode "s" computes on [N, ...]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sj_ann2snn import simulate

from ..helpers.networks import Written, convert, multi_step, relative_error, run_by_hand

CONSTANT = torch.linspace(-1.0, 1.0, 6)

OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "h + parameter": lambda h: h + CONSTANT,
    "parameter - h": lambda h: CONSTANT - h,
    "h * parameter": lambda h: h * CONSTANT,
    "parameter * h": lambda h: CONSTANT * h,
    "h / 3": lambda h: h / 3,
    "h + 1": lambda h: h + 1,
    "2 - h": lambda h: 2 - h,
    "-h": lambda h: -h,
    "torch.rsub": lambda h: torch.rsub(h, 2.0),
    "torch.add, alpha": lambda h: torch.add(h, h, alpha=2),
    "torch.sub, alpha": lambda h: torch.sub(h, h, alpha=0.5),
    "h.mul(2).add(1)": lambda h: h.mul(2).add(1),
    "torch.cat": lambda h: torch.cat([h[:, 3:], -h[:, :3]], 1),
    "torch.stack": lambda h: torch.stack([h, h * 2], 1).flatten(1)[:, 3:9],
    "chunk": lambda h: torch.cat(h.chunk(3, 1)[::-1], 1),
    "split": lambda h: h.split([1, 2, 3], 1)[2].repeat(1, 2),
    "unbind": lambda h: torch.stack(h.unbind(1)[::-1], 1),
    "unsqueeze, expand": lambda h: h.unsqueeze(1).expand(-1, 4, -1).sum(1),
    "permute": lambda h: h.view(-1, 2, 3).permute(0, 2, 1).reshape(-1, 6),
    "transpose": lambda h: h.view(-1, 2, 3).transpose(1, 2).flatten(1),
    "roll": lambda h: torch.roll(h, 2, 1),
    "flip": lambda h: h.flip(1),
    "narrow": lambda h: h.narrow(1, 1, 3).repeat(1, 2),
    "select": lambda h: h.select(1, 2).unsqueeze(1).expand(-1, 6),
    "getitem": lambda h: torch.cat([h[:, ::2], h[..., 1::2]], -1),
    "getitem, None": lambda h: h[:, None, :].squeeze(1),
    "index tensor": lambda h: h[:, torch.tensor([5, 4, 3, 0, 0, 1])],
    "matmul": lambda h: h @ torch.diag(CONSTANT),
    "torch.mm": lambda h: torch.mm(h, torch.diag(CONSTANT)),
    "torch.matmul": lambda h: torch.matmul(h.unsqueeze(1), torch.diag(CONSTANT)).squeeze(1),
    "einsum": lambda h: torch.einsum("ni,ij->nj", h, torch.diag(CONSTANT)),
    "F.linear": lambda h: F.linear(h, torch.diag(CONSTANT), CONSTANT),
    "mean": lambda h: h - h.mean(1, keepdim=True),
    "mean, last": lambda h: h - h.mean(-1, True),
    "sum": lambda h: h + h.sum(dim=1, keepdim=True),
    "cumsum": lambda h: h.cumsum(1),
    "F.pad": lambda h: F.pad(h, (2, 0))[:, :6],
    "F.pad, value": lambda h: F.pad(h, (2, 0), value=1.5)[:, :6],
    "zeros_like": lambda h: h + torch.zeros_like(h),
    "ones_like": lambda h: h + torch.ones_like(h),
    "new_ones": lambda h: h + h.new_ones(h.size(0), 6),
    "dropout at inference": lambda h: F.dropout(h, 0.5, training=False),
    "h * static": lambda h: h,
    "interpolate": lambda h: F.interpolate(h.unsqueeze(1), size=6, mode="linear").squeeze(1),
    "avg_pool1d": lambda h: F.avg_pool1d(h.unsqueeze(1), 3, 1, 1).squeeze(1),
    "adaptive_avg_pool1d": lambda h: F.adaptive_avg_pool1d(h.unsqueeze(1), 3).squeeze(1).repeat(1, 2),
    "conv1d": lambda h: F.conv1d(h.unsqueeze(1), CONSTANT[:3].view(1, 1, 3), padding=1).squeeze(1),
    "batch of windows": lambda h: h.view(-1, 2).flatten().view(-1, 6),
    "contiguous, clone, detach": lambda h: h.contiguous().clone().detach(),
}


def varied(name: str) -> Any:
    def forward(net: Any, x: Tensor) -> Tensor:
        h = torch.relu(net.one(x))
        y = OPERATIONS[name](h)
        if name == "h * static":
            y = h * torch.sigmoid(net.one(x))
        return net.two(torch.relu(net.mid(y)))

    return Written(forward, one=nn.Linear(4, 6), mid=nn.Linear(6, 6), two=nn.Linear(6, 3)).double()


@pytest.mark.parametrize("channel_wise", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_networks_agree_in_both_step_modes(name: str, channel_wise: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "CONSTANT", CONSTANT.double())
    ann, data = varied(name), torch.rand(30, 4, dtype=torch.float64)
    snn = convert(ann, data, channel_wise=channel_wise)
    x = data[:7]
    by_hand = run_by_hand(snn, x, 250)
    assert relative_error(multi_step(snn, x, 250), by_hand) < 1e-12
    assert relative_error(simulate(snn, x, T=250), by_hand.mean(0)) < 1e-12
    assert relative_error(by_hand.mean(0), ann(x).detach()) < 0.08


@pytest.mark.parametrize("add", [lambda h: torch.add(h, other=1.0), lambda h: h.sub(other=0.5)])
def test_numbers_given_by_keyword(add: Any) -> None:
    ann = Written(lambda net, x: net.two(add(torch.relu(net.one(x)))), one=nn.Linear(4, 6), two=nn.Linear(6, 3))
    data = torch.rand(30, 4)
    assert relative_error(simulate(convert(ann, data), data, T=500), ann(data).detach()) < 0.02


@pytest.mark.parametrize("channel_wise", [False, True])
def test_a_parameter_joined_to_spikes(channel_wise: bool) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.two(torch.cat([torch.relu(net.one(x)), net.token.expand(x.size(0), -1)], 1))

    layers = {"one": nn.Linear(4, 6), "two": nn.Linear(8, 3), "token": nn.Parameter(torch.tensor([[2.0, -1.0]]))}
    ann, data = Written(forward, **layers), torch.rand(30, 4)
    snn = convert(ann, data, channel_wise=channel_wise)
    assert relative_error(simulate(snn, data, T=500), ann(data).detach()) < 0.02
    assert relative_error(multi_step(snn, data, 50), run_by_hand(snn, data, 50)) < 1e-5


def test_a_module_that_works_on_parameters_alone() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.two(torch.relu(net.one(x)) + net.embed(net.token).relu())

    layers = {"one": nn.Linear(4, 6), "two": nn.Linear(6, 3), "embed": nn.Linear(2, 6)}
    ann = Written(forward, **layers, token=nn.Parameter(torch.randn(2))).double()
    data = torch.rand(30, 4, dtype=torch.float64)
    snn = convert(ann, data)
    assert relative_error(simulate(snn, data, T=500), ann(data).detach()) < 0.02
    assert relative_error(multi_step(snn, data, 50), run_by_hand(snn, data, 50)) < 1e-12


def test_step_modes_can_be_changed_back_and_forth() -> None:
    ann, data = varied("chunk").float(), torch.rand(30, 4)
    snn = convert(ann, data)
    wanted = run_by_hand(snn, data, 20)
    for _ in range(2):
        assert torch.allclose(multi_step(snn, data, 20), wanted, atol=1e-6)
        assert torch.allclose(run_by_hand(snn, data, 20), wanted, atol=1e-6)


def test_an_input_that_changes_over_time() -> None:
    # A converted network takes any sequence, not only a constant one.
    ann, data = varied("h / 3").double(), torch.rand(30, 4, dtype=torch.float64)
    snn = convert(ann, data)
    x = torch.rand(20, 5, 4, dtype=torch.float64)
    functional.reset_net(snn)
    with torch.no_grad():
        by_hand = torch.stack([snn(one) for one in x])
        functional.reset_net(snn)
        functional.set_step_mode(snn, "m")
        assert relative_error(snn(x), by_hand) < 1e-12


def test_memory_goes_on_between_multi_step_calls() -> None:
    ann, data = varied("h / 3").double(), torch.rand(8, 4, dtype=torch.float64)
    snn = convert(ann, data)
    whole = multi_step(snn, data, 20)
    functional.set_step_mode(snn, "m")
    sequence = data.expand(20, *data.shape)
    with torch.no_grad():
        parts = torch.cat([snn(sequence[:7]), snn(sequence[7:])])
    assert relative_error(parts, whole) < 1e-12
