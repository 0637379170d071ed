"""Each layer of converted networks: step mode "m" computes on [T, N, ...] what step mode "s" computes on [N, ...]."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import base, functional
from torch import Tensor, nn

from sj_ann2snn import ChannelAffine, IntegerInput, Scaler, SumPool
from sj_ann2snn.layers import NormalizedReLU, to_step_module


def by_steps(module: nn.Module, *sequences: Tensor) -> Any:
    """The module in step mode "s", one step at a time."""
    functional.set_step_mode(module, "s")
    return [module(*(x[t] for x in sequences)) for t in range(len(sequences[0]))]


def all_at_once(module: nn.Module, *sequences: Tensor) -> Any:
    functional.set_step_mode(module, "m")
    return module(*sequences)


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Scaler": (lambda: Scaler(torch.tensor(2.5)), (3, 4)),
    "Scaler per channel": (lambda: Scaler(torch.rand(3, 1, 1)), (3, 4, 4)),
    "ChannelAffine": (lambda: ChannelAffine(torch.rand(3), torch.rand(3), ndim=2), (3,)),
    "ChannelAffine 1d": (lambda: ChannelAffine(torch.rand(3), torch.rand(3), ndim=3), (3, 5)),
    "ChannelAffine 2d": (lambda: ChannelAffine(torch.rand(3), torch.rand(3), ndim=4), (3, 5, 5)),
    "NormalizedReLU": (NormalizedReLU, (3, 4)),
    "NormalizedReLU, bounded": (lambda: NormalizedReLU(torch.rand(3, 1)), (3, 4)),
    "NormalizedReLU, leaky": (lambda: NormalizedReLU(negative_slope=torch.rand(3, 1)), (3, 4)),
    "IntegerInput": (lambda: IntegerInput(scale=0.1, low=-5, high=5, shape=(3, 4)), (3, 4)),
    "SumPool 1d": (lambda: SumPool(1, 3, 2, 1), (3, 7)),
    "SumPool 2d": (lambda: SumPool(2, (2, 3)), (3, 6, 6)),
    "SumPool 3d": (lambda: SumPool(3, 2), (3, 4, 4, 4)),
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
