"""Converter(weights="int8"): what becomes integers, what is refused, what is reported."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    Converter,
    InputError,
    IntegerError,
    IntegerIF,
    IntegerInput,
    OptionError,
    Scaler,
    diagnose,
    evaluate,
    export,
    integer_network,
    load_network,
    saturated,
    simulate,
)
from sj_ann2snn.integers.operations import Input, Neuron

from ..helpers.cnn import cnn, images
from ..helpers.integers import assert_agrees
from ..helpers.networks import GradedMaker, Written, convert, relative_error


def perceptron(activation: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 16), activation or nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize(("weights", "most"), [("int4", 7), ("int8", 127), ("int16", 32767)])
def test_weights_fill_their_width_and_no_more(weights: str, most: int) -> None:
    network = integer_network(convert(cnn().eval(), images(), weights=weights, channel_wise=True))
    layers = [one for one in network.operations if one.kind == "weighted"]
    assert len(layers) == 3
    largest = [abs(one.weight).max() for one in layers]  # type: ignore[attr-defined]
    assert max(largest) <= most
    assert max(largest) > most // 2


def test_everything_in_the_network_is_an_integer_but_the_scale_of_the_answer() -> None:
    snn = convert(cnn().eval(), images(), weights="int8", initial_potential=0.5)
    last = [name for name, module in snn.named_modules() if isinstance(module, Scaler)]
    for name, value in snn.state_dict().items():
        if name.rpartition(".")[0] not in last and not name.endswith("integers._extra_state"):  # the input's scale
            assert torch.equal(value, value.round()), name
    assert len(last) == 1
    neurons = [module for module in snn.modules() if isinstance(module, IntegerIF)]
    assert len(neurons) == 2
    for neuron in neurons:
        assert (neuron.threshold >= 1).all()
        assert torch.equal(neuron.potential, (neuron.threshold * 0.5).round())


def test_the_answer_is_that_of_the_ann() -> None:
    x = torch.rand(50, 6)
    ann = perceptron().eval()
    for weights, tolerance in (("int4", 0.15), ("int8", 0.02), ("int16", 0.01)):
        snn = convert(ann, x, weights=weights, initial_potential=0.5)
        assert (simulate(snn, x, T=500) - ann(x)).abs().max() < tolerance


def test_compensated_weights_come_closer_than_rounded_ones() -> None:
    from sj_ann2snn.conversion.integer_corrections import compensated

    basis = torch.randn(4, 24)
    seen = (torch.randn(500, 4) @ basis).double()  # inputs that depend on each other
    exact = torch.randn(10, 24).double() * 2
    wanted = seen @ exact.T
    rounded = (seen @ exact.round().clamp(-7, 7).T - wanted).square().mean()
    found = compensated(exact, seen, 7)
    assert torch.equal(found, found.round())
    assert found.abs().max() <= 7
    assert (seen @ found.T - wanted).square().mean() < 0.5 * rounded


def test_inputs_without_a_sign_use_all_of_their_bits() -> None:
    for x, ends in ((images(), (0, 255)), (images() - 0.5, (-127, 127))):
        snn = convert(cnn().eval(), x, weights="int8")
        (found,) = (module for module in snn.modules() if isinstance(module, IntegerInput))
        assert (found.low, found.high) == ends
        assert found.shape == (1, 8, 8)
        assert found.scale == pytest.approx(x.abs().max().item() / ends[1])


def test_calibration_data_that_comes_once_is_enough() -> None:
    snn = Converter(iter([images(30)]), weights="int8", progress=False)(cnn().eval())
    assert_agrees(snn, images(2), steps=4)


@pytest.mark.parametrize("weights", ["int32", 8, "INT8", ["int8"]])
def test_unknown_weights_are_refused(weights: Any) -> None:
    with pytest.raises(OptionError, match=r"weights=.* is not known. Allowed are 'int4', 'int8', 'int16'"):
        Converter([images()], weights=weights)


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "both signs": (lambda: perceptron(nn.LeakyReLU(0.1)), {}, r"activation of both signs"),
    "graded spikes": (perceptron, {"neuron": GradedMaker()}, r"(?s)1 \(Graded\).*3 \(Graded\).*neuron='if'"),
    "a constant": (
        lambda: Written(
            lambda net, x: net.second(torch.relu(net.first(x) + net.other(x) + net.constant)),
            first=nn.Linear(6, 6),
            other=nn.Linear(6, 6),
            second=nn.Linear(6, 2),
            constant=nn.Parameter(torch.rand(6)),
        ),
        {},
        r"adds a constant.*by the bias of a layer",
    ),
    "a sine in front": (
        lambda: Written(
            lambda net, x: net.second(torch.relu(net.first(x.sin()))), first=nn.Linear(6, 4), second=nn.Linear(4, 2)
        ),
        {},
        r"sin.*does not map integers to integers.*before the data reaches the network",
    ),
}


@pytest.mark.filterwarnings("ignore::sj_ann2snn.NotConvertedWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_integers_is_refused_by_name(name: str) -> None:
    make, options, message = REFUSED[name]
    with pytest.raises(IntegerError, match=message) as caught:
        convert(make().eval(), torch.rand(40, 6), weights="int8", **options)
    assert all(isinstance(where, str) and why for where, why in caught.value.problems)


def test_momentum_pools_and_uneven_averages_are_refused_together() -> None:
    ann = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 2)),
    )
    with pytest.raises(IntegerError) as caught:
        convert(ann.eval(), images(), weights="int8", maxpool="momentum")
    assert "averages over time" in str(caught.value)
    assert "maxpool='cumulative'" in str(caught.value)
    ann[2] = nn.AvgPool2d(2)
    with pytest.raises(IntegerError, match=r"averages \(4, 4\) to \(3, 3\) over windows of different sizes"):
        convert(ann.eval(), images(), weights="int8")


def test_inputs_that_are_no_numbers_are_refused() -> None:
    ann = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with pytest.raises(IntegerError, match=r"input 'input' is of torch.int64"):
        convert(ann, torch.randint(0, 10, (20, 3)), weights="int8")


def test_a_perceptron_is_pure_and_an_average_pool_is_not() -> None:
    pure = convert(perceptron().eval(), torch.rand(40, 6), weights="int8")
    assert pure.is_pure
    assert pure.obstacles == ()
    snn = convert(cnn().eval(), images(), weights="int8")
    assert not snn.is_pure
    assert [one.name for one in snn.obstacles] == ["3", "7"]
    assert "sums of 4 spikes" in str(snn.obstacles[0])
    assert "avgpool_neuron=True" in str(snn.obstacles[0])
    assert convert(cnn().eval(), images(), weights="int8", avgpool_neuron=True).is_pure


def test_a_network_in_floating_point_is_not_pure() -> None:
    snn = convert(perceptron().eval(), torch.rand(40, 6))
    assert not snn.is_pure
    assert snn.obstacles is None


class Shortcut(nn.Module):
    def __init__(self, *, pool: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.pool(torch.relu(self.second(x) + x)).flatten(1)


def test_shortcuts_and_max_pools_are_listed_with_remedies() -> None:
    snn = convert(Shortcut(pool=True).eval(), images(), weights="int8", channel_wise=True)
    shortcut, pool = snn.obstacles
    assert "multiplies spikes by" in shortcut.why
    assert "shared_scales=True" in shortcut.remedy
    assert pool.name == "pool"
    assert "counts the spikes" in pool.why
    assert_agrees(snn, images(2), steps=6)


def test_purity_survives_copies_pickles_and_files(tmp_path: Path) -> None:
    for ann, x, pure in ((perceptron(), torch.rand(40, 6), True), (cnn(), images(), False)):
        snn = convert(ann.eval(), x, weights="int8")
        buffer = io.BytesIO()
        torch.save(snn, buffer)
        buffer.seek(0)
        export(snn, tmp_path / "network.zip")
        copies = [
            copy.deepcopy(snn),
            torch.load(buffer, weights_only=False),
            load_network(tmp_path / "network.zip"),
        ]
        wanted = simulate(snn, x[:4], T=9)
        for one in copies:
            assert one.is_pure is pure
            assert one.obstacles == snn.obstacles
            assert torch.equal(simulate(one, x[:4], T=9), wanted)
            assert_agrees(one, x[:2], steps=3)


def test_the_report_has_widths_and_obstacles() -> None:
    converter = Converter([images()], weights="int8", T=20, progress=False)
    converter(cnn().eval())
    found = converter.report.integers
    assert found is not None
    assert (found.weights, found.steps) == ("int8", 20)
    assert [one.name for one in found.layers if one.kind == "neuron"] == ["2", "6"]
    assert converter.report.settings["weights"] == "int8"
    text = str(converter.report)
    assert "weights int8: sums take" in text
    assert "not pure:" in text
    assert json.loads(json.dumps(converter.report.as_dict()))["integers"]["weights"] == "int8"
    converter.normalize(cnn().eval())
    assert converter.report.integers is None


def test_diagnose_says_that_it_needs_floating_point() -> None:
    x, ann = images(), cnn().eval()
    with pytest.raises(InputError, match=r"computes with integers \(2 is an IntegerIF\).*without weights="):
        diagnose(ann, convert(ann, x, weights="int8"), [(x, ann(x).argmax(1))], T=4)


def test_evaluate_counts_the_spikes_of_the_reference() -> None:
    x, ann = images(6), cnn().eval()
    snn = convert(ann, images(), weights="int8")
    found = evaluate(snn, [(x, ann(x).argmax(1))], T=8, progress=False)
    run = integer_network(snn).run(x, T=8)
    assert found.spikes_per_sample == pytest.approx(sum(int(one.sum()) for one in run.spikes.values()) / 6)


def test_parts_of_a_network_become_integers() -> None:
    ann = nn.Sequential(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten()), nn.Tanh(), nn.Linear(144, 2)).eval()
    snn = convert(ann, images(), weights="int8", convert_only="0")
    assert snn.get_submodule("0").is_pure
    assert (simulate(snn, images(4), T=300) - ann(images(4))).shape == (4, 2)


def test_several_inputs_and_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.head = nn.Linear(4, 8), nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            hidden = torch.relu(self.one(x) + self.other(y))
            return {"spikes": hidden, "answer": self.head(hidden)}

    x, y = torch.randn(40, 4), torch.rand(40, 3) * 5
    snn = convert(Two().eval(), [(x, y)], weights="int8")
    run = assert_agrees(snn, x[:3], y[:3], steps=8)
    assert [one.shape for one in run.outputs] == [(8, 3, 8), (8, 3, 2)]


def test_what_reads_the_network_may_be_given_a_float_network_of_double_precision() -> None:
    snn = convert(cnn().eval().double(), images().double(), weights="int8")
    assert_agrees(snn, images(2).double(), steps=5)


def two_in_a_row(middle: list[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 16, 3), nn.ReLU()
    return nn.Sequential(*first, nn.Conv2d(16, 16, 3, groups=16), *middle, nn.Flatten(), nn.LazyLinear(8), nn.ReLU())


@pytest.mark.parametrize("weights", ["int4", "int8", "int16"])
@pytest.mark.parametrize("middle", [[], [nn.AvgPool2d(2)]], ids=["at once", "through a pool"])
def test_two_layers_without_an_activation_share_the_bits(middle: list[nn.Module], weights: str) -> None:
    ann, x = two_in_a_row(middle), torch.rand(40, 3, 8, 8)
    ann(x)
    snn = Converter([x], weights=weights, progress=False)(ann.eval())
    layers = [one for one in snn.modules() if isinstance(one, (nn.Conv2d, nn.Linear))]
    assert all(float(one.weight.detach().abs().max()) >= 3 for one in layers)
    assert relative_error(simulate(snn, x, 256), ann(x).detach()) < {"int4": 0.08, "int8": 0.02, "int16": 0.02}[weights]


def test_layers_in_a_row_that_leave_each_other_no_bits_are_refused() -> None:
    x = torch.rand(20, 64)
    wide = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.ReLU()).eval()
    with pytest.raises(IntegerError, match=r"1 \(Linear\).* the weights of both would share the 22 bits of a sum"):
        Converter([x], weights="int8", progress=False)(wide)
    layers = nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU()
    with pytest.raises(IntegerError, match=r"4 \(Linear\).* the weights of three layers would share"):
        Converter([x], weights="int4", progress=False)(nn.Sequential(*layers).eval())


def test_a_last_layer_without_weights_keeps_its_bias() -> None:
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.rand(20, 6)
    with torch.no_grad():
        ann[2].weight.zero_()  # type: ignore[operator]
    snn = Converter([x], weights="int8", progress=False)(ann)
    assert relative_error(simulate(snn, x, 4), ann(x).detach()) < 1e-3


def test_a_state_dict_holds_what_the_calibration_data_has_decided() -> None:
    ann = cnn().eval()
    one, other = (convert(ann, images() * scale - shift, weights="int8") for scale, shift in ((1.0, 0.0), (3.0, 1.0)))
    one = saturated(one, 20)
    other.load_state_dict(one.state_dict())
    networks = [integer_network(snn) for snn in (one, other)]
    rounded, neurons = ([list(network.of(kind)) for network in networks] for kind in (Input, Neuron))
    assert [(x.scale, x.low, x.high, x.shape) for x in rounded[1]] == [
        (x.scale, x.low, x.high, x.shape) for x in rounded[0]
    ]
    assert [x.bits for x in neurons[1]] == [20, 20]
    x = images(4)
    assert torch.equal(simulate(other, x, T=20), simulate(one, x, T=20))


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (nn.AvgPool2d(3, 2, ceil_mode=True), r"ceil_mode=True.*Set ceil_mode=False.*left over: \(1, 1\)"),
        (nn.AvgPool2d(2, padding=1, count_include_pad=False), r"count_include_pad=False.*Set count_include_pad=True"),
    ],
)
def test_average_pools_with_several_divisors_are_refused_with_what_to_do(pool: nn.Module, message: str) -> None:
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), pool, nn.Flatten(), nn.LazyLinear(2)
    ann = nn.Sequential(*layers)
    ann(images(1))
    with pytest.raises(IntegerError, match=rf"2 \(AvgPool2d\).*{message}"):
        convert(ann.eval(), images(), weights="int8")


def test_a_ceiling_without_effect_is_no_obstacle() -> None:
    ann = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2, ceil_mode=True), nn.Flatten()).eval()
    assert_agrees(convert(ann, images(), weights="int8"), images(2), steps=5)


class MixesPlaces(nn.Module):
    """A linear layer over the places of a convolution's output, whose channels stay apart."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear, self.last = nn.Conv1d(3, 24, 3, padding=1), nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        found: Tensor = self.last(torch.relu(self.linear(x)))
        return found


@pytest.mark.parametrize("channel_wise", [False, True])
def test_a_layer_that_mixes_other_dimensions_than_the_channels_reads_one_unit(channel_wise: bool) -> None:
    torch.manual_seed(0)
    ann, x = MixesPlaces(), torch.rand(64, 3, 4)
    snn = Converter([x], weights="int8", channel_wise=channel_wise, progress=False)(ann)
    assert relative_error(simulate(snn, x, T=200), ann(x).detach()) < 0.05
    assert_agrees(snn, x[:4], steps=20)
