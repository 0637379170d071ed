"""Step mode "m" computes on [T, N, ...] what the loop in step mode "s" computes on [N, ...]."""

from __future__ import annotations

import copy
import operator
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import base, functional
from torch import Tensor, nn

from sj_ann2snn import ChannelAffine, Scaler, Stepwise, simulate
from sj_ann2snn.layers import NormalizedReLU, to_step_module

from .networks import Written, convert, multi_step, relative_error, run_by_hand

Pair = namedtuple("Pair", ["one", "other"])


def by_steps(module: nn.Module, *sequences: Tensor) -> Any:
    """The module in step mode "s", one step at a time."""
    functional.set_step_mode(module, "s")
    return [module(*(x[t] for x in sequences)) for t in range(len(sequences[0]))]


def all_at_once(module: nn.Module, *sequences: Tensor) -> Any:
    functional.set_step_mode(module, "m")
    return module(*sequences)


# Stepwise -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(nn.Softmax(dim=1), id="module"),
        pytest.param(torch.sigmoid, id="function"),
        pytest.param("sigmoid", id="method"),
        pytest.param(nn.Flatten(), id="flatten"),
        pytest.param(nn.Unfold(2), id="unfold"),
    ],
)
def test_stepwise_runs_any_operation(operation: Any) -> None:
    x = torch.rand(5, 4, 3, 6, 6)
    module = Stepwise(operation)
    wanted = torch.stack(by_steps(module, x))
    got = all_at_once(module, x)
    assert got.shape == wanted.shape
    assert torch.allclose(got, wanted, rtol=1e-6)


def test_stepwise_passes_on_other_arguments() -> None:
    x = torch.rand(5, 4, 3, 6)
    module = Stepwise(torch.flatten)
    module.step_mode = "m"
    assert module(x, 1).shape == (5, 4, 18)
    assert module(x, start_dim=1, end_dim=-1).shape == (5, 4, 18)
    module.step_mode = "s"
    assert module(x[0], 1).shape == (4, 18)


def test_stepwise_leaves_parameters_alone() -> None:
    x, bias = torch.rand(5, 4, 3), torch.rand(3)
    module = Stepwise(operator.add, sequences=(0,))
    module.step_mode = "m"
    assert torch.equal(module(x, bias), x + bias)
    module = Stepwise(operator.add, sequences=(1,))
    module.step_mode = "m"
    assert torch.equal(module(bias, x), x + bias)
    weight = torch.rand(4, 3)  # of the size of the batch, but no sequence
    module = Stepwise(F.linear, sequences=(0,))
    module.step_mode = "m"
    assert torch.equal(module(x, weight), F.linear(x.flatten(0, 1), weight).view(5, 4, 4))


def test_stepwise_takes_several_sequences_in_nests() -> None:
    x, y = torch.rand(5, 4, 3), torch.rand(5, 4, 2)
    module = Stepwise(torch.cat, sequences=(0, 1))
    module.step_mode = "m"
    assert torch.equal(module([x, y], 1), torch.cat([x, y], 2))
    assert torch.equal(module((x, y), dim=1), torch.cat([x, y], 2))
    assert torch.equal(module(tensors=[x, y], dim=1), torch.cat([x, y], 2))


def test_stepwise_returns_several_results() -> None:
    x = torch.rand(5, 4, 6)
    module = Stepwise(torch.chunk)
    module.step_mode = "m"
    for one, other in zip(module(x, 3, 1), x.chunk(3, 2), strict=True):
        assert torch.equal(one, other)
    pair = Stepwise(lambda x: Pair(x + 1, [x * 2, {"sum": x.sum(1)}]))
    pair.step_mode = "m"
    got = pair(x)
    assert isinstance(got, Pair)
    assert torch.equal(got.one, x + 1)
    assert torch.equal(got.other[0], x * 2)
    assert torch.allclose(got.other[1]["sum"], x.sum(2))


def test_stepwise_lets_a_batch_become_finer() -> None:
    x = torch.arange(5 * 4 * 6.0).view(5, 4, 6)
    module = Stepwise("view")
    assert torch.equal(all_at_once(Stepwise(lambda x: x.view(-1, 2)), x), torch.stack([one.view(-1, 2) for one in x]))
    module.step_mode = "m"
    assert module(x, -1, 2).shape == (5, 12, 2)


def test_stepwise_passes_on_sizes() -> None:
    x = torch.rand(5, 4, 6)
    module = Stepwise("size")
    module.step_mode = "m"
    assert module(x) == (20, 6)
    assert isinstance(module(x), torch.Size)
    assert module(x, 0) == 20


def test_stepwise_says_what_it_runs() -> None:
    assert "flatten" in repr(Stepwise(torch.flatten))
    assert "view" in repr(Stepwise("view"))
    assert "Softmax" in repr(Stepwise(nn.Softmax(1)))
    assert "step_mode=s" in repr(Stepwise("view"))


# The other modules ----------------------------------------------------------------------------------

MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Scaler": (lambda: Scaler(torch.tensor(2.5)), (3, 4)),
    "Scaler per channel": (lambda: Scaler(torch.rand(3, 1, 1)), (3, 4, 4)),
    "ChannelAffine": (lambda: ChannelAffine(torch.rand(3), torch.rand(3), ndim=2), (3,)),
    "ChannelAffine 1d": (lambda: ChannelAffine(torch.rand(3), torch.rand(3), ndim=3), (3, 5)),
    "ChannelAffine 2d": (lambda: ChannelAffine(torch.rand(3), torch.rand(3), ndim=4), (3, 5, 5)),
    "NormalizedReLU": (NormalizedReLU, (3, 4)),
    "NormalizedReLU, bounded": (lambda: NormalizedReLU(torch.rand(3, 1)), (3, 4)),
    "NormalizedReLU, leaky": (lambda: NormalizedReLU(negative_slope=torch.rand(3, 1)), (3, 4)),
    "Linear": (lambda: to_step_module(nn.Linear(4, 2)), (3, 4)),
    "Conv1d": (lambda: to_step_module(nn.Conv1d(3, 2, 3)), (3, 6)),
    "Conv2d": (lambda: to_step_module(nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular")), (3, 6, 6)),
    "Conv3d": (lambda: to_step_module(nn.Conv3d(3, 2, 2)), (3, 4, 4, 4)),
    "ConvTranspose1d": (lambda: to_step_module(nn.ConvTranspose1d(3, 2, 3)), (3, 6)),
    "ConvTranspose2d": (lambda: to_step_module(nn.ConvTranspose2d(3, 2, 3, stride=2)), (3, 4, 4)),
    "ConvTranspose3d": (lambda: to_step_module(nn.ConvTranspose3d(3, 2, 2)), (3, 3, 3, 3)),
    "AvgPool1d": (lambda: to_step_module(nn.AvgPool1d(2)), (3, 6)),
    "AvgPool2d": (lambda: to_step_module(nn.AvgPool2d(2, divisor_override=3)), (3, 6, 6)),
    "AvgPool3d": (lambda: to_step_module(nn.AvgPool3d(2)), (3, 4, 4, 4)),
    "AdaptiveAvgPool2d": (lambda: to_step_module(nn.AdaptiveAvgPool2d((2, 1))), (3, 6, 6)),
    "MaxPool2d": (lambda: to_step_module(nn.MaxPool2d(3, 2, 1)), (3, 6, 6)),
    "Flatten": (lambda: to_step_module(nn.Flatten()), (3, 6, 6)),
    "Upsample": (lambda: to_step_module(nn.Upsample(scale_factor=2, mode="bilinear")), (3, 4, 4)),
    "PixelShuffle": (lambda: to_step_module(nn.PixelShuffle(2)), (4, 3, 3)),
    "ZeroPad2d": (lambda: to_step_module(nn.ZeroPad2d((1, 0, 2, 1))), (3, 4, 4)),
    "Unfold": (lambda: to_step_module(nn.Unfold(2)), (3, 4, 4)),
    "ReflectionPad1d": (lambda: to_step_module(nn.ReflectionPad1d(2)), (3, 6)),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_agree_in_both_step_modes(name: str) -> None:
    make, shape = MODULES[name]
    module = make()
    assert isinstance(module, base.StepModule)
    x = torch.randn(4, 2, *shape)
    wanted = torch.stack(by_steps(module, x))
    got = all_at_once(module, x)
    assert got.shape == wanted.shape
    assert torch.allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(4, 2),
        nn.Conv2d(3, 2, 3, groups=1, dilation=2),
        nn.ConvTranspose1d(3, 2, 3),
        nn.AvgPool2d(2),
        nn.Flatten(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_step_modules_are_spikingjellys_with_the_same_parameters(layer: nn.Module) -> None:
    made = to_step_module(layer)
    assert type(made).__module__.startswith("spikingjelly.")
    assert isinstance(made, type(layer))
    assert not hasattr(layer, "step_mode")
    assert {name: id(p) for name, p in made.named_parameters()} == {name: id(p) for name, p in layer.named_parameters()}
    made.extra = 1
    made._parameters.clear()
    assert not hasattr(layer, "extra")
    assert len(list(layer.parameters())) == len(copy.deepcopy(layer)._parameters)


def test_the_activations_are_those_of_torch() -> None:
    x = torch.randn(50, 3, 4) * 3
    assert torch.equal(NormalizedReLU()(x), x.relu())
    assert torch.equal(NormalizedReLU(torch.tensor(2.0))(x), F.hardtanh(x, 0.0, 2.0))
    slope = torch.tensor([0.1, -1.0, 0.5])
    assert torch.allclose(NormalizedReLU(negative_slope=slope[:, None])(x), F.prelu(x, slope))


def test_affine_map_and_scaler_compute_what_they_say() -> None:
    x, weight, bias = torch.randn(2, 3, 4, 4), torch.randn(3), torch.randn(3)
    wanted = x * weight[:, None, None] + bias[:, None, None]
    assert torch.allclose(ChannelAffine(weight, bias, ndim=4)(x), wanted, atol=1e-6)
    assert torch.equal(Scaler(weight[:, None, None])(x), x * weight[:, None, None])
    assert "2.5" in repr(Scaler(torch.tensor(2.5)))
    assert "shape=(3, 1, 1)" in repr(Scaler(weight[:, None, None]))
    assert repr(ChannelAffine(weight, bias, 4)).startswith("ChannelAffine(3")


# Whole networks: everything that stays linear over time ---------------------------------------------

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
