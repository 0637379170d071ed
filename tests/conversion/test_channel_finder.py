"""Where the channels are behind operations of plugins, and what plugins are shown of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based.base import MemoryModule
from torch import Tensor, nn

from sj_ann2snn import (
    Analog,
    ChannelAffine,
    Converter,
    Correction,
    InPlaceNeuron,
    LayerMapper,
    Linear,
    NeuronMaker,
    NeuronSite,
    Normalization,
    Observer,
    PluginError,
    Rearrange,
    Replacement,
    Trial,
    Weighted,
    hookimpl,
    simulate,
)

from ..helpers.networks import relative_error

N, STEPS, FEATURES = 12, 5, 5
"""As many steps as features: shapes alone do not tell them apart."""


class Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class Scaled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * x


class Dense(nn.Module):
    """A linear layer that is not torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(FEATURES, FEATURES))
        self.bias = None

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


def memory(operation: Any, sequences: tuple[int, ...]) -> nn.Module:
    """Good enough where the operation is linear."""
    return Stateless(operation)


class Stateless(MemoryModule):
    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.operation = operation

    def single_step_forward(self, x: Tensor) -> Tensor:
        return self.operation(x)

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        result: Tensor = self.operation(x_seq.flatten(0, 1))
        return result.unflatten(0, x_seq.shape[:2])


def plugin(layer: type[nn.Module], description: Replacement) -> Any:
    class Mapper(LayerMapper):
        name = "of-the-test"
        claims = (layer,)

        def map(self, site: Any) -> Replacement:
            return description

    class Plugin:
        @hookimpl
        def ann2snn_layer_mappers(self) -> list[type[LayerMapper]]:
            return [Mapper]

    return Plugin()


def sequences() -> Tensor:
    return torch.randn(N, STEPS, FEATURES, generator=torch.Generator().manual_seed(0))


def network(layer: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.ReLU(), layer, nn.ReLU(), nn.Linear(FEATURES, 3))


def converted(layer: type[nn.Module], description: Replacement) -> tuple[tuple[int, ...] | None, bool]:
    """The axis of the channels of the second ReLU, and whether the report says that they are not known."""
    seen: dict[str, Any] = {}

    class Watching(Observer):
        def observe(self, x: Tensor) -> None:
            seen[self.site.name] = x.clone() if self.site.channels else None

        def scale(self) -> Tensor:
            return torch.full((self.site.channels,) if self.site.channels else (), 5.0)

        def merge(self, other: Observer) -> None:
            raise AssertionError

    class Mode(Normalization):
        name = "watching"

        def observer(self, site: Any) -> Observer:
            return Watching(site)

    ann, x = network(layer()), sequences()
    converter = Converter([x], mode=Mode(), channel_wise=True, plugins=[plugin(layer, description)], progress=False)
    snn = converter(ann)
    assert relative_error(simulate(snn, x[:3], T=64), ann(x[:3])) < 0.2
    with torch.no_grad():
        activation = ann[:4](x)
    shown = seen["3"]
    axes = tuple(axis for axis in (1, 2) if shown is not None and torch.equal(shown, activation.movedim(axis, 1)))
    return axes or None, converter.report["3"].channels_unknown


@pytest.mark.parametrize(
    ("layer", "description", "axes", "unknown"),
    [
        (Turned, Rearrange(), (1,), False),
        (Turned, Linear(), (1,), False),
        (Turned, Analog(memory, "turned"), None, True),
        (Turned, Analog(memory, "turned", channel_axis=1), (1,), False),
        (Scaled, Linear(), (2,), False),
        (Scaled, Analog(memory, "scaled"), None, True),
        (Scaled, Analog(memory, "scaled", channel_axis="kept"), (2,), False),
        (Scaled, Analog(memory, "scaled", channel_axis=-1), (2,), False),
        (Dense, Weighted(), (2,), False),
        (Dense, Linear(channel_axis=-1), (2,), False),
        (Dense, Linear(), None, True),
    ],
)
def test_channels_behind_an_operation_of_a_plugin(
    layer: type[nn.Module], description: Replacement, axes: tuple[int, ...] | None, unknown: bool
) -> None:
    assert converted(layer, description) == (axes, unknown)


@pytest.mark.parametrize("axis", [0, 3, -3])
def test_a_dimension_that_the_result_does_not_have_is_the_mappers_mistake(axis: int) -> None:
    with pytest.raises(PluginError, match=rf"'of-the-test' .* states channel_axis={axis} for 2 \(Scaled\)"):
        converted(Scaled, Linear(channel_axis=axis))


def test_what_an_observer_passes_on_is_put_back_into_place() -> None:
    class Halving(Observer):
        def observe(self, x: Tensor) -> Tensor:
            assert x.shape[1] == self.site.channels == 7
            assert self.site.channel_axis == 1
            return x * torch.arange(7.0)[:, None]

        def scale(self) -> Tensor:
            return torch.ones(7)

        def merge(self, other: Observer) -> None:
            raise AssertionError

    class Mode(Normalization):
        name = "halving"

        def observer(self, site: Any) -> Observer:
            return Halving(site)

    seen = []

    class Last(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return super().forward(x)

    ann, x = nn.Sequential(nn.Linear(3, 7), nn.ReLU(), Last(7, 2)), torch.randn(4, 6, 3)
    Converter([x], mode=Mode(), channel_wise=True, progress=False, leaf_modules="2", verify=False)(ann)
    wanted = ann[:2](x) * torch.arange(7.0)
    assert any(one.shape == wanted.shape and torch.allclose(one, wanted) for one in seen)


def test_a_neuron_with_a_value_per_channel_is_told_the_axis() -> None:
    sites = []

    class Shifting(InPlaceNeuron):
        def __init__(self, bound: Tensor) -> None:
            super().__init__()
            self.register_buffer("bound", bound)

        def step(self, x: Tensor, out: Tensor) -> None:
            torch.minimum(x.clamp(min=0), self.bound, out=out)

    class Maker(NeuronMaker):
        name = "bounded-identity"

        def make(self, site: NeuronSite) -> InPlaceNeuron:
            sites.append(site)
            return Shifting(site.along_channels(site.maximum / site.scale))

    ann, x = nn.Sequential(nn.Linear(3, 7), nn.ReLU6(), nn.Linear(7, 2)), 20 * torch.randn(8, 6, 3)
    snn = Converter([x], neuron=Maker(), channel_wise=True, progress=False)(ann)
    assert (sites[-1].shape, sites[-1].channel_axis) == ((6, 7), 1)
    torch.testing.assert_close(simulate(snn, x[:, :4], T=2), ann(x[:, :4]))


class Shifted(Correction):
    """A bias for each channel and a potential for each channel, known beforehand."""

    name = "shifted"

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def correct(self, trial: Trial) -> None:
        x = trial.inputs()
        for site in trial.sites:
            self.shapes.append(site.shape)
            ramp = torch.linspace(0.5, 1.0, site.channels)
            trial.adjust(site.name, scale=ramp, bias=0.1 * ramp, initial_potential=site.along_channels(0.3 * ramp))
        self.tried = trial.run(x, 24).mean(0)
        self.activation = trial.activations(x).sites[trial.sites[0].name]


class BiasBehindSum(nn.Module):
    """The bias of the neuron finds no layer, because two are added up with a product in between."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c, self.act, self.b = nn.Linear(3, 7), nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(2 * (self.a(x) + self.c(x))))


@pytest.mark.parametrize("channel_wise", [False, True])
@pytest.mark.parametrize("ann", [nn.Sequential(nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, 2)), BiasBehindSum()])
def test_corrections_see_the_channels_in_front(ann: nn.Module, channel_wise: bool) -> None:
    x, correction = torch.randn(8, 6, 3), Shifted()
    snn = Converter([x], corrections=correction, channel_wise=channel_wise, progress=False)(ann)
    assert correction.shapes == [(7, 6)]
    assert correction.activation.shape == (8, 7, 6)
    torch.testing.assert_close(simulate(snn, x, T=24), correction.tried)
    assert simulate(snn, x[:, :2], T=3).shape == (8, 2, 2)
    affine = [module for module in snn.modules() if isinstance(module, ChannelAffine)]
    assert [one.bias.shape for one in affine] == ([] if isinstance(ann, nn.Sequential) else [(1, 7)])


class SplitHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.act, self.b = nn.Linear(3, 8), nn.ReLU(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.a(x).unflatten(2, (2, 4))))


def test_a_site_without_known_channels_is_one_channel_for_corrections() -> None:
    x, correction = torch.randn(8, 6, 3), Shifted()
    converter = Converter([x], corrections=correction, channel_wise=True, progress=False)
    snn = converter(SplitHeads())
    assert correction.shapes == [(1, 6, 2, 4)]
    assert correction.activation.shape == (8, 1, 6, 2, 4)
    torch.testing.assert_close(simulate(snn, x, T=24), correction.tried)
    assert converter.report["act"].scale is not None
    assert converter.report["act"].scale[0] == converter.report["act"].scale[1]
