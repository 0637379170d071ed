"""Plugins that break their contract: each is refused with an error that names it."""

from __future__ import annotations

import operator
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    ConflictError,
    Converter,
    InPlaceNeuron,
    LayerMapper,
    ModeError,
    NeuronMaker,
    NeuronSite,
    Normalization,
    Observer,
    OptionError,
    PluginError,
    PluginWarning,
    Replacement,
    Site,
    Spike,
    Sum,
    Weighted,
    hookimpl,
)
from sj_ann2snn.builtin.neurons import IFNeuron
from sj_ann2snn.builtin.normalizations import Max, Percentile

from ..helpers.plugins import plugin


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def images() -> Tensor:
    return torch.rand(20, 4)


@pytest.mark.parametrize(
    "arguments",
    [{"mode": Percentile(99.9), "percentile_bits": 3}, {"neuron": IFNeuron(), "initial_potential": 0.5}],
)
def test_options_of_an_instance_are_refused(arguments: dict[str, Any]) -> None:
    name = next(key for key in arguments if key not in ("mode", "neuron"))
    with pytest.raises(OptionError, match=f"unknown keyword {name}"):
        Converter(**arguments)


def test_a_class_that_needs_arguments_is_refused_when_it_is_loaded() -> None:
    class Mapper(LayerMapper):
        name = "needy"
        claims = (nn.Tanh,)

        def __init__(self, k: int) -> None: ...

        def map(self, site: Site) -> Replacement:
            return Spike()

    with pytest.raises(PluginError, match=r"Mapper\(\) requires k"):
        Converter(plugins=[plugin("ann2snn_layer_mappers", Mapper)])


def test_a_mapper_that_raises_is_named_with_the_site() -> None:
    class Mapper(LayerMapper):
        name = "fragile"
        claims = (nn.ReLU,)
        replaces = ("relu",)

        def map(self, site: Site) -> Replacement:
            raise KeyError("boom")

    with pytest.raises(PluginError, match=r"Mapper 'fragile' \(your own argument\), asked about 1 \(ReLU\).*boom"):
        Converter([images()], plugins=[plugin("ann2snn_layer_mappers", Mapper)], progress=False)(network())


def mode_that_fails(where: str) -> Normalization:
    class Fragile(Observer):
        def observe(self, x: Tensor) -> Any:
            if where == "observe":
                raise KeyError("boom")
            return {"answer": 5, "shape": x[:, :2]}.get(where)

        def merge(self, other: Any) -> None: ...

        def end_pass(self) -> bool:
            if where == "end_pass":
                raise KeyError("boom")
            return False

        def scale(self) -> Tensor:
            if where == "scale":
                raise KeyError("boom")
            return torch.tensor(1.0)

    class Mode(Normalization):
        name = "fragile"

        def observer(self, site: Any) -> Observer:
            if where == "observer":
                raise KeyError("boom")
            return Fragile(site)

    return Mode()


@pytest.mark.parametrize("where", ["observer", "observe", "answer", "shape", "end_pass", "scale"])
def test_an_observer_that_fails_is_named(where: str) -> None:
    with pytest.raises(PluginError, match=r"Mode 'fragile' \(your own argument\)"):
        Converter([images()], mode=mode_that_fails(where), progress=False)(network())


@pytest.mark.parametrize("made", [None, torch.relu, nn.ReLU, nn.Identity()])
def test_a_neuron_without_memory_is_refused(made: Any) -> None:
    class Maker(NeuronMaker):
        name = "forgetful"

        def make(self, site: NeuronSite) -> Any:
            return made

    with pytest.raises(PluginError, match=r"'forgetful' \(your own argument\) made .* for 1; .* MemoryModule"):
        Converter([images()], neuron=Maker(), progress=False)(network())


class Endless(InPlaceNeuron):
    """Emits whatever its potential holds."""

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v += x
        torch.floor(self.v, out=out).clamp_(min=0)
        self.v -= out


def test_a_neuron_that_goes_beyond_the_bound_of_its_activation_is_refused() -> None:
    class Maker(NeuronMaker):
        name = "endless"

        def make(self, site: NeuronSite) -> nn.Module:
            bounds.append(site.maximum)
            return Endless()

    bounds: list[float | None] = []
    x = torch.randn(64, 4) * 20
    Converter([x], neuron=Maker(), progress=False)(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    assert bounds == [None]
    bounded = nn.Sequential(nn.Linear(4, 8), nn.ReLU6(), nn.Linear(8, 2))
    for options in ({}, {"channel_wise": True, "mode": 0.5}):
        with pytest.raises(
            PluginError, match=r"'endless' \(your own argument\) emits 12 for a drive of 12 at 1, whose .* 6"
        ):
            Converter([x], neuron=Maker(), progress=False, **options)(bounded)
    assert bounds[-1] == 6


class UnitFails(IFNeuron):
    """A neuron maker whose spikes are worth what `answer` makes of λ."""

    name = "graded"

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def unit(self, scale: Tensor) -> Any:
        return self.answer(scale)


@pytest.mark.parametrize(
    "answer",
    [
        lambda scale: scale * 0,
        lambda scale: -scale,
        lambda scale: scale / 0,
        lambda scale: scale * float("nan"),
        lambda scale: scale.expand(3),
        lambda scale: 1.0,
        lambda scale: None,
    ],
    ids=["zero", "negative", "infinite", "nan", "shape", "float", "none"],
)
def test_a_spike_without_a_positive_value_is_refused(answer: Any) -> None:
    with pytest.raises(
        PluginError, match=r"'graded' \(your own argument\) returned .* from unit\(\) for λ of shape \(\)"
    ) as e:
        Converter([images()], neuron=UnitFails(answer), progress=False)(network())
    assert "finite, positive tensor of that shape" in str(e.value)


def test_a_unit_that_raises_is_named() -> None:
    with pytest.raises(PluginError, match=r"'graded' \(your own argument\), asked for the value of a spike,.*division"):
        Converter([images()], neuron=UnitFails(lambda scale: 1 / 0), progress=False)(network())


def test_replacing_a_mode_answers_to_its_name() -> None:
    class Better(Max):
        name = "better-max"
        replaces = ("max",)

    converter = Converter(mode="max", plugins=[plugin("ann2snn_normalizations", Better)])
    assert type(converter.normalization) is Better


def broken_mode(answer: Any) -> type[Normalization]:
    class Mode(Max):
        name = "broken"

        @classmethod
        def parse(cls, mode: object, **options: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

    return Mode


@pytest.mark.parametrize("answer", ["yes", KeyError("boom")])
def test_a_mode_whose_parse_is_broken_is_reported_and_takes_nothing_else_down(answer: Any) -> None:
    plugins = [plugin("ann2snn_normalizations", broken_mode(answer))]
    with pytest.warns(PluginWarning, match=r"'broken' of your own argument .* (in|from) parse\('max'\)"):
        assert str(Converter(mode="max", plugins=plugins).normalization) == "max"
    with (
        pytest.warns(PluginWarning),
        pytest.raises(ModeError, match=r"'brokn' is not known.*do not work.*'broken' of your own argument"),
    ):
        Converter(mode="brokn", plugins=plugins)


def test_an_unmarked_hook_of_an_instance_is_noticed() -> None:
    class Plugin:
        def ann2snn_normalizations(self) -> list[type]:
            return []

        @hookimpl
        def ann2snn_layer_mappers(self) -> list[type]:
            return []

    with pytest.raises(PluginError, match="ann2snn_normalizations is not marked"):
        Converter(plugins=[Plugin()])


def test_a_mapper_name_claimed_twice_is_a_conflict() -> None:
    def mapper(bound: float) -> type[LayerMapper]:
        class Mapper(LayerMapper):
            name = "twice"
            claims = (nn.Tanh,)

            def map(self, site: Site) -> Replacement:
                return Spike(maximum=bound)

        return Mapper

    plugins = [plugin("ann2snn_layer_mappers", mapper(bound)) for bound in (1.0, 2.0)]
    with pytest.raises(ConflictError, match="mappers='twice' is claimed by"):
        Converter(mappers={"1": "twice"}, plugins=plugins)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"neuron": IFNeuron}, r"neuron=IFNeuron is a class; give an instance, neuron=IFNeuron\(\.\.\.\)"),
        ({"neuron": 3}, r"name of a neuron \(.*\) or an instance of NeuronMaker"),
        ({"mappers": {"1": IFNeuron}}, "name of a mapper or an instance"),
        ({"mappers": {"1": "no-such"}}, "mappers='no-such' is not known. Known mappers"),
    ],
)
def test_wrong_kinds_of_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Converter(**arguments)


def test_mappers_for_a_layer_that_is_not_there() -> None:
    with pytest.raises(OptionError, match=r"'layer9', which is not a site of the network. The sites are 0, 1, 2"):
        Converter([images()], mappers={"layer9": "relu"}, progress=False)(network())


@pytest.mark.parametrize("written", ["3/2", "1/0", "0", 2, "-0.5"])
def test_messages_about_a_mode_show_what_was_given(written: Any) -> None:
    with pytest.raises(ModeError, match=rf"^mode={written!r} .*must be in \(0, 1\]"):
        Converter(mode=written)


def test_inherited_replaces_is_checked() -> None:
    class Parent(Max):
        replaces = "max"  # type: ignore[assignment]

    class Child(Parent):
        name = "child"

    with pytest.raises(PluginError, match="replaces must be a tuple of names"):
        Converter(plugins=[plugin("ann2snn_normalizations", Child)])


def test_own_plugins_win_whatever_is_preferred() -> None:
    class Mine(Max):
        name = "max"

    mine = plugin("ann2snn_normalizations", Mine)
    assert type(Converter(mode="max", prefer="sj-ann2snn", plugins=[mine]).normalization) is Mine


class Hoarder(Observer):
    """Keeps all that it is shown."""

    def __init__(self, site: Any, keep: Any) -> None:
        super().__init__(site)
        self.keep, self.kept = keep, []

    def observe(self, x: Tensor) -> None:
        self.kept.append(self.keep(x))

    def merge(self, other: Any) -> None:
        self.kept += other.kept

    def scale(self) -> Tensor:
        return torch.tensor(max(float(torch.as_tensor(one).max()) for one in self.kept))


def hoarding(keep: Any) -> Normalization:
    class Mode(Normalization):
        name = "hoarding"

        def observer(self, site: Any) -> Observer:
            return Hoarder(site, keep)

    return Mode()


@pytest.mark.parametrize("batches", [2, 3, 8])
@pytest.mark.parametrize(
    "keep",
    [lambda x: x, Tensor.clone, Tensor.tolist, Tensor.numpy, lambda x: {"all": (x.flatten(),)}],
    ids=["reference", "copy", "list", "array", "nested"],
)
def test_an_observer_that_keeps_all_data_is_found_out(keep: Any, batches: int) -> None:
    ann = nn.Sequential(nn.Linear(4, 64), nn.ReLU())
    data = [torch.rand(20_000, 4)] * batches
    with pytest.raises(PluginError, match=r"Mode 'hoarding' .* keeps the calibration data: its observer of 1 grew by"):
        Converter(data, mode=hoarding(keep), progress=False)(ann)


def test_an_observer_may_keep_a_number_for_every_batch() -> None:
    ann = nn.Sequential(nn.Linear(4, 64), nn.ReLU())
    data = torch.rand(20_000, 4)
    converter = Converter([data] * 3, mode=hoarding(Tensor.max), progress=False)
    converter(ann)
    assert converter.report["1"].scale == pytest.approx((ann(data).max().item(),) * 2)


@pytest.mark.parametrize("mode", ["max", "99.9%", 0.5])
def test_the_builtins_keep_no_data(mode: Any) -> None:
    ann = nn.Sequential(nn.Linear(4, 64), nn.ReLU())
    converter = Converter([torch.rand(20_000, 4)] * 3, mode=mode, progress=False)
    converter(ann)
    assert list(converter.report.scales) == ["1"]


def rescale(site: Site) -> None:
    assert site.module is not None
    site.module.weight.data.mul_(0.5)


def replace_weight(site: Site) -> None:
    assert site.module is not None
    site.module.weight = nn.Parameter(torch.ones(6, 4))


def add_layer(site: Site) -> None:
    assert site.module is not None
    site.module.add_module("extra", nn.ReLU())


def set_attribute(site: Site) -> None:
    assert site.module is not None
    site.module.out_features = 3


def edit_graph(site: Site) -> None:
    # No way leads there by the contract; one through the interpreter does.
    frame = sys._getframe(1)
    while "self" not in frame.f_locals or not hasattr(frame.f_locals["self"], "decisions"):
        frame = frame.f_back  # type: ignore[assignment]
    graph = frame.f_locals["self"].module.graph
    with graph.inserting_before(next(node for node in graph.nodes if node.op == "output")):
        graph.call_function(torch.relu, (next(iter(graph.nodes)),))


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (rescale, "weight of its module"),
        (replace_weight, "weight of its module"),
        (add_layer, "_modules of its module|extra.* of its module"),
        (set_attribute, "out_features of its module"),
        (edit_graph, "the graph"),
    ],
)
def test_a_mapper_that_edits_the_network_is_found_out(edit: Any, what: str) -> None:
    class Mapper(LayerMapper):
        name = "editor"
        claims = (nn.Linear,)
        replaces = ("weighted",)

        def map(self, site: Site) -> Replacement:
            edit(site)
            return Weighted()

    with pytest.raises(
        PluginError, match=rf"Mapper 'editor' \(your own argument\), asked about 0 \(Linear\), changed ({what})\. A"
    ):
        Converter([images()], plugins=[plugin("ann2snn_layer_mappers", Mapper)], progress=False)(network())


def test_a_mapper_that_edits_a_parameter_among_the_arguments_is_found_out() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x) + self.shift

    class Mapper(LayerMapper):
        name = "editor"
        claims = (operator.add,)
        replaces = ("addition",)

        def map(self, site: Site) -> Replacement:
            constant = site.values[1].constant
            assert constant is not None
            constant.detach().zero_()
            return Sum()

    with pytest.raises(PluginError, match="changed a parameter among its arguments"):
        Converter([images()], plugins=[plugin("ann2snn_layer_mappers", Mapper)], progress=False)(Shifted())
