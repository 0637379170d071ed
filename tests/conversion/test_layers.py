"""Arguments for single layers, `Converter(layers=...)`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, Correction, IFNeuron, Max, ModeError, OptionError, Trial, simulate

from ..helpers.networks import GradedMaker, relative_error

STEPS = 256


class Residual(nn.Module):
    """Two blocks with a shortcut, a max pool and an activation of both signs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.block1 = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
        self.block2 = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.PReLU(6))
        self.head = nn.Linear(6 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        x = x + self.block1(x)
        return self.head(self.block2(x).flatten(1))


@pytest.fixture(scope="module")
def ann() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def converter(images: Tensor, **arguments: Any) -> Converter:
    return Converter([images], progress=False, **arguments)


def test_a_layer_has_the_scale_of_its_mode_and_the_others_that_of_the_network(ann: nn.Module, images: Tensor) -> None:
    maximal, robust = converter(images, mode="max", channel_wise=True), converter(images, mode=0.5)
    maximal(ann), robust(ann)
    mixed = converter(images, mode=0.5, layers={"block1.*": {"mode": "max", "channel_wise": True}})
    mixed(ann)
    assert mixed.report.scales == {**robust.report.scales, "block1.1": maximal.report.scales["block1.1"]}
    assert maximal.report.scales["block1.1"] != robust.report.scales["block1.1"]


@pytest.mark.parametrize("layers", [{"*": {}}, {"stem.2": {}, "block*": {}}], ids=["one pattern", "several"])
def test_arguments_for_every_layer_are_arguments_for_the_network(
    ann: nn.Module, images: Tensor, layers: dict[str, Any]
) -> None:
    arguments = {"mode": "99%", "channel_wise": True, "initial_potential": 0.5}
    whole = converter(images, **arguments)(ann)
    each = converter(images, layers=dict.fromkeys(layers, arguments))(ann)
    assert torch.equal(simulate(whole, images, 8), simulate(each, images, 8))


def test_neurons_of_several_kinds_work_together(ann: nn.Module, images: Tensor) -> None:
    graded = {"neuron": GradedMaker()}
    snn = converter(images, layers={"stem.*": graded, "block2.1": graded, "block1.1": {"initial_potential": 0.5}})(ann)
    names = {name: type(module).__name__ for name, module in snn.named_modules()}
    assert names["stem.2"] == names["block2.1"] == names["block2.1_negative"] != names["block1.1"] == "IFNode"
    assert relative_error(simulate(snn, images, STEPS), ann(images)) < 0.03


def test_options_alone_change_the_network_s_own_mode_and_neuron(ann: nn.Module, images: Tensor) -> None:
    snn = converter(images, initial_potential=0.25, layers={"block1.1": {"initial_potential": 0.5}})(ann)
    starts = {name: module.v for name, module in snn.named_modules() if type(module).__name__ == "IFNode"}
    assert starts.pop("block1.1") == 0.5
    assert list(starts.values()) == [0.25] * 3


def test_later_patterns_win_and_the_rest_adds_up(ann: nn.Module, images: Tensor) -> None:
    layers = {"*": {"mode": 0.5, "initial_potential": 0.5}, "block1.*": {"mode": "max"}}
    mixed, maximal = converter(images, layers=layers), converter(images, mode="max")
    snn = mixed(ann)
    maximal(ann)
    assert mixed.report.scales["block1.1"] == maximal.report.scales["block1.1"]
    assert mixed.report.scales["stem.2"][0] == pytest.approx(maximal.report.scales["stem.2"][0] / 2)
    assert snn.get_submodule("block1.1").v == 0.5


def test_options_of_a_mapper_apply_to_its_layers(ann: nn.Module, images: Tensor) -> None:
    class Pools(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
            self.second = nn.Sequential(nn.Conv2d(4, 4, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    torch.manual_seed(0)
    pools = converter(images, layers={"first.2": {"maxpool": "momentum"}})
    snn = pools(Pools().eval())
    kinds = [type(snn.get_submodule(name)).__name__ for name in ("first.2", "second.2")]
    assert kinds[1] == "CumulativeMaxPool" != kinds[0]
    with pytest.raises(
        OptionError,
        match=r"the pattern matches no layer whose mapper takes maxpool\..* There are first\.2, second\.2\.",
    ):
        converter(images, layers={"first.1": {"maxpool": "momentum"}})(Pools().eval())
    for way in ("avg", "pre-spike"):  # these put another layer in the place of the pool, or move it
        other = converter(images, layers={"first.2": {"maxpool": way}})(Pools().eval())
        found = [
            type(one).__name__
            for one in other.modules()
            if "Pool2d" in type(one).__name__ or "MaxPool" in type(one).__name__
        ]
        assert found == [{"avg": "AvgPool2d", "pre-spike": "MaxPool2d"}[way], "CumulativeMaxPool"]
        with pytest.raises(OptionError, match=r"There are first\.2, second\.2\.$"):
            converter(images, maxpool=way, layers={"first.1": {"maxpool": way}})(Pools().eval())
    named = converter(images, mappers={"first.2": "max-pool"}, layers={"first.2": {"maxpool": "momentum"}})
    assert type(named(Pools().eval()).get_submodule("first.2")).__name__ == kinds[0]


def test_names_are_those_of_the_whole_network_where_only_a_part_is_converted(images: Tensor) -> None:
    torch.manual_seed(0)
    ann = nn.Sequential(Residual(), nn.Softmax(1)).eval()
    part = converter(images, convert_only="0", mode=0.5, layers={"0.block1.*": {"mode": "max"}})
    alone = converter(images, mode=0.5, layers={"block1.*": {"mode": "max"}})
    part(ann), alone(ann[0])
    assert part.report.scales == {f"0.{name}": scale for name, scale in alone.report.scales.items()}
    with pytest.raises(OptionError, match=r"There are 0\.stem\.2, 0\.block1\.1, 0\.block2\.1\."):
        converter(images, convert_only="0", layers={"block1.*": {"mode": "max"}})(ann)


def test_instances_serve_single_layers(ann: nn.Module, images: Tensor) -> None:
    by_name = converter(images, mode=0.5, layers={"stem.2": {"mode": "max", "initial_potential": 0.5}})(ann)
    instances = {"mode": Max(), "neuron": IFNeuron(initial_potential=0.5)}
    given = converter(images, mode=0.5, layers={"stem.2": instances})(ann)
    assert torch.equal(simulate(by_name, images, 8), simulate(given, images, 8))


def test_the_report_and_the_check_tell(ann: nn.Module, images: Tensor) -> None:
    layers = {"stem.*": {"neuron": GradedMaker()}, "block1.*": {"mode": "max"}}
    tool = converter(images, layers=layers)
    tool(ann)
    assert tool.report.settings["layers"]["block1.*"] == {"mode": "max"}
    assert [tool.report[name].becomes for name in ("stem.2", "block1.1")] == ["graded neuron", "if neuron"]
    assert {entry.name: entry.becomes for entry in tool.check(ann).entries}["stem.2"] == "graded neuron"
    assert "'block1.*': {'mode': 'max'}" in str(tool.report)


@pytest.mark.parametrize(
    ("layers", "kind", "message"),
    [
        ([], OptionError, r"layers=\[\] is not allowed: give a dict of patterns"),
        ({"a": {}}, OptionError, r"layers holds 'a': \{\}, which is not allowed: give a pattern"),
        ({3: {"mode": "max"}}, OptionError, r"layers holds 3: .* is not allowed"),
        ({"a": "max"}, OptionError, r"layers holds 'a': 'max', which is not allowed"),
        ({"a": {"T": 8}}, OptionError, r"layers\['a'\] holds T, which applies to the whole network"),
        ({"a": {"corrections": "x"}}, OptionError, r"holds corrections, which applies to the whole network"),
        ({"a": {"mode": "mox"}}, ModeError, r"In layers\['a'\]: mode='mox' is not known"),
        ({"a": {"neuron": "iff"}}, OptionError, r"In layers\['a'\]: neuron='iff' is not known"),
        ({"a": {"levels": 4}}, OptionError, r"layers\['a'\] got the unknown keyword levels.* takes mode, neuron"),
        ({"a": {"initial_potential": "x"}}, OptionError, r"In layers\['a'\]: initial_potential='x'"),
    ],
)
def test_what_no_layer_can_have_is_refused_before_a_network_is_there(
    layers: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        Converter(layers=layers)


@pytest.mark.parametrize("pattern", ["block3.*", "head", "block1.0", "Block1.*"])
def test_a_pattern_without_a_neuron_lists_the_layers_that_spike(ann: nn.Module, images: Tensor, pattern: str) -> None:
    with pytest.raises(OptionError, match=r"has no effect: .* There are stem\.2, block1\.1, block2\.1\."):
        converter(images, layers={pattern: {"mode": "max"}})(ann)


class Doubled(Correction):
    name = "doubled"

    def correct(self, trial: Trial) -> None:
        for site in trial.sites:
            site.scale *= 2


def test_corrections_apply_to_the_whole_network(ann: nn.Module, images: Tensor) -> None:
    layers = {"stem.*": {"neuron": GradedMaker()}, "block1.*": {"mode": "max", "channel_wise": True}}
    plain, doubled = converter(images, layers=layers), converter(images, layers=layers, corrections=Doubled())
    plain(ann)
    snn = doubled(ann)
    assert doubled.report.scales == {
        name: pytest.approx((2 * low, 2 * high)) for name, (low, high) in plain.report.scales.items()
    }
    assert relative_error(simulate(snn, images, STEPS), ann(images)) < 0.05
