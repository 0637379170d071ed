"""Scripts written for SpikingJelly's own converters: recipes on 2.0, the converter's arguments on 0.0.0.0.14."""

from __future__ import annotations

import copy
import inspect
import types
import warnings
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import ann2snn as theirs
from spikingjelly.activation_based import functional
from torch import Tensor, nn

import sj_ann2snn
from sj_ann2snn import (
    CalibrationError,
    ConversionError,
    Converter,
    ConverterRecipe,
    LegacyArgumentWarning,
    ModeError,
    Normalization,
    OptionError,
    UnsupportedError,
    VersionError,
    ann2snn,
    compat,
    hookimpl,
    recipe,
    simulate,
)
from sj_ann2snn import (
    spikingjelly_recipe as recipes,
)
from sj_ann2snn.builtin.activation_mappers import ReLUMapper
from sj_ann2snn.builtin.neurons import IFNeuron
from sj_ann2snn.builtin.normalizations import Max, Percentile

from ..helpers.networks import randomized, run_by_hand

HAS_RECIPES = hasattr(theirs, "FXConversionRecipe")
on_recipes = pytest.mark.skipif(not HAS_RECIPES, reason="SpikingJelly 0.0.0.0.14 has no recipes")
without_recipes = pytest.mark.skipif(HAS_RECIPES, reason="this is about SpikingJelly 0.0.0.0.14")


def network() -> nn.Module:
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
    head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 16, 12), nn.ReLU(), nn.Linear(12, 5))
    return randomized(nn.Sequential(nn.Sequential(*layers), head))


def images() -> Tensor:
    return torch.rand(40, 3, 8, 8)


class Doubled(Max):
    """A plugin's mode with an option of its own."""

    name = "doubled"

    def __init__(self, *, twice: bool = True) -> None:
        self.twice = twice


class DoubledPlugin:
    @staticmethod
    @hookimpl
    def ann2snn_normalizations() -> list[type[Normalization]]:
        return [Doubled]


# ---------------------------------------------------------------- recipes of SpikingJelly 2.0

OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "percentile": {"mode": "99.9%"},
    "fraction": {"mode": 1.0 / 2},
    "instance": {"mode": Percentile(99.0)},
    "plugin": {"mode": "doubled", "plugins": [DoubledPlugin()], "twice": False},
    "channels": {"mode": "99%", "channel_wise": True, "initial_potential": 0.5},
    "neuron": {"neuron": IFNeuron(initial_potential=0.25)},
    "maxpool": {"maxpool": "momentum", "maxpool_momentum": 0.8},
    "batchnorm": {"fuse_flag": False},
    "mapper": {"mappers": {"0.2": ReLUMapper()}},
    "part": {"convert_only": "0"},
    "leaf": {"leaf_modules": "1.3"},
    "unverified": {"verify": False},
}


@on_recipes
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_spikingjellys_converter_makes_the_same_network(options: dict[str, Any]) -> None:
    ann, data = network(), [images(), images()]
    converter = Converter(data, progress=False, **options)
    wanted = converter(ann)
    made = recipe(data, progress=False, **options)
    found = theirs.Converter(recipe=made, device="cpu").convert(ann)
    assert type(found).__name__ == type(wanted).__name__
    assert not found.training
    assert [name for name, _ in found.named_modules()] == [name for name, _ in wanted.named_modules()]
    ours, other = wanted.state_dict(), found.state_dict()
    assert ours.keys() == other.keys()
    assert all(torch.equal(ours[name], other[name]) for name in ours)
    assert [one.requires_grad for one in found.parameters()] == [one.requires_grad for one in wanted.parameters()]
    x = images()[:6]
    assert torch.equal(run_by_hand(found, x, 8), run_by_hand(wanted, x, 8))
    assert torch.equal(simulate(found, x, 8), simulate(wanted, x, 8))
    assert str(made.report) == str(converter.report)


@on_recipes
def test_every_option_of_the_converter_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = inspect.signature(Converter.__init__).parameters
    passed = set(parameters) - {"self", "device", "momentum", "options"}
    assert {"mode", "channel_wise", "leaf_modules", "progress"} <= passed
    values = {name: object() for name in passed} | {"maxpool": object()}
    seen: dict[str, Any] = {}

    class Noting:
        def __init__(self, dataloader: Any, **keywords: Any) -> None:
            seen.update(keywords, dataloader=dataloader)

    monkeypatch.setattr(recipes, "Converter", Noting)
    recipe(**values)  # type: ignore[arg-type]
    assert seen == values


@on_recipes
def test_the_arguments_of_their_recipe_are_taken() -> None:
    parameters = dict(inspect.signature(theirs.RateCodingRecipe.__init__).parameters)
    parameters.pop("self")
    own = list(inspect.signature(recipe).parameters)
    assert list(parameters)[: len(own) - 1] == own[:-1], "positional arguments mean the same"
    defaults = {name: one.default for name, one in parameters.items() if one.default is not inspect.Parameter.empty}
    assert {"momentum", "eps", "neuron_factory", "half_threshold", "channel_dim"} <= set(defaults)
    with pytest.warns(LegacyArgumentWarning) as caught:
        made = recipe([images()], **defaults)
    told = {str(one.message).partition("=")[0] for one in caught}
    assert told == {"momentum", "eps"}
    assert {one.filename for one in caught} == {__file__}
    assert str(made.converter.normalization) == "max"


@on_recipes
@pytest.mark.parametrize("channel_wise", [False, True])
def test_their_switches_mean_our_options(channel_wise: bool) -> None:
    ann, data = network(), [images()]
    switches = {"half_threshold": True, "pre_spike_maxpool": True, "channel_wise": channel_wise}
    options = {"initial_potential": 0.5, "maxpool": "pre-spike", "channel_wise": channel_wise}
    found = theirs.Converter(recipe(data, progress=False, **switches)).convert(ann)
    wanted = Converter(data, progress=False, **options)(ann)
    x = images()[:4]
    assert torch.equal(run_by_hand(found, x, 12), run_by_hand(wanted, x, 12))
    plain = Converter(data, progress=False, channel_wise=channel_wise)(ann)
    assert not torch.equal(run_by_hand(plain, x, 12), run_by_hand(wanted, x, 12))


@on_recipes
def test_the_ann_stays_as_it_is() -> None:
    ann = network().train()
    ann[0][1].eval()
    before = copy.deepcopy(ann.state_dict())
    modes = [module.training for module in ann.modules()]
    theirs.Converter(recipe([images()], progress=False), device="cpu").convert(ann)
    assert [module.training for module in ann.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in ann.state_dict().items())


@on_recipes
def test_networks_that_their_tracer_does_not_take() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor, factor: Tensor | None = None) -> Tensor:
            h = torch.relu(self.first(x))
            if factor is not None:
                h = h * factor
            return self.last(h)

    ann, x = Functional().eval(), torch.rand(50, 4)
    with pytest.raises(TypeError, match="NoneType"):
        theirs.Converter(theirs.RateCodingRecipe([x])).convert(ann)
    snn = theirs.Converter(recipe([x], progress=False)).convert(ann)
    assert simulate(snn, x, 500).sub(ann(x)).abs().max() < 0.02


@on_recipes
def test_one_recipe_serves_several_converters_and_networks() -> None:
    made = recipe([images()], progress=False)
    first, second = theirs.FXConverter(made), theirs.Converter(recipe=made, device=torch.device("cpu"))
    anns = [network(), network()]
    x = images()[:4]
    for converter in (first, second, first):
        for ann in anns:
            wanted = Converter(made.converter.dataloader, progress=False)(ann)
            assert torch.equal(run_by_hand(converter.convert(ann), x, 5), run_by_hand(wanted, x, 5))
    assert not made._converted, "nothing is kept once it is handed over"


@on_recipes
def test_a_conversion_that_fails_says_why_and_can_be_repeated() -> None:
    made = recipe([images()], progress=False)
    converter = theirs.Converter(made)
    with pytest.raises(UnsupportedError, match="GroupNorm"):
        converter.convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.GroupNorm(2, 4)))
    assert converter.convert(network())(images()[:1]).shape == (1, 5)
    with pytest.raises(CalibrationError, match="No calibration data"):
        theirs.Converter(recipe()).convert(network())


@on_recipes
def test_check_and_report_of_a_recipe() -> None:
    made = recipe(dataloader=[images()], mode="99.9%", progress=False)
    assert isinstance(made, ConverterRecipe)
    assert isinstance(made, theirs.ConversionRecipe)
    with pytest.raises(ConversionError, match=r"There is no report yet: .*Converter\(recipe\)\.convert\(ann\)"):
        _ = made.report
    assert "if neuron" in str(made.converter.check(network()))
    theirs.Converter(made).convert(network())
    assert made.report.mode == "99.9%"


@on_recipes
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "cpu"}, r"device='cpu'.*Give the device to SpikingJelly's converter: Converter\(recipe=\.\.\., device=\.\.\.\)"),
        ({"channel_dim": 2}, r"channel_dim=2 is not allowed: the axis of the channels follows from the layers"),
        ({"neuron_factory": nn.Identity}, r"neuron_factory is not supported\. .* instance of NeuronMaker"),
        ({"half_threshold": 0.5}, r"half_threshold=0\.5 is not allowed: it must be True or False"),
        ({"half_threshold": True, "initial_potential": 0.1}, r"half_threshold=True and initial_potential=0\.1 say the same"),
        ({"pre_spike_maxpool": True, "maxpool": "avg"}, r"pre_spike_maxpool=True and maxpool='avg' say the same thing"),
        ({"half_treshold": True}, r"unknown keyword half_treshold"),
    ],
)  # fmt: skip
def test_arguments_that_a_recipe_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        recipe([images()], **arguments)


@on_recipes
def test_an_unknown_mode_is_refused_where_the_recipe_is_made() -> None:
    with pytest.raises(ModeError, match="Did you mean 'max'"):
        recipe([images()], mode="maxx")


VERSION_MESSAGE = (
    r"SpikingJelly \S+ has no recipes; they came with 2\.0\. Convert with sj_ann2snn\.Converter\(dataloader"
)


@without_recipes
def test_recipes_on_the_older_line() -> None:
    with pytest.raises(VersionError, match=VERSION_MESSAGE):
        recipe([images()], mode="99.9%")


def test_recipes_on_a_spikingjelly_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "own_ann2snn", lambda: types.ModuleType("ann2snn"))
    with pytest.raises(VersionError, match=VERSION_MESSAGE):
        compat.recipe_base()


# ---------------------------------------------------------------- the converter's arguments on 0.0.0.0.14


@pytest.mark.parametrize("mode", ["Max", "max", "99.9%", 1.0 / 2, 1.0 / 5])
def test_the_converters_arguments_of_the_older_line(mode: Any) -> None:
    ann, loader = network(), [(images(), torch.zeros(40, dtype=torch.int64)) for _ in range(3)]
    with pytest.warns(LegacyArgumentWarning, match="momentum=0.1 has no effect") as caught:
        converter = Converter(loader, "cpu", mode, 0.1, True)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = Converter(mode=mode, dataloader=loader, device="cpu", fuse_flag=True)
    x = images()[:3]
    found, wanted = (run_by_hand(one(ann), x, 10) for one in (converter, plain))
    assert torch.equal(found, wanted)


def test_the_loop_of_the_older_tutorial() -> None:
    # It resets every module that has a reset, and adds to the first output in place.
    ann = nn.Sequential(network(), nn.ReLU())
    snn = Converter(mode="max", dataloader=[images()], progress=False)(ann)
    x = images()[:5]
    totals = []
    with torch.no_grad():
        for _ in range(2):
            for module in snn.modules():
                if hasattr(module, "reset"):
                    module.reset()
            out = snn(x)
            for _ in range(1, 30):
                out += snn(x)
            totals.append(out / 30)
    assert torch.equal(totals[0], totals[1])
    assert (totals[0] - simulate(snn, x, 30)).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("keyword", "message"),
    [
        ("recipe", r"sj_ann2snn\.recipe\(dataloader=\.\.\., mode=\.\.\.\) makes a recipe"),
        ("half_threshold", r"is initial_potential=0\.5 here"),
        ("pre_spike_maxpool", r"is maxpool='pre-spike' here"),
        ("channel_dim", r"axis of the channels follows from the layers"),
        ("eps", r"takes the λ of its layer"),
        ("neuron_factory", r"is neuron=\.\.\. here"),
    ],
)
def test_their_keywords_that_the_converter_lacks_name_what_stands_for_them(keyword: str, message: str) -> None:
    with pytest.raises(OptionError, match=rf"unknown keyword {keyword}\. .*{message}"):
        Converter([images()], **{keyword: 1})


# ---------------------------------------------------------------- sj_ann2snn.ann2snn, for one changed import line


def test_the_call_of_the_older_line_is_our_converter_on_both() -> None:
    assert isinstance(ann2snn.Converter(mode="99.9%", dataloader=[images()]), Converter)
    assert isinstance(ann2snn.Converter([images()], "cpu", "Max"), Converter)
    assert ann2snn.download_url is theirs.download_url


@on_recipes
def test_the_call_with_a_recipe_is_theirs() -> None:
    ann = network()
    made = ann2snn.RateCodingRecipe(dataloader=[images()], mode="Max", progress=False)
    assert isinstance(made, ConverterRecipe)
    for converter in (
        ann2snn.Converter(recipe=made, device="cpu"),
        ann2snn.Converter(made),
        ann2snn.FXConverter(made),
        ann2snn.Converter("transformer_td_equivalent"),
    ):
        assert type(converter) is theirs.FXConverter
    snn = ann2snn.Converter(made, "cpu").convert(ann)
    functional.reset_net(snn)
    assert snn(images()[:2]).shape == (2, 5)
    assert ann2snn.LocalThresholdBalancingRecipe is theirs.LocalThresholdBalancingRecipe
    with pytest.raises(TypeError, match="Use ModuleConverter"):
        ann2snn.Converter(theirs.ModuleConversionRecipe())


@without_recipes
@pytest.mark.parametrize("name", ["RateCodingRecipe", "LocalThresholdBalancingRecipe", "FXConverter"])
def test_names_of_the_newer_line_on_the_older(name: str) -> None:
    assert not hasattr(ann2snn, name)
    with pytest.raises(AttributeError, match=rf"has no '{name}'\. Recipes came with 2\.0; Converter\(dataloader"):
        getattr(ann2snn, name)


def test_names_that_nobody_has() -> None:
    with pytest.raises(AttributeError, match=r"ann2snn of SpikingJelly \S+ has no 'Nothing'\.$"):
        _ = ann2snn.Nothing
    with pytest.raises(AttributeError, match="has no attribute '__path__'"):
        _ = ann2snn.__path__
    assert {"Converter", "download_url"} <= set(dir(ann2snn))
    assert ("RateCodingRecipe" in dir(ann2snn)) is HAS_RECIPES


@pytest.mark.parametrize("name", ["download_url", "RateCodingRecipe", "LocalThresholdBalancingRecipe", "FXConverter"])
def test_their_names_in_the_package_itself_say_where_they_are(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"has no attribute '{name}'\. .*: from sj_ann2snn import ann2snn\.$"):
        getattr(sj_ann2snn, name)
    with pytest.raises(AttributeError, match=r"has no attribute 'simulte'\.$"):
        _ = sj_ann2snn.simulte
