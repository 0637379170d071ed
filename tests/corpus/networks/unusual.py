"""Networks inside wrappers, with unusual weights, and with layers in unusual places."""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.optim.swa_utils import AveragedModel

from ..forms import form, images, vectors


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip


@form(images())
def data_parallel() -> nn.Module:
    return nn.DataParallel(cnn())


@form(images())
def averaged_backbone() -> nn.Module:
    net = cnn()
    return nn.Sequential(AveragedModel(net[:6]), *net[6:])


@form(images())
def compiled_part() -> nn.Module:
    net = cnn()
    return nn.Sequential(torch.compile(net[:3]), *net[3:])  # type: ignore[arg-type]


@form(images())
def pruned() -> nn.Module:
    net = cnn()
    for layer in (net[0], net[4], net[7]):
        prune.l1_unstructured(layer, "weight", amount=0.4)
    prune.ln_structured(net[4], "weight", amount=0.25, n=2, dim=0)
    return net


@form(images())
def parametrized() -> nn.Module:
    class Symmetric(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + x.flip(-1)) / 2

    net = cnn()
    parametrize.register_parametrization(net[0], "weight", Symmetric())
    nn.utils.parametrizations.spectral_norm(net[4])
    nn.utils.parametrizations.weight_norm(net[7])
    return net


@form(images())
def half_precision() -> nn.Module:
    return cnn().half()


@form(lambda: torch.randn(4, 3, 8, 8, dtype=torch.float64))
def double_precision() -> nn.Module:
    return cnn().double()


@form(images())
def lazy_layers() -> nn.Module:
    net = nn.Sequential(nn.LazyConv2d(6, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    net(torch.randn(2, 3, 8, 8))
    return net


@form(vectors(6))
class TiedWeights(nn.Module):
    """The decoder is the encoder transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.bias = nn.Linear(6, 10), nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(self.encoder(x)), self.encoder.weight.t(), self.bias)


@form(vectors(6))
class OneLayerManyTimes(nn.Module):
    """A block with shared weights, applied again and again, with one ReLU for all."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.block, self.out, self.act = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.inp(x))
        for _ in range(3):
            x = self.act(self.block(x)) + x
        return self.out(x)  # type: ignore[no-any-return]


@form(vectors(6))
class LayersInLists(nn.Module):
    """Layers in a plain list and a dict, as their author forgot ModuleList (the optimizer never saw them)."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Linear(6, 8), nn.Linear(8, 8)]
        self.acts = {"relu": nn.ReLU(), "leaky": nn.LeakyReLU(0.1)}
        self.out = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer, act in zip(self.hidden, ("relu", "leaky"), strict=True):
            x = self.acts[act](layer(x))
        return self.out(x)  # type: ignore[no-any-return]


@form(vectors(6))
class FunctionsAsOptions(nn.Module):
    """Activations given as functions, partials and modules made in the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)])
        self.activations: list[Any] = [F.relu, partial(F.leaky_relu, negative_slope=0.2), torch.nn.functional.relu6]

    def forward(self, x: Tensor) -> Tensor:
        steps = zip(self.layers, self.activations, strict=False)
        x = reduce(lambda h, step: step[1](step[0](h)), steps, x)
        return nn.Identity()(self.layers[-1](x))  # type: ignore[no-any-return]


@form(vectors(6))
class Split(nn.Module):
    """Runs the parts of a Sequential one by one, and keeps intermediate results for later."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        self.features: Any = None

    def forward(self, x: Tensor) -> Tensor:
        self.features = self.net[:4](x)
        return self.net[4:](self.features) + self.net[-1](self.net[:2](x))  # type: ignore[no-any-return]


@form(vectors(6), refused=r"BatchNorm1d.*not one of the network's modules.*eval\(\) does not reach it")
class ForgottenBatchNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms, self.inp, self.out = [nn.BatchNorm1d(8)], nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.norms[0](self.inp(x))))  # type: ignore[no-any-return]


@form(vectors(6))
class PowerOfTwoWeights(nn.Module):
    """A quantized network: a straight-through rounding of the weights in an autograd function."""

    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, w: Tensor) -> Tensor:
            return torch.round(w * 8) / 8

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(F.linear(x, self.Round.apply(self.fc1.weight), self.fc1.bias))
        return F.linear(h, self.Round.apply(self.fc2.weight), self.fc2.bias)


@form(vectors(6))
def decides_by_dtype() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 8)
            self.scale = nn.Parameter(torch.rand(8))

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.fc(x if x.dtype.is_floating_point else x.float()))
            whole = not torch.result_type(y, self.scale).is_floating_point or x.dtype == torch.int64
            return torch.floor(y / self.scale) if whole else y / (self.scale + 1)

    return Net()
