"""Forwards as people write them in Python: shapes that decide, lists and tuples, layers made on the way, signatures.

Every network converts and computes what it should, by hand, in `simulate`, in step mode "m" and out of a file.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sj_ann2snn import ConversionError, Converter, InputError, export, load_network, simulate

from ..helpers.convergence import assert_converges, relative_error


class Written(nn.Module):
    """A forward given as a function of the module and its inputs, with an MLP and a CNN to call."""

    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        self.body = body
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)
        self.conv, self.back = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1)
        self.scale = nn.Parameter(torch.rand(2, 8) + 0.5)
        self.register_buffer("places", torch.rand(1, 10, 8))
        self.held = [nn.ReLU(), nn.Linear(8, 8)]
        self.named = {"activation": nn.ReLU()}
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        self.options = {8: 2.0}

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


GLOBAL = nn.ReLU()

SPIKE = 0.05
"""What one spike more or less in 32 steps may do: the largest activation drives its neuron with just the threshold."""


def mlp(net: Any, x: Tensor) -> Any:
    return net.second(torch.relu(net.first(x)))


def asserts(net: Any, x: Tensor) -> Any:
    assert x.dim() == 2, "vectors"
    assert x.shape[1] == 4
    assert isinstance(x, Tensor)
    return mlp(net, x)


def branches(net: Any, x: Tensor) -> Any:
    h = torch.relu(net.first(x))
    if h.size(-1) > 4 and h.ndim == 2 and h.dtype == torch.float32:
        h = h * 2
    return net.second(h if torch.is_tensor(h) else x)


def loops(net: Any, x: Tensor) -> Any:
    h = torch.relu(net.first(x))
    return net.second(sum(h for _ in range(x.size(1))) / int(x.shape[1] * 0.5))


def pieces(net: Any, x: Tensor) -> Any:
    h = torch.relu(net.first(x))
    return net.second(torch.cat(list(h.chunk(2, 1))[::-1], 1) + torch.cat([*h.split(4, 1)], 1))


def star(net: Any, x: Tensor) -> Any:
    h = torch.relu(net.first(x))
    n, *rest = h.shape
    return net.second(h.view(n, *rest).reshape(*h.shape[:1], math.prod(h.shape[1:])))


def numpy_sizes(net: Any, x: Tensor) -> Any:
    h = torch.relu(net.first(x))
    return net.second(h.view(-1, int(np.prod(h.shape[1:]))) * float(np.sqrt(h.shape[-1])))


def factories(net: Any, x: Tensor) -> Any:
    h = torch.relu(net.first(x)) + torch.zeros(x.size(0), 8) + torch.ones(h_size(x), 8, dtype=x.dtype)
    return net.second(h + torch.arange(h.size(1)) / 8)


def h_size(x: Tensor) -> int:
    return x.shape[0]


def buffer_slices(net: Any, x: Tensor) -> Any:
    return net.second(torch.relu(net.first(x) + net.places[:, : x.size(1)].mean(1)))


def parameter_tuples(net: Any, x: Tensor) -> Any:
    gain, shift = net.scale.chunk(2)
    low, high = net.scale.unbind(0)
    spread = torch.std_mean(net.scale, 0)[1]
    top = net.scale.max(0)[0]
    return net.second(torch.relu(net.first(x)) * gain + shift.squeeze(0) + low * high + spread + top)


def made(net: Any, x: Tensor) -> Any:
    return net.second(nn.Dropout(0.5).eval()(nn.ReLU()(net.first(x))))


def held_in_a_list(net: Any, x: Tensor) -> Any:
    h = net.first(x)
    for layer in net.held:
        h = layer(h)
    return net.second(torch.relu(h))


def held_elsewhere(net: Any, x: Tensor) -> Any:
    return net.second(GLOBAL(net.named["activation"](net.first(x)) - 0.1))


def sliced_sequential(net: Any, x: Tensor) -> Any:
    return net.net[2](net.net[:2](x)) + net.net[1:](net.first(x))


def casts(net: Any, x: Tensor) -> Any:
    h = torch.relu(net.first(x.float())).to(x.dtype).type_as(x).cpu().contiguous().to(x.device)
    return net.second(h).float().to(torch.float32)


def double_precision(net: Any, x: Tensor) -> Any:
    return net.second((torch.relu(net.first(x)).double() * 2).float())


def without_effect(net: Any, x: Tensor) -> Any:
    x = x.requires_grad_()
    if x.requires_grad and x.grad is not None:
        return x
    return mlp(net, x.data.detach())


def asks_types(net: Any, x: Any) -> Any:
    if isinstance(x, (list, tuple)):
        x = x[0]
    return mlp(net, x * 2 if isinstance(x, torch.Tensor) else x)


def numpy_names(net: Any, x: Tensor) -> Any:
    h = torch.relu(net.first(x)).view(-1, 2, 4)
    return net.second(torch.cat([h.sum(axis=1), torch.mean(h, axis=1, keepdims=True).flatten(1)], axis=1))


def maximum_with_indices(net: Any, x: Tensor) -> Any:
    x = x - x.max(1, keepdim=True).values + torch.min(x, dim=1, keepdim=True)[0]
    most, _ = torch.max(x, 1, True)
    return mlp(net, x - most)


def sizes_by_class(net: Any, x: Tensor) -> Any:
    assert isinstance(x.shape, torch.Size)
    assert torch.Size([2, 3]).numel() == 6
    zeros = x.new_zeros(torch.Size((x.size(0), *x.shape[1:])))
    return mlp(net, x + torch.zeros(torch.Size([x.shape[0], 1])) + zeros)


def looks_up(net: Any, x: Tensor) -> Any:
    h = torch.relu(net.first(x))
    return net.second(h * net.options.get(int(h.shape[1]), 1.0))


def magnitude(net: Any, x: Tensor) -> Any:
    spectrum = torch.fft.rfft(x, n=6)
    return mlp(net, torch.log1p(spectrum.abs()).clamp(max=3) + F.relu(x))


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient


def autograd_function(net: Any, x: Tensor) -> Any:
    return net.second(Straight.apply(net.first(x)))


def stepped(net: Any, x: Tensor) -> Any:
    h = net.second(torch.relu(net.first(x)))
    return {"logits": h, "sizes": [*h.shape[1:]]}["logits"]


VECTORS = {
    body.__name__: body
    for body in (
        asserts, branches, loops, pieces, star, numpy_sizes, factories, buffer_slices, parameter_tuples, made,
        held_in_a_list, held_elsewhere, sliced_sequential, casts, double_precision, without_effect, asks_types, numpy_names,
        maximum_with_indices, sizes_by_class, looks_up, magnitude, autograd_function, stepped,
    )
}  # fmt: skip


def keyword_input(net: Any, x: Tensor) -> Any:
    return net.back(input=torch.relu(net.conv(input=x)))


def output_size(net: Any, x: Tensor) -> Any:
    return net.up(torch.relu(net.down(x)), output_size=x.shape[2:])


def resized(net: Any, x: Tensor) -> Any:
    h = torch.relu(net.down(x))
    return net.back(F.interpolate(h, size=(x.shape[-2], x.shape[-1])))


def grid(net: Any, x: Tensor) -> Any:
    h = torch.relu(net.conv(x))
    height, width = h.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return net.back(h + rows * 0.01 + columns * 0.01)


def padded(net: Any, x: Tensor) -> Any:
    missing = (4 - x.shape[-1] % 4) % 4
    if missing:
        x = F.pad(x, (0, missing))
    return net.back(torch.relu(net.conv(x)))


def functional_layers(net: Any, x: Tensor) -> Any:
    weight = net.conv.weight * 2 / net.conv.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    h = torch.relu(F.conv2d(x, weight, net.conv.bias, padding=1))
    h = F.batch_norm(h, net.mean, net.variance, training=net.training)
    return F.linear(h.mean(axis=(2, 3)), net.matrix.t()) + h.mean((2, 3)) @ net.matrix


class Images(Written):
    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__(body)
        self.down, self.up = nn.Conv2d(3, 4, 3, 2, 1), nn.ConvTranspose2d(4, 2, 3, 2, 1)
        self.matrix = nn.Parameter(torch.rand(4, 5))
        self.register_buffer("mean", torch.rand(4))
        self.register_buffer("variance", torch.rand(4) + 0.5)


IMAGES = {body.__name__: body for body in (keyword_input, output_size, resized, grid, padded, functional_layers)}


def network(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    if name in VECTORS:
        return Written(VECTORS[name]).eval(), torch.randn(12, 4)
    return Images(IMAGES[name]).eval(), torch.randn(6, 3, 7, 7)


def by_hand(snn: nn.Module, x: Tensor, steps: int) -> Any:
    functional.reset_net(snn)
    total = 0
    with torch.no_grad():
        for _ in range(steps):
            total = total + snn(x.clone())
    functional.reset_net(snn)
    return total / steps  # type: ignore[operator]


def in_multi_step_mode(snn: nn.Module, x: Tensor, steps: int) -> Any:
    functional.set_step_mode(snn, "m")
    with torch.no_grad():
        outputs = snn(x.expand(steps, *x.shape).contiguous())
    functional.set_step_mode(snn, "s")
    functional.reset_net(snn)
    return outputs.mean(0)


@pytest.mark.parametrize("name", [*VECTORS, *IMAGES])
def test_what_python_decides_is_followed(name: str, tmp_path: Path) -> None:
    ann, x = network(name)
    before = copy.deepcopy(ann.state_dict())
    snn = Converter([x], progress=False)(ann)
    wanted = ann(x.clone()).detach()
    assert_converges(snn, (x,), wanted)
    assert all(torch.equal(value, ann.state_dict()[key]) for key, value in before.items())
    answer = simulate(snn, x, T=32)
    assert relative_error(by_hand(snn, x, 32), answer) < SPIKE
    assert relative_error(in_multi_step_mode(snn, x, 32), answer) < SPIKE
    # Any number of samples, including one.
    for count in (1, 3):
        assert relative_error(simulate(snn, x[:count], T=32), answer[:count]) < SPIKE
    export(snn, tmp_path / "network.zip")
    assert torch.equal(simulate(load_network(tmp_path / "network.zip"), x, T=32), answer)


def test_another_size_than_the_one_that_decided_is_refused() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        h = torch.relu(net.conv(x))
        if x.shape[-1] > 6:
            h = h * 2
        return net.back(h)

    ann = Images(forward).eval()
    snn = Converter([torch.randn(6, 3, 7, 7)], progress=False)(ann)
    line = forward.__code__.co_firstlineno + 2
    simulate(snn, torch.randn(2, 3, 9, 8), T=4)
    with pytest.raises(InputError, match=rf"test_python_in_forward\.py:{line}.*gave there: True.*gives False"):
        simulate(snn, torch.randn(2, 3, 5, 5), T=4)


@pytest.mark.parametrize(
    ("forward", "why"),
    [
        (lambda net, x: mlp(net, x) if x.max() > 1 else x, "the value of a tensor decides"),
        (lambda net, x: mlp(net, x) * float(x.sum()), "the value of a tensor decides"),
        (lambda net, x: mlp(net, x * np.asarray(x).max()), "NumPy needs the values of a tensor"),
        (lambda net, x: sum(mlp(net, row[None]) for row in x), r"number of samples decides \(2 for two samples, 3"),
        (lambda net, x: mlp(net, x) / len(x), "number of samples decides"),
        (lambda net, x: mlp(net, x) if x.shape[0] == 2 else x, "number of samples decides"),
        (lambda net, x: net.missing(x), "has no attribute 'missing'"),
        (lambda net, x: mlp(net, nn.Dropout(0.5)(x)), "Dropout .* behaves as in training"),
        (lambda net, x: scripted(net.first(x)), "TorchScript"),
    ],
)
def test_what_python_cannot_decide_is_refused_with_the_reason(forward: Any, why: str) -> None:
    with pytest.raises(ConversionError, match=why):
        Converter([torch.randn(6, 4)], progress=False, verify=False)(Written(forward).eval())


def _scripted(x: Tensor) -> Tensor:
    return torch.relu(x)


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.*is deprecated")
    scripted = torch.jit.script(_scripted)
