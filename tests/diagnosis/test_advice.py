"""What the advice of `diagnose` says and what it gives to paste."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, Normalization, diagnose
from sj_ann2snn.builtin.normalizations import Max, Percentile

from ..helpers.networks import GradedMaker


def deep() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(6):
        layers += [nn.Linear(16, 16), nn.ReLU()]
    ann = nn.Sequential(*layers, nn.Linear(16, 4)).eval()
    with torch.no_grad():
        for number in range(0, 12, 2):
            ann[number].weight.mul_(2.0)  # type: ignore[operator, union-attr]
    return ann


def images() -> Tensor:
    torch.manual_seed(1)
    return torch.rand(60, 16)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, ""),
        ({"metric": "mse", "against_ann": True}, ', metric="mse", ann=ann'),
        ({"against_ann": True}, ', metric="agreement", ann=ann'),
        ({"metric": lambda output, target: 0.5}, ", metric=metric"),
    ],
)
def test_the_call_to_evaluate_measures_what_was_diagnosed(arguments: dict[str, Any], text: str) -> None:
    ann, x = deep(), images()
    snn = Converter([x], mode="max", channel_wise=True, initial_potential=0.5, progress=False)(ann)
    found = diagnose(ann, snn, [(x, ann(x).argmax(1))], T=8, progress=False, **arguments)
    calls = [one.call for one in found.advice if one.call.startswith("evaluate(")]
    assert calls
    assert all(f", T={8 if 'readout' in call else 32}{text}" in call for call in calls)
    assert all(("metric=" in call) is bool(text) for call in calls)


def test_advice_says_where_a_neuron_comes_from_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SJ_ANN2SNN_LOAD_PLUGINS", "")
    ann, x = deep(), images()
    snn = Converter([x], mode=0.2, progress=False)(ann)
    found = diagnose(ann, snn, [x], T=32, progress=False)
    texts = [one.text for one in found.advice if one.cause == "clipping"]
    assert texts
    assert all('neuron="burst", from sj-ann2snn-burst' in text for text in texts if "burst" in text)
    assert any("burst" in text for text in texts)


class Own(Max):
    """A mode that no plugin registers."""

    name = "own"


@pytest.mark.parametrize(
    ("mode", "neuron", "written"),
    [
        (Percentile(99.5), "if", {"mode": "99.5%", "neuron": "if"}),
        (Own(), GradedMaker(), {"mode": "<your own Own", "neuron": "<your own GradedMaker"}),
    ],
)
def test_the_call_names_the_plugins_that_layers_got_as_objects(
    mode: Normalization, neuron: Any, written: dict[str, str]
) -> None:
    ann, x = deep(), images()
    converter = Converter([x], layers={"3": {"mode": mode, "neuron": neuron}}, progress=False)
    snn = converter(ann)
    found = snn.meta["ann2snn_conversion"]["call"]["layers"]["3"]
    for name, text in written.items():
        assert found[name].startswith(text)
        assert "<" not in text or found[name].endswith(": give it as an object>")
    if isinstance(mode, Percentile):  # what it says makes the same network again
        again = Converter([x], layers={"3": found}, progress=False)(ann)
        assert torch.equal(again.get_submodule("4").weight, snn.get_submodule("4").weight)
