"""One scale per channel, wherever the layers have their channels."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sj_ann2snn import Converter, export, load_network, simulate

from ..helpers.networks import relative_error

Axes = dict[str, int | None]
"""The channel axis of every spiking layer; None for a layer with one scale."""


# LayerNorm in front of the first ReLU stays as it is in the ANN.
pytestmark = pytest.mark.filterwarnings("ignore::sj_ann2snn.NotConvertedWarning")


class Named(nn.Module):
    """A network whose activations have names: each call of `relu` uses a module of its own."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.one, self.two, self.three = nn.ReLU(), nn.ReLU(), nn.ReLU()


class LinearOverTime(Named):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.two(self.b(self.one(self.a(x)))))


class LinearWithResidual(Named):
    def forward(self, x: Tensor) -> Tensor:
        y = self.one(self.a(x))
        return self.out(self.two(y + self.b(y))).mean(1)


class Swin(Named):
    """Windows of [N, H, W, C] behind a convolution, with a residual around an MLP."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.conv(x)).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        y = x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, -1, 4, c)
        y = self.two(self.a(y))
        y = y.view(n, h // 2, w // 2, 2, 2, -1).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, -1)
        return self.out(self.three(x + self.b(y)).permute(0, 3, 1, 2)).flatten(2).mean(2)


class Mixer(Named):
    """A block that mixes tokens, then channels."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        x = x + self.t2(self.one(self.t1(x.transpose(1, 2)))).transpose(1, 2)
        x = x + self.c2(self.two(self.c1(x)))
        return self.out(x.mean(1))


class ConvAndLinear(Named):
    """Pointwise linear layers between convolutions over time, as in a Conformer."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.conv(x.transpose(1, 2)))
        x = self.two(self.a(x.transpose(1, 2)))
        x = F.avg_pool1d(self.three(x.transpose(1, 2) * 0.5), 3, 1, 1)
        return self.out(x.transpose(1, 2))


class Heads(Named):
    """The channels are split into heads and joined again; the neurons in between have one scale."""

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        x = self.a(x).view(n, t, 3, 4).transpose(1, 2)
        x = self.one(x)
        x = x.transpose(1, 2).reshape(n, t, 12)
        return self.out(self.two(x))


class Shuffled(Named):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.two(F.pixel_shuffle(self.one(self.conv(x)), 2)))


class ShuffledByHand(Named):
    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.conv(x))
        n, _, h, w = x.shape
        x = x.view(n, 2, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, 2, 2 * h, 2 * w)
        return self.out(self.two(x))


class Joined(Named):
    """Concatenation along the channels, then along time."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.one(self.a(x)), self.two(self.b(x))
        y = torch.cat([a, b], 2)
        return self.out(self.three(torch.cat([y, y[:, :3] * 2], 1)))


class JoinedOverTime(Named):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([self.one(self.a(x)), self.two(self.b(x))], 1))


class ClassToken(Named):
    def __init__(self, **layers: nn.Module) -> None:
        super().__init__(**layers)
        self.token = nn.Parameter(torch.rand(1, 1, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.a(x)], 1)
        return self.out(self.one(x)[:, 0])


class ConvNeXt(Named):
    """A block that works on [N, H, W, C] between its convolutions."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__(**layers)
        self.gamma = nn.Parameter(torch.rand(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.b(self.one(self.a(self.norm(y)))).permute(0, 3, 1, 2)
        return self.out(self.two(x + self.gamma * y))


class Functional(Named):
    def __init__(self, **layers: nn.Module) -> None:
        super().__init__(**layers)
        self.w, self.v = nn.Parameter(torch.randn(12, 6)), nn.Parameter(torch.randn(12, 12))
        self.k = nn.Parameter(torch.randn(7, 12, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(F.linear(x, self.w))
        x = self.two(x @ self.v + 0.1)
        return self.out(self.three(F.conv1d(x.transpose(1, 2), self.k)).transpose(1, 2))


class Equations(Named):
    def __init__(self, **layers: nn.Module) -> None:
        super().__init__(**layers)
        self.w, self.scale = nn.Parameter(torch.randn(6, 12)), nn.Parameter(torch.rand(12))

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(torch.einsum("ntc,cd->ntd", x, self.w))
        return self.out(self.two(torch.einsum("ntd,d->ntd", x, self.scale)))


class Pieces(Named):
    """Chunks, slices, stacks and squeezes."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x).chunk(2, -1)
        x = self.one(a - b)
        y = torch.stack([x, 2 * x], 1).unbind(1)[1]
        y = self.two(y.unsqueeze(1).squeeze(1)[:, 1:-1, 2:])
        return self.out(self.three(y.movedim(2, 1).swapaxes(1, 2).roll(1, 2)))


class Gone(Named):
    """The only channel is squeezed away, or averaged over: what remains is time."""

    def forward(self, x: Tensor) -> Tensor:
        single = self.one(self.a(x).squeeze(2))
        averaged = self.two(self.b(x).mean(2))
        return (single + averaged).mean(1, keepdim=True)


class Prelu(Named):
    """torch takes PReLU's slopes along dimension 1, wherever the channels are."""

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.slopes(self.a(x).transpose(1, 2)).transpose(1, 2))


class Normalized(Named):
    """BatchNorm that no layer absorbs works along dimension 1."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.norm(self.a(x).transpose(1, 2)).transpose(1, 2))
        return self.out(self.two(self.other(x.transpose(1, 2))).transpose(1, 2))


class Attention(Named):
    """Attention that does not vary over time averages spikes over positions, head by head."""

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q = self.a(x).view(n, t, 2, 4).transpose(1, 2)
        v = self.one(self.b(x)).view(n, t, 2, 4).transpose(1, 2)
        y = (q @ q.transpose(-1, -2)).softmax(-1) @ v
        return self.out(self.two(y.transpose(1, 2).reshape(n, t, 8)))


class Merged(Named):
    """Neighbouring patches are joined along the channels."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.a(x))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.out(self.two(self.b(x)))


class Bounded(Named):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.two(self.b(F.relu6(3 * self.a(x)))))


def prelu(channels: int) -> nn.Module:
    layer = nn.PReLU(channels)
    with torch.no_grad():
        layer.weight.uniform_(0.1, 0.5)
    return layer


def sequence(*shape: int) -> Tensor:
    return torch.randn(16, *shape, generator=torch.Generator().manual_seed(3))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor, Axes, list[tuple[int, ...]]]] = {
    "linear": (
        lambda: LinearOverTime(a=nn.Linear(6, 12), b=nn.Linear(12, 9), out=nn.Linear(9, 4)),
        sequence(10, 6),
        {"one": 2, "two": 2},
        [(7, 6), (15, 6), (1, 6)],
    ),
    "linear on images": (
        lambda: LinearOverTime(a=nn.Linear(6, 12), b=nn.Linear(12, 9), out=nn.Linear(9, 4)),
        sequence(5, 4, 6),
        {"one": 3, "two": 3},
        [(3, 8, 6)],
    ),
    "residual": (
        lambda: LinearWithResidual(a=nn.Linear(6, 8), b=nn.Linear(8, 8), out=nn.Linear(8, 4)),
        sequence(9, 6),
        {"one": 2, "two": 2},
        [(4, 6)],
    ),
    "swin": (
        lambda: Swin(conv=nn.Conv2d(3, 8, 1), a=nn.Linear(8, 16), b=nn.Linear(16, 8), out=nn.Conv2d(8, 4, 3)),
        sequence(3, 8, 6),
        {"one": 1, "two": 3, "three": 3},
        [(3, 4, 8)],
    ),
    "mixer": (
        lambda: Mixer(
            norm=nn.LayerNorm(6),
            t1=nn.Linear(10, 20),
            t2=nn.Linear(20, 10),
            c1=nn.Linear(6, 12),
            c2=nn.Linear(12, 6),
            out=nn.Linear(6, 4),
        ),
        sequence(10, 6),
        {"one": 2, "two": 2},
        [],
    ),
    "conv and linear": (
        lambda: ConvAndLinear(conv=nn.Conv1d(6, 8, 3, padding=1), a=nn.Linear(8, 10), out=nn.Linear(10, 4)),
        sequence(12, 6),
        {"one": 1, "two": 2, "three": 1},
        [(5, 6), (20, 6)],
    ),
    "heads": (
        lambda: Heads(a=nn.Linear(6, 12), out=nn.Linear(12, 4)),
        sequence(10, 6),
        {"one": None, "two": 2},
        [(7, 6)],
    ),
    "pixel shuffle": (
        lambda: Shuffled(conv=nn.Conv2d(3, 8, 3), out=nn.Conv2d(2, 4, 3)),
        sequence(3, 8, 6),
        {"one": 1, "two": 1},
        [(3, 5, 9)],
    ),
    "pixel shuffle by hand": (
        lambda: ShuffledByHand(conv=nn.Conv2d(3, 8, 3), out=nn.Conv2d(2, 4, 3)),
        sequence(3, 8, 6),
        {"one": 1, "two": 1},
        [(3, 5, 9)],
    ),
    "joined": (
        lambda: Joined(a=nn.Linear(6, 5), b=nn.Linear(6, 4), out=nn.Linear(9, 4)),
        sequence(10, 6),
        {"one": 2, "two": 2, "three": 2},
        [(7, 6)],
    ),
    "joined over time": (
        lambda: JoinedOverTime(a=nn.Linear(6, 5), b=nn.Linear(6, 5), out=nn.Linear(5, 4)),
        sequence(10, 6),
        {"one": 2, "two": 2},
        [(7, 6)],
    ),
    "class token": (
        lambda: ClassToken(a=nn.Linear(6, 6), out=nn.Linear(6, 4)),
        sequence(10, 6),
        {"one": 2},
        [(7, 6)],
    ),
    "convnext": (
        lambda: ConvNeXt(
            stem=nn.Conv2d(3, 6, 2, 2),
            depthwise=nn.Conv2d(6, 6, 3, padding=1, groups=6),
            norm=nn.LayerNorm(6),
            a=nn.Linear(6, 12),
            b=nn.Linear(12, 6),
            out=nn.Conv2d(6, 4, 1),
        ),
        sequence(3, 8, 6),
        {"one": 3, "two": 1},
        [(3, 4, 10)],
    ),
    "functional": (
        lambda: Functional(out=nn.Linear(7, 4)),
        sequence(10, 6),
        {"one": 2, "two": 2, "three": 1},
        [(7, 6)],
    ),
    "equations": (
        lambda: Equations(out=nn.Linear(12, 4)),
        sequence(10, 6),
        {"one": 2, "two": 2},
        [(7, 6)],
    ),
    "pieces": (
        lambda: Pieces(a=nn.Linear(6, 12), out=nn.Linear(4, 4)),
        sequence(10, 6),
        {"one": 2, "two": 2, "three": 2},
        [(7, 6)],
    ),
    "gone": (
        lambda: Gone(a=nn.Linear(6, 1), b=nn.Linear(6, 5)),
        sequence(10, 6),
        {"one": None, "two": None},
        [(7, 6)],
    ),
    "prelu": (
        lambda: Prelu(a=nn.Linear(6, 5), slopes=prelu(5), out=nn.Linear(5, 4)),
        sequence(10, 6),
        {"slopes": 1},
        [(7, 6)],
    ),
    "normalized": (
        lambda: Normalized(a=nn.Linear(6, 8), norm=nn.BatchNorm1d(8), other=nn.BatchNorm1d(8), out=nn.Linear(8, 4)),
        sequence(10, 6),
        {"one": 2, "two": 1},
        [(7, 6)],
    ),
    "attention": (
        lambda: Attention(a=nn.Linear(6, 8), b=nn.Linear(6, 8), out=nn.Linear(8, 4)),
        sequence(10, 6),
        {"one": 2, "two": 2},
        [(7, 6)],
    ),
    "merged": (
        lambda: Merged(a=nn.Linear(6, 5), b=nn.Linear(20, 9), out=nn.Linear(9, 4)),
        sequence(4, 6, 6),
        {"one": 3, "two": 3},
        [(8, 2, 6)],
    ),
    "bounded": (
        lambda: Bounded(a=nn.Linear(6, 9), b=nn.Linear(9, 8), out=nn.Linear(8, 4)),
        sequence(10, 6),
        {"relu6": 2, "two": 2},
        [(7, 6)],
    ),
}

each = pytest.mark.parametrize("name", NETWORKS)


def made(name: str) -> tuple[nn.Module, Tensor, Axes, list[tuple[int, ...]]]:
    make, x, axes, others = NETWORKS[name]
    torch.manual_seed(5)
    return make().eval(), x, axes, others


def converted(ann: nn.Module, x: Tensor, mode: Any = "max", **options: Any) -> tuple[nn.Module, Converter]:
    converter = Converter([x[:9], x[9:]], mode=mode, channel_wise=True, progress=False, **options)
    return converter(ann), converter


def activations(ann: nn.Module, x: Tensor, names: Axes) -> dict[str, Tensor]:
    """What the activations called `names` return; magnitudes of currents for a PReLU."""
    seen: dict[str, Tensor] = {}

    def remember(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            seen[name] = args[0].abs() if isinstance(module, nn.PReLU) else output

        return hook

    handles = [ann.get_submodule(name).register_forward_hook(remember(name)) for name in names if hasattr(ann, name)]
    with torch.no_grad():
        ann(x)
    for handle in handles:
        handle.remove()
    return seen


def by_hand(activation: Tensor, axis: int | None) -> Tensor:
    if axis is None:
        return activation.amax()
    largest = activation.amax([dim for dim in range(activation.dim()) if dim != axis])
    return torch.where(largest > 0, largest, largest.amax())  # a channel that never fires has the layer's scale


def lambdas(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Filled with λ of every site by the conversions that follow."""
    import sj_ann2snn.conversion.converter as module

    seen: dict[str, Tensor] = {}
    original = module.scale_values

    def spied(draft: Any, unit: Any) -> Any:
        seen.update({draft.plan.decisions[node].site.name: scale for node, scale in draft.lambdas.items()})
        return original(draft, unit)

    monkeypatch.setattr(module, "scale_values", spied)
    return seen


@each
def test_scales_are_those_of_the_channels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, x, axes, _ = made(name)
    found = lambdas(monkeypatch)
    _, converter = converted(ann, x)
    assert set(converter.report.scales) == set(axes)
    for site, activation in activations(ann, x, axes).items():
        torch.testing.assert_close(found[site], by_hand(activation, axes[site]))


@each
@pytest.mark.parametrize("mode", ["max", "99.9%"])
def test_the_mean_output_is_the_anns(name: str, mode: str) -> None:
    ann, x, _, others = made(name)
    snn, _ = converted(ann, x, mode)
    for inputs in (x[:4], *(sequence(*shape)[:4] for shape in others)):
        with torch.no_grad():
            wanted = ann(inputs)
        rough, fine = (relative_error(simulate(snn, inputs, T=steps), wanted) for steps in (64, 1024))
        # λ of other inputs may be exceeded a little
        assert fine < max(0.02 if inputs is x[:4] else 0.08, rough / 3)


@each
def test_every_way_to_run_it_agrees(name: str, tmp_path: Path) -> None:
    ann, x, _, others = made(name)
    snn, _ = converted(ann, x)
    inputs = (sequence(*others[0]) if others else x)[:3]
    fast = simulate(snn, inputs, T=12)
    functional.reset_net(snn)
    with torch.no_grad():
        by_steps = sum(snn(inputs) for _ in range(12)) / 12
        functional.reset_net(snn)
        functional.set_step_mode(snn, "m")
        at_once = snn(inputs.expand(12, *inputs.shape).contiguous()).mean(0)
    for other in (by_steps, at_once):
        # The largest activation drives its neuron with just the threshold, so that one bit decides about one spike.
        apart = (other - fast).abs() > 1e-5 + 1e-5 * fast.abs()
        assert apart.double().mean() < 0.05
        assert (other - fast).norm() < 0.05 * fast.norm()
    functional.reset_net(snn)
    functional.set_step_mode(snn, "s")
    export(snn, tmp_path / "network.zip")
    torch.testing.assert_close(simulate(load_network(tmp_path / "network.zip"), inputs, T=12), fast)


@each
def test_no_tensor_has_the_size_of_the_sequence(name: str) -> None:
    ann, x, _, others = made(name)
    snn, _ = converted(copy.deepcopy(ann), x)
    for shape in others:
        assert simulate(snn, sequence(*shape)[:2], T=2).shape == ann(sequence(*shape)[:2]).shape


def test_the_report_names_layers_whose_channels_are_not_known() -> None:
    ann, x, _, _ = made("heads")
    _, converter = converted(ann, x)
    assert str(converter.report).splitlines()[-1] == "one λ for all channels, whose dimension is not known: one"
    assert [entry.name for entry in converter.report if entry.channels_unknown] == ["one"]
    Converter([x], progress=False)(ann)
    assert "channels" not in str(Converter([x], progress=False).normalize(ann))
