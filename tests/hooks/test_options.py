"""Options of modes, mappers and neurons, given as keywords of the converter."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    Converter,
    CumulativeMaxPool,
    LayerMapper,
    MomentumMaxPool,
    NeuronMaker,
    NeuronSite,
    Normalization,
    OptionError,
    Replacement,
    Site,
    Spike,
    hookimpl,
    make_if_neuron,
    simulate,
)
from sj_ann2snn.builtin.neurons import IFNeuron
from sj_ann2snn.builtin.normalizations import Max, Percentile
from sj_ann2snn.hooks.options import declared_options, instantiate


class Tuned(Max):
    name = "tuned"

    def __init__(self, *, strength: float = 1.0, shared: str = "none") -> None:
        self.strength, self.shared = strength, shared


class Rectifier(nn.Module):
    """A layer that the core does not know."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, torch.zeros_like(x))


class TunedMapper(LayerMapper):
    name = "tuned-mapper"
    claims = (Rectifier,)
    asked: ClassVar[list[Any]] = []

    def __init__(self, *, ceiling: float | None = None, shared: str = "none") -> None:
        self.ceiling, self.shared = ceiling, shared

    def map(self, site: Site) -> Replacement:
        self.asked.append((self.ceiling, self.shared))
        return Spike(maximum=self.ceiling)


class TunedNeuron(NeuronMaker):
    name = "tuned-neuron"
    asked: ClassVar[list[Any]] = []

    def __init__(self, *, start: float = 0.0, shared: str = "none") -> None:
        self.start, self.shared = start, shared

    def make(self, site: NeuronSite) -> nn.Module:
        self.asked.append((self.start, self.shared))
        return make_if_neuron(initial_potential=self.start)


class Plugin:
    @hookimpl
    def ann2snn_normalizations(self) -> list[type[Normalization]]:
        return [Tuned]

    @hookimpl
    def ann2snn_layer_mappers(self) -> list[type[LayerMapper]]:
        return [TunedMapper]

    @hookimpl
    def ann2snn_neurons(self) -> list[type[NeuronMaker]]:
        return [TunedNeuron]


@pytest.mark.parametrize(
    ("options", "strength", "ceiling", "start", "shared"),
    [
        ({"strength": 2.0, "ceiling": 1e6, "start": 0.5, "shared": "all"}, 2.0, 1e6, 0.5, "all"),
        ({"ceiling": 1e6}, 1.0, 1e6, 0.0, "none"),
        ({}, 1.0, None, 0.0, "none"),
    ],
)
def test_options_reach_those_that_declare_them(
    options: dict[str, Any],
    strength: float,
    ceiling: float | None,
    start: float,
    shared: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for cls in (TunedMapper, TunedNeuron):
        monkeypatch.setattr(cls, "asked", [])
    converter = Converter(
        [torch.rand(9, 4)], mode="tuned", neuron="tuned-neuron", plugins=[Plugin], progress=False, **options
    )
    snn = converter(nn.Sequential(nn.Linear(4, 6), Rectifier(), nn.Linear(6, 3)))
    strategy = converter.normalization
    assert isinstance(strategy, Tuned)
    assert (strategy.strength, strategy.shared) == (strength, shared)
    assert set(TunedMapper.asked) == {(ceiling, shared)}
    assert set(TunedNeuron.asked) == {(start, shared)}
    assert [module.v for module in snn.modules() if hasattr(module, "v_threshold")] == [start]


def test_an_option_of_the_mode_changes_its_scale() -> None:
    ann = nn.Sequential(nn.Linear(4, 300), nn.ReLU())
    x = torch.rand(500, 4)
    wanted = torch.relu(ann[0](x)).double().quantile(0.9).item()
    errors = []
    for bits in (1, 14):
        converter = Converter([x], mode="90%", percentile_bits=bits, progress=False)
        converter(ann)
        scale = converter.report["1"].scale
        assert scale is not None
        errors.append(abs(scale[0] / wanted - 1))
    assert errors[1] <= 2**-15 * 1.01
    assert errors[1] < errors[0] <= 2**-2


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, CumulativeMaxPool),
        ({"maxpool": "cumulative"}, CumulativeMaxPool),
        ({"maxpool": "momentum", "maxpool_momentum": 0.5}, MomentumMaxPool),
        ({"maxpool": "avg"}, nn.AvgPool2d),
    ],
)
def test_options_of_a_mapper_change_what_it_answers(options: dict[str, Any], kind: type[nn.Module]) -> None:
    ann = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 2))
    snn = Converter([torch.rand(4, 1, 8, 8)], progress=False, **options)(ann)
    pools = [
        module for module in snn.modules() if isinstance(module, (CumulativeMaxPool, MomentumMaxPool, nn.AvgPool2d))
    ]
    assert [isinstance(pool, kind) for pool in pools] == [True]
    if kind is MomentumMaxPool:
        assert pools[0].momentum == 0.5


def test_an_option_of_the_neuron_reaches_the_network() -> None:
    ann = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    snn = Converter([torch.rand(10, 4)], initial_potential=0.5, progress=False)(ann)
    assert [module.v for module in snn.modules() if hasattr(module, "v_threshold")] == [0.5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maxpool": "sum"}, r"maxpool='sum' is not known\. Allowed are 'cumulative', 'momentum', 'pre-spike', 'avg'"),
        ({"maxpool_momentum": 1.0}, r"maxpool_momentum=1\.0 is not allowed: it must be in \[0, 1\)"),
        (
            {"initial_potential": 1.0},
            r"initial_potential=1\.0 is not allowed: it must be a fraction of the threshold in \[0, 1\)",
        ),
        (
            {"mode": "99%", "percentile_bits": 0},
            r"percentile_bits=0 is not allowed: it must be an integer from 1 to 16",
        ),
    ],
)
def test_values_outside_their_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Converter(**options)


def test_an_unknown_keyword_lists_the_known_ones() -> None:
    with pytest.raises(OptionError) as caught:
        Converter(mode="99%", neuron="tuned-neuron", plugins=[Plugin], window=3)
    message = str(caught.value)
    assert message.startswith("Converter got the unknown keyword window.")
    for own in ("dataloader", "device", "mode", "fuse_flag", "channel_wise", "neuron", "mappers", "prefer", "plugins"):
        assert own in message
    for option in (
        "percentile_bits (mode 'percentile')",
        "ceiling (mapper 'tuned-mapper')",
        "maxpool (mapper 'max-pool')",
        "start (neuron 'tuned-neuron')",
    ):
        assert option in message
    # Options of what is not in use would have no effect.
    assert "strength" not in message
    assert "initial_potential" not in message
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("maxpol", "maxpool"),
        ("channelwise", "channel_wise"),
        ("initial_potental", "initial_potential"),
        ("dataloder", "dataloader"),
    ],
)
def test_close_matches_are_offered(typo: str, meant: str) -> None:
    with pytest.raises(OptionError, match=rf"unknown keyword {typo}\. Did you mean '{meant}'\?"):
        Converter(**{typo: 1})


def test_several_unknown_keywords_are_all_named() -> None:
    with pytest.raises(OptionError, match="unknown keywords apples, pears"):
        Converter(pears=1, apples=2)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ({"mode": "max"}, {"percentile_bits": 4}),
        ({"mode": "99%", "plugins": [Plugin]}, {"strength": 2.0}),
        ({"neuron": "tuned-neuron", "plugins": [Plugin]}, {"initial_potential": 0.5}),
    ],
)
def test_options_of_what_is_not_in_use_are_unknown(arguments: dict[str, Any], option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(OptionError, match=f"unknown keyword {name}"):
        Converter(**arguments, **option)


def test_an_unknown_neuron_lists_the_known_ones() -> None:
    with pytest.raises(
        OptionError, match=r"^neuron='lif' is not known\. Did you mean 'if'\? Known neurons: .*'if' \(sj-ann2snn "
    ):
        Converter(neuron="lif")


def test_an_unknown_mapper_lists_the_known_ones() -> None:
    with pytest.raises(
        OptionError,
        match=r"^mappers='rellu' is not known\. Did you mean 'relu'\? Known mappers: .*'relu' \(sj-ann2snn ",
    ):
        Converter(mappers={"1": "rellu"})


def test_declared_options_are_the_keyword_only_parameters() -> None:
    class Plain:
        pass

    class Mixed:
        def __init__(self, first: int, second: int = 2, *rest: int, third: int = 3, **others: int) -> None: ...

    class Heir(Tuned):
        name = "heir"

    assert list(declared_options(Plain)) == []
    assert list(declared_options(Mixed)) == ["third"]
    assert list(declared_options(Percentile)) == ["percentile_bits"]
    assert list(declared_options(IFNeuron)) == ["initial_potential", "backend"]
    assert list(declared_options(Heir)) == ["strength", "shared"]


def test_instantiate_passes_on_what_is_declared() -> None:
    made = instantiate(Tuned, {"strength": 3.0, "momentum": 0.5})
    assert (made.strength, made.shared) == (3.0, "none")


@pytest.mark.parametrize("steps", [0, -1, 2.5, True, "8"])
def test_the_number_of_steps_is_checked(steps: Any) -> None:
    with pytest.raises(
        OptionError, match=f"T={steps!r} is not allowed: the number of time steps must be an integer of at least 1"
    ):
        Converter([], T=steps)


def test_a_mode_that_suits_any_number_of_steps_may_be_told_one() -> None:
    x = torch.rand(8, 3)
    ann = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU())
    plain, told = (Converter([x], progress=False, **given)(ann) for given in ({}, {"T": 8}))
    assert torch.equal(simulate(plain, x, 5), simulate(told, x, 5))
