"""A BatchNorm that is written as sums and products is folded into the layer before it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, simulate

from ..helpers.networks import relative_error

SHAPE = (1, 8, 1, 1)


class Normalized(nn.Module):
    """A layer, arithmetic with its output, a ReLU."""

    def __init__(self, layer: nn.Module, arithmetic: Callable[[nn.Module, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.layer, self.arithmetic = layer, arithmetic
        self.register_buffer("mean", torch.randn(shape))
        self.register_buffer("variance", torch.rand(shape) + 0.5)
        self.scale, self.shift = nn.Parameter(torch.rand(shape) + 0.5), nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.arithmetic(self, self.layer(x)))


def frozen(net: nn.Module, x: Tensor) -> Tensor:
    """As torchvision's FrozenBatchNorm2d."""
    scale = net.scale * (net.variance + 1e-5).rsqrt()
    return x * scale + (net.shift - net.mean * scale)


def step_by_step(net: nn.Module, x: Tensor) -> Tensor:
    return (x - net.mean) / torch.sqrt(net.variance + 1e-5) * net.scale + net.shift


def the_other_way_round(net: nn.Module, x: Tensor) -> Tensor:
    return net.shift.sub(net.scale * x.sub(net.mean)).mul(-1.0).add(0.25)


def with_numbers(net: nn.Module, x: Tensor) -> Tensor:
    return 1.0 - (0.5 * x + 0.125) / 2 - 0.5


FORMS = [frozen, step_by_step, the_other_way_round, with_numbers]

LAYERS = {
    "convolution": (lambda: nn.Conv2d(3, 8, 3), SHAPE, (3, 6, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 8, 3, groups=2, bias=False), SHAPE, (4, 5, 5)),
    "no batch": (lambda: nn.Conv2d(3, 8, 1), (8, 1, 1), (3, 6, 6)),
    "linear": (lambda: nn.Linear(6, 8), (8,), (6,)),
    "sequence": (lambda: nn.Linear(6, 8, bias=False), (8,), (5, 6)),
    "one for all": (lambda: nn.Conv1d(3, 8, 3), (1,), (3, 9)),
}


@pytest.mark.parametrize("arithmetic", FORMS)
@pytest.mark.parametrize("kind", LAYERS)
def test_it_is_folded_into_the_layer(arithmetic: Callable[[nn.Module, Tensor], Tensor], kind: str) -> None:
    make, constants, sample = LAYERS[kind]
    torch.manual_seed(0)
    ann, x = Normalized(make(), arithmetic, *constants).eval(), torch.randn(16, *sample)
    state = {name: value.clone() for name, value in ann.state_dict().items()}
    converter = Converter([x], progress=False)
    snn = converter(ann)
    assert [entry.name for entry in converter.report] == ["layer", "relu"]
    assert relative_error(simulate(snn, x, T=512), ann(x)) < 0.02
    assert all(torch.equal(value, ann.state_dict()[name]) for name, value in state.items())


def test_what_differs_within_a_channel_stays() -> None:
    torch.manual_seed(0)
    ann = Normalized(nn.Conv2d(3, 8, 3), lambda net, x: x * net.scale + net.shift, 1, 8, 4, 4).eval()
    x = torch.randn(16, 3, 6, 6)
    converter = Converter([x], progress=False)
    snn = converter(ann)
    assert [entry.name for entry in converter.report] == ["layer", "mul", "add", "relu"]
    assert relative_error(simulate(snn, x, T=512), ann(x)) < 0.05


def test_a_layer_that_is_read_twice_keeps_its_output() -> None:
    torch.manual_seed(0)
    ann = Normalized(nn.Conv2d(3, 8, 3), lambda net, x: x + (x * net.scale), *SHAPE).eval()
    x = torch.randn(16, 3, 6, 6)
    converter = Converter([x], progress=False)
    snn = converter(ann)
    assert [entry.name for entry in converter.report] == ["layer", "mul", "add", "relu"]
    assert relative_error(simulate(snn, x, T=512), ann(x)) < 0.05


def test_nothing_is_folded_if_batchnorm_is_not() -> None:
    ann = Normalized(nn.Conv2d(3, 8, 3), frozen, *SHAPE).eval()
    converter = Converter([torch.randn(16, 3, 6, 6)], progress=False, fuse_flag=False)
    converter(ann)
    assert [entry.name for entry in converter.report] == ["layer", "mul", "add", "relu"]


def test_later_operations_keep_their_names() -> None:
    ann = Normalized(nn.Conv2d(3, 8, 3), lambda net, x: 2 * (torch.relu(net.scale * x) + 1), *SHAPE).eval()
    converter = Converter([torch.randn(16, 3, 6, 6)], progress=False)
    converter(ann)
    assert [entry.name for entry in converter.report] == ["layer", "relu", "add", "mul#2", "relu#2"]
