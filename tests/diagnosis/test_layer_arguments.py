"""Advice for one layer changes that layer only, whatever the network was converted with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sj_ann2snn import Converter, diagnose
from sj_ann2snn.diagnosis.layer_arguments import arguments_at, carried_out, for_layers
from tests.helpers.diagnoses import HOSTILE
from tests.helpers.networks import Written, randomized


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"a.relu": {"mode": "max"}}),
        ({"b.*": {"mode": "99%"}}, {"b.*": {"mode": "99%"}, "a.relu": {"mode": "max"}}),
        # The layer keeps what it has.
        ({"a.relu": {"levels": 4}}, {"a.relu": {"levels": 4, "mode": "max"}}),
        # What a later pattern says of the layer still holds, and what it says of others.
        (
            {"a.relu": {"levels": 4, "neuron": "burst"}, "*": {"levels": 8}},
            {"*": {"levels": 8}, "a.relu": {"levels": 8, "neuron": "burst", "mode": "max"}},
        ),
    ],
)
def test_the_layer_comes_last_and_keeps_its_own(given: dict[str, Any], expected: dict[str, Any]) -> None:
    call = {"mode": "99.9%", "layers": given} if given else {"mode": "99.9%"}
    found = for_layers(call, ["a.relu"], {"mode": "max"})
    assert found == {"layers": expected}
    assert list(found["layers"]) == list(expected)
    before, after = arguments_at(call, "a.relu"), arguments_at({**call, **found}, "a.relu")
    assert after == {**before, "mode": "max"}
    assert arguments_at({**call, **found}, "b.relu") == arguments_at(call, "b.relu")


def test_both_neurons_of_an_activation_are_one_layer_and_names_are_no_patterns() -> None:
    assert for_layers({}, ["a_negative", "b[0]*"], {"mode": "max"}) == {
        "layers": {"a": {"mode": "max"}, "b[[]0][*]": {"mode": "max"}}
    }


def test_what_a_layer_has_of_its_own_is_not_hidden_by_a_remedy_for_all() -> None:
    call = {"mode": "max", "layers": {"pool": {"maxpool": "avg"}}}
    assert carried_out(call, "pool", {"maxpool": "cumulative"}) == {"layers": {"pool": {"maxpool": "cumulative"}}}
    assert carried_out(call, "other", {"maxpool": "cumulative"}) == {"maxpool": "cumulative"}


@pytest.mark.parametrize("given", [5, "a", None, {"a": 3}, {"a": {}}, {"a": {"T": 8}}, {3: {"mode": "max"}}])
def test_what_a_changed_file_says_is_left_out(given: Any) -> None:
    call = {"mode": "max", "layers": given}
    assert arguments_at(call, "a") == {"mode": "max"}
    assert for_layers(call, ["a"], {"mode": 0.5}) == {"layers": {"a": {"mode": 0.5}}}


def several_forms() -> nn.Module:
    """Activations as modules, functions and methods, behind a pool, of both signs, with a hostile name."""

    def forward(net: Any, x: Tensor) -> Any:
        x = F.relu(net.first(x))
        x = net._modules[HOSTILE](net.second(x))
        x = net.activation(net.pool(net.third(x)))
        return net.head(net.fourth(x.flatten(1)).relu())

    net = Written(
        forward,
        first=nn.Conv2d(1, 4, 3, padding=1),
        second=nn.Conv2d(4, 4, 3, padding=1),
        third=nn.Conv2d(4, 4, 3, padding=1),
        pool=nn.MaxPool2d(2),
        activation=nn.LeakyReLU(0.1),
        fourth=nn.Linear(64, 8),
        head=nn.Linear(8, 5),
    )
    net.add_module(HOSTILE, nn.ReLU6())
    return randomized(net)


@pytest.mark.parametrize("convert_only", [None, "0"])
def test_every_layer_that_a_diagnosis_names_can_be_given_arguments(convert_only: str | None) -> None:
    ann, x = several_forms(), torch.rand(20, 1, 8, 8)
    made_with: dict[str, Any] = {"mode": "max", "progress": False}
    if convert_only is not None:
        ann = nn.Sequential(ann, nn.Tanh()).eval()
        made_with["convert_only"] = convert_only
    plain = diagnose(ann, Converter([x], **made_with)(ann), [x], 4, progress=False)
    assert len(plain.layers) >= 4
    for layer in plain.layers:
        other = Converter([x], **made_with, **for_layers({}, [layer.name], {"mode": 0.5}))(ann)
        found = diagnose(ann, other, [x], 4, progress=False)
        changed = {one.name.removesuffix("_negative") for one in found if one.scale != plain[one.name].scale}
        assert changed == {layer.name.removesuffix("_negative")}


def test_advice_for_one_layer_keeps_the_settings_of_the_others() -> None:
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
    x = torch.rand(200, 8)
    layers = {"1": {"mode": "99.99%"}, "[3]": {"mode": 0.1}}
    snn = Converter([x], mode="max", layers=layers, progress=False)(ann)
    advice = diagnose(ann, snn, [x], 64, progress=False).advice[0]
    assert (advice.layer, advice.cause) == ("3", "clipping")
    found = advice.arguments["layers"]
    assert list(found) == ["1", "[3]", "3"]
    assert {name: found[name] for name in layers} == layers
    made = eval(advice.call, {"Converter": Converter, "calibration_loader": [x], "ann": ann})
    again = diagnose(ann, made, [x], 64, progress=False)
    assert again["3"].clipping < 0.02
    assert again["1"].scale == diagnose(ann, snn, [x], 64, progress=False)["1"].scale


def test_a_pool_with_a_setting_of_its_own_is_mended_there() -> None:
    ann = randomized(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 8), nn.ReLU())
    )
    x = torch.rand(30, 1, 8, 8)
    snn = Converter([x], mode="max", layers={"2": {"maxpool": "momentum"}}, progress=False)(ann)
    found = diagnose(ann, snn, [x], 32, progress=False)
    (advice,) = [one for one in found.advice if one.cause == "maxpool"]
    assert advice.arguments == {"layers": {"2": {"maxpool": "cumulative"}}}
    mended = Converter([x], mode="max", progress=False, **advice.arguments)(ann)
    assert diagnose(ann, mended, [x], 32, progress=False).divergence < found.divergence
