"""Weights that corrections change, if the caller allows it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sj_ann2snn import (
    Converter,
    Correction,
    CorrectionError,
    OptionError,
    Trial,
    TrialLayer,
    TrialSite,
    diagnose,
    simulate,
)
from sj_ann2snn.conversion.correct import _Adjusted
from sj_ann2snn.distributed.packing import packed, unpacked

from ..helpers.integers import assert_agrees
from ..helpers.networks import Written, convert, multi_step, run_by_hand


class Custom(Correction):
    """Does what it is told."""

    name = "custom"

    def __init__(self, does: Callable[[Trial], Any] = lambda trial: None) -> None:
        self.does = does

    def correct(self, trial: Trial) -> None:
        self.does(trial)


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=False),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=3, padding=1, padding_mode="circular"),
        nn.ReLU6(),
        nn.Flatten(),
        nn.Linear(486, 3),
    )


def residual() -> nn.Module:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = torch.relu(net.stem(x))
        y = net.second(F.leaky_relu(net.first(input=x), 0.2))
        return net.head(net.pool(torch.relu(y + net.shortcut(x))).flatten(1))

    return Written(
        forward,
        stem=nn.Conv2d(2, 4, 3, padding=1),
        first=nn.Conv2d(4, 4, 3, padding=1, bias=False),
        second=nn.Conv2d(4, 4, 3, padding=1, bias=False),
        shortcut=nn.Conv2d(4, 4, 1),
        pool=nn.MaxPool2d(2),
        head=nn.Linear(36, 3),
    )


def reused() -> nn.Module:
    return Written(
        lambda net, x: net.head(torch.relu(net.body(torch.relu(net.body(torch.relu(net.stem(x))))))),
        stem=nn.Conv2d(2, 4, 3),
        body=nn.Conv2d(4, 4, 3, padding=1),
        head=nn.Conv2d(4, 2, 1),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "grouped and transposed": grouped,
    "residual": residual,
    "reused": reused,
    "last dimension": lambda: nn.Sequential(
        nn.Flatten(2), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 5, bias=False), nn.ReLU(), nn.Linear(5, 3)
    ),
    "one dimension": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AvgPool1d(2)),
}


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def images(samples: int = 20) -> Tensor:
    return torch.randn(samples, 2, 6, 6, dtype=torch.float64)


def other_weights(layer: TrialLayer) -> Tensor:
    return layer.weight + 0.1 * layer.weight.std() * torch.randn_like(layer.weight)


def shake(trial: Trial) -> None:
    """Other weights everywhere, and other scales, biases and potentials."""
    for layer in trial.layers:
        trial.adjust_weight(layer.name, other_weights(layer))
    for site in trial.sites:
        trial.adjust(
            site.name,
            scale=0.8 + 0.4 * torch.rand_like(site.scale),
            bias=0.1 * torch.randn_like(site.bias),
            initial_potential=torch.rand(site.shape, dtype=site.scale.dtype),
        )
    for output in trial.outputs:
        if output.adjustable:
            trial.adjust_output(0.1 * torch.randn_like(output.bias), output.name)


def tuned(ann: nn.Module, x: Tensor, does: Callable[[Trial], Any], **options: Any) -> Any:
    options = {"mode": 0.93, "channel_wise": True, "weights": "tuned", **options}
    return convert(ann, x, corrections=Custom(does), **options)


def as_ann(site: TrialSite, currents: Tensor) -> Tensor:
    """What the ANN's activation makes of the currents."""
    bound = None if site.largest_scale is None else site.along_channels(site.largest_scale)
    return currents.relu() if bound is None else currents.relu().minimum(bound)


@pytest.mark.parametrize("channel_wise", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_that_is_built_is_the_one_that_was_tried(name: str, channel_wise: bool) -> None:
    ann, x, steps = NETWORKS[name]().double().eval(), images(), 7
    tried: list[Tensor] = []

    def correct(trial: Trial) -> None:
        shake(trial)
        tried.append(trial.run(x, steps))

    snn = tuned(ann, x, correct, channel_wise=channel_wise)
    torch.testing.assert_close(run_by_hand(snn, x, steps), tried[0])
    torch.testing.assert_close(multi_step(snn, x, steps), tried[0])
    torch.testing.assert_close(simulate(snn, x, steps), tried[0].mean(0))


@pytest.mark.parametrize("channel_wise", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_weights_are_in_the_units_of_the_ann(name: str, channel_wise: bool) -> None:
    """With the ANN's activations in place of the neurons, the network on trial is the ANN with these weights."""
    ann, x = NETWORKS[name]().double().eval(), images()
    other = copy.deepcopy(ann)

    def compare(trial: Trial) -> None:
        weights = {layer.name: other_weights(layer) for layer in trial.layers}
        # A module that is called twice has the same weights in the ANN.
        weights |= {key: weights[key.partition("#")[0]] for key in weights}
        for key, weight in weights.items():
            other.get_submodule(key.partition("#")[0]).weight.data.copy_(weight)
        torch.testing.assert_close(trial.run(x, 1, as_ann, weights=weights)[0], other(x))
        for key, weight in weights.items():
            trial.adjust_weight(key, weight)
        torch.testing.assert_close(trial.run(x, 1, as_ann)[0], other(x))

    tuned(ann, x, compare, channel_wise=channel_wise)


@pytest.mark.parametrize("name", ["grouped and transposed", "residual", "reused", "last dimension"])
def test_gradients_reach_weights(name: str) -> None:
    """They are those of finite differences, with a smooth activation in place of the neurons."""
    x = images()

    def check(trial: Trial) -> None:
        generator = torch.Generator().manual_seed(1)
        names = [layer.name for layer in trial.layers]
        directions = [torch.randn(layer.shape, generator=generator).double() for layer in trial.layers]

        def moved(*along: Tensor) -> Tensor:
            """The answers with every layer's weights moved along its direction."""
            weights = {
                layer.name: layer.weight + step * direction
                for layer, step, direction in zip(trial.layers, along, directions, strict=True)
            }
            answer: Tensor = trial.run(x[:2], 2, lambda site, currents: F.softplus(currents), weights=weights)
            return answer.square().mean()

        starts = [torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in names]
        assert torch.autograd.gradcheck(moved, starts)

    tuned(NETWORKS[name]().double().eval(), x, check)


def test_the_weights_of_the_ann_change_no_bit() -> None:
    x = images()

    def check(trial: Trial) -> None:
        own = {layer.name: layer.weight.clone() for layer in trial.layers}
        assert torch.equal(trial.run(x, 5, weights=own), trial.run(x, 5))

    ann = residual().double()
    before = convert(ann, x, mode=0.93, channel_wise=True, corrections=Custom()).state_dict()
    after = tuned(ann, x, check).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize("name", NETWORKS)
def test_arriving_inputs_are_in_the_units_of_the_ann(name: str) -> None:
    ann, x = NETWORKS[name]().double().eval(), images()

    def look(trial: Trial) -> None:
        seen: dict[str, Tensor] = {}
        wanted = trial.activations(x).layers
        trial.run(x, 3, as_ann, arriving=lambda layer, inputs: seen.update({layer.name: inputs}))
        assert list(seen) == list(wanted) == [layer.name for layer in trial.layers]
        assert len(seen[trial.layers[0].name]) == 1
        for layer in trial.layers:
            torch.testing.assert_close(layer.compute(seen[layer.name][-1]), wanted[layer.name])

    tuned(ann, x, look)


def test_what_is_adjusted_on_arrival_takes_effect_there() -> None:
    x, answers = images(), list[Tensor]()

    def correct(trial: Trial) -> None:
        answers.append(
            trial.run(x, 4, arriving=lambda layer, inputs: trial.adjust_weight(layer.name, 0.5 * layer.weight))
        )
        answers.append(trial.run(x, 4))

    tuned(residual().double(), x, correct)
    assert torch.equal(*answers)


def test_batchnorm_is_absorbed_and_the_ann_stays_as_it_is() -> None:
    ann = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()
    nn.init.uniform_(ann[1].weight, 0.5, 2)
    ann[1].running_var.uniform_(0.5, 2)
    before, seen = copy.deepcopy(ann.eval().state_dict()), list[Tensor]()

    def correct(trial: Trial) -> None:
        seen.append(trial.layer("0").weight.clone())
        trial.layer("0").module.weight.zero_()  # of a copy
        shake(trial)

    tuned(ann, images(), correct)
    factor = ann[1].weight / (ann[1].running_var + ann[1].eps).sqrt()
    torch.testing.assert_close(seen[0], ann[0].weight.data * factor.data.view(-1, 1, 1, 1))
    assert all(torch.equal(value, before[name]) for name, value in ann.state_dict().items())


def test_half_precision_is_tuned_in_single_precision() -> None:
    ann, x = grouped().half(), images().half()
    snn = tuned(ann, x, shake)
    assert {value.dtype for value in snn.parameters()} == {torch.float32}
    assert all(one.dtype == torch.float16 for one in ann.parameters())


def test_the_report_says_what_was_changed_by_whom_and_how_far() -> None:
    def first(trial: Trial) -> None:
        trial.adjust_weight("stem", 1.25 * trial.layer("stem").weight)

    def second(trial: Trial) -> None:
        for name in ("stem", "head"):
            trial.adjust_weight(name, 2 * trial.layer(name).weight)

    corrections = [Custom(first), Custom(second), Custom()]
    converter = Converter([images()], corrections=corrections, weights="tuned", progress=False)
    converter(reused().double())
    who = "Correction 'custom' (your own argument)"
    (stem, head) = converter.report.tuned
    assert (stem.name, stem.by, head.name, head.by) == ("stem", (who, who), "head", (who,))
    assert (stem.change, head.change) == (pytest.approx(1.5), pytest.approx(1.0))
    assert f"weights changed by {who}, each by this share of their norm: head (1)" in str(converter.report)
    assert json.loads(json.dumps(converter.report.as_dict()))["tuned"][1]["name"] == "head"


def test_weights_are_sent_to_other_processes() -> None:
    found: dict[str, Any] = {}

    def correct(trial: Trial) -> None:
        shake(trial)
        sent = unpacked(packed(_Adjusted.of(trial, (), ())))
        found["weights"] = {layer.name: layer.weight for layer in trial.layers}
        for layer in trial.layers:
            layer.weight = torch.zeros_like(layer.weight)
        sent.put_into(trial)
        found["received"] = {layer.name: layer.weight for layer in trial.layers}

    tuned(residual().double(), images(), correct)
    assert len(found["weights"]) == 5
    assert all(torch.equal(found["received"][name], weight) for name, weight in found["weights"].items())


def test_the_report_says_that_nothing_used_the_permission() -> None:
    for weights, said in ((None, False), ("tuned", True)):
        converter = Converter([images()], weights=weights, progress=False)
        converter(residual().double().eval())
        assert ("no weights were changed, because no correction in use" in str(converter.report)) == said
    converter = Converter([images()], corrections=Custom(shake), weights="tuned", progress=False)
    converter(residual().double().eval())
    assert "no weights were changed" not in str(converter.report)


def test_integers_are_made_of_the_tuned_weights() -> None:
    def double(trial: Trial) -> None:
        for layer in trial.layers:
            trial.adjust_weight(layer.name, layer.weight * torch.where(layer.weight > 0, 2.0, 1.0))

    ann, x = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.ReLU(), nn.Linear(8, 3)), images().float()
    plain = convert(ann, x, weights="int8")
    converter = Converter([x], corrections=Custom(double), weights="tuned-int8", progress=False)
    snn = converter(ann)
    assert converter.report.integers is not None
    assert converter.report.integers.weights == "int8"
    assert [one.name for one in converter.report.tuned] == ["1", "3"]
    assert not torch.equal(snn.get_submodule("3").weight, plain.get_submodule("3").weight)
    assert_agrees(snn, x[:2], steps=4)


def test_a_diagnosis_takes_a_network_with_other_weights_for_that_of_the_ann() -> None:
    ann, x = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.ReLU(), nn.Linear(8, 3)), images().float()

    def double(trial: Trial) -> None:
        trial.adjust_weight("1", -trial.layer("1").weight)

    snn = tuned(ann, x, double)
    assert "mismatch" not in [one.cause for one in diagnose(ann, snn, [x], T=4, progress=False).advice]


# Errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "does",
    [
        lambda trial: trial.adjust_weight("stem", torch.zeros(4, 2, 3, 3)),
        lambda trial: trial.run(trial.inputs(2), 2, weights={"stem": torch.zeros(4, 2, 3, 3)}),
        lambda trial: trial.layer("stem"),
    ],
)
def test_weights_stay_unless_the_caller_allows_their_change(does: Callable[[Trial], Any]) -> None:
    def correct(trial: Trial) -> None:
        assert not trial.tunes_weights
        assert trial.layers == ()
        does(trial)

    with pytest.raises(CorrectionError, match=r"weights of 'stem' may not change.*Converter\(..., weights='tuned'\)"):
        convert(reused().double(), images(), corrections=Custom(correct))


def test_arriving_inputs_are_shown_only_where_weights_may_change() -> None:
    def correct(trial: Trial) -> None:
        trial.run(trial.inputs(2), 2, arriving=lambda layer, inputs: None)

    with pytest.raises(CorrectionError, match=r"run\(arriving=...\).*weights='tuned'"):
        convert(reused().double(), images(), corrections=Custom(correct))


@pytest.mark.parametrize(
    ("name", "weight", "message"),
    [
        ("stem", torch.zeros(4, 2), r"weight of stem was set to a tensor of shape \(4, 2\).*\(4, 2, 3, 3\)"),
        ("stem", torch.full((4, 2, 3, 3), torch.nan), "weight of stem was set to a value that is not finite"),
        ("stem", torch.ones(4, 2, 3, 3, dtype=torch.int64), "weight of stem was set to torch.int64.*floating point"),
        ("stem", 3.0, "weight of stem was set to 3.0; it must be a tensor of shape"),
        ("steam", torch.zeros(4, 2, 3, 3), "'steam' is not a layer whose weights may change; these are stem, body"),
    ],
)
def test_wrong_weights_are_refused(name: str, weight: Any, message: str) -> None:
    for does in (
        lambda trial: trial.adjust_weight(name, weight),
        lambda trial: trial.run(trial.inputs(2), 2, weights={name: weight}),
    ):
        with pytest.raises(CorrectionError, match=message):
            tuned(reused().double(), images(), does)


def test_weights_written_behind_the_back_are_checked() -> None:
    def correct(trial: Trial) -> None:
        trial.layers[0].weight = torch.zeros(3)

    with pytest.raises(CorrectionError, match=r"left a weight of shape \(3,\) in stem.*keep its shape, \(4, 2, 3, 3\)"):
        tuned(reused().double(), images(), correct)


@pytest.mark.parametrize("weights", ["tune", "tuned-int7", ("tuned", "int8"), True])
def test_unknown_weights_are_refused_with_all_that_are_allowed(weights: Any) -> None:
    with pytest.raises(OptionError, match=r"is not known. Allowed are 'int4'.*'tuned', to let.*'tuned-int8'.*None"):
        Converter([images()], weights=weights)
