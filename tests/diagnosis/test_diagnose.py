"""The split is exact, the answers are those of `simulate`, and what cannot be diagnosed is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    Converter,
    Delayed,
    InPlaceNeuron,
    InputError,
    NeuronMaker,
    NeuronSite,
    OptionError,
    diagnose,
    evaluate,
    simulate,
)
from sj_ann2snn.compat import make_if_neuron
from sj_ann2snn.diagnosis.network import SpikingNetwork, run_once
from sj_ann2snn.diagnosis.passes import checkpoints_until
from sj_ann2snn.diagnosis.split import TERMS, split
from sj_ann2snn.diagnosis.staircase import largest_output, mean_output
from tests.helpers.networks import GradedMaker, Written, randomized

T = 12


def convolutional() -> nn.Module:
    return randomized(
        nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 6, 3, padding=1), nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(54, 5)),
        )
    )


def images(count: int = 24) -> Tensor:
    return torch.rand(count, 1, 8, 8)


CONVERSIONS: dict[str, dict[str, Any]] = {
    "max": {"mode": "max"},
    "clipping": {"mode": 0.4, "initial_potential": 0.5},
    "channels": {"mode": "99%", "channel_wise": True},
    "momentum": {"maxpool": "momentum"},
    "pre-spike": {"maxpool": "pre-spike"},
    "kept BatchNorm": {"fuse_flag": False},
    "graded": {"neuron": GradedMaker()},
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_terms_add_up_and_answers_are_those_of_simulate(name: str) -> None:
    ann, x = convolutional(), images()
    snn = Converter([x], progress=False, **CONVERSIONS[name])(ann)
    labels = ann(x).argmax(1)
    found = diagnose(ann, snn, [(x, labels)], T, progress=False)
    with torch.no_grad():
        answer, wanted = simulate(snn, x, T), ann(x)
    assert found.divergence == pytest.approx(float((answer - wanted).norm() / wanted.norm()), rel=1e-4)
    result = evaluate(snn, [(x, labels)], T, progress=False)
    assert found.accuracy == result.accuracy[-1]
    assert found.accuracy_over_time[4] == result.accuracy[3]
    assert found.ann_accuracy == 1
    assert found.spikes == pytest.approx(result.spikes_per_sample)
    assert found.synops == pytest.approx(result.synops_per_sample)
    assert found.mismatch < 1e-5
    for layer in found:
        for terms in layer.over_time.values():
            assert terms["error"] <= sum(terms[term] for term in TERMS) + 1e-9
    assert found.layers[0].inherited < 1e-6
    assert found.layers[0].unevenness < 1e-6  # its current is constant


def test_the_terms_of_every_element_add_up_to_the_error() -> None:
    activation, wanted, rate = (torch.rand(3, 40, dtype=torch.float64) * 2 for _ in range(3))
    neuron = make_if_neuron(initial_potential=0.5)
    terms = split(activation, wanted, rate, torch.ones(1, 40, dtype=torch.float64), lambda x: mean_output(neuron, x, 8))
    torch.testing.assert_close(sum(terms.values()), activation - rate, rtol=0, atol=1e-15)
    assert tuple(terms) == TERMS


@pytest.mark.parametrize("start", [0.0, 0.5])
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_the_staircase_of_an_if_neuron(start: float, steps: int) -> None:
    drive = torch.linspace(0, 1, 33)[None] + 1e-4
    expected = (drive * steps + start).floor().clamp(max=steps) / steps
    neuron = make_if_neuron(initial_potential=start)
    torch.testing.assert_close(mean_output(neuron, drive, steps).float(), expected)
    assert bool((largest_output(neuron, drive, steps) == 1).all())


def test_all_layers_but_one_and_one_alone() -> None:
    ann, x = convolutional(), images()
    snn = Converter([x], mode=0.3, progress=False)(ann)
    found = diagnose(ann, snn, [x], T, progress=False)
    assert found.accuracy is None
    assert found.drop is None
    assert all(layer.alone_points is None for layer in found)
    single = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    x = torch.rand(20, 4)
    snn = Converter([x], mode=0.5, progress=False)(single)
    (layer,) = diagnose(single, snn, [x], T, progress=False)
    assert layer.all_but_this < 1e-5
    assert layer.alone == pytest.approx(layer.effect, rel=1e-3)


def test_the_network_without_time_is_the_ann() -> None:
    ann, x = convolutional(), images()
    network = SpikingNetwork(Converter([x], mode=0.3, channel_wise=True, progress=False)(ann))
    with torch.no_grad():
        torch.testing.assert_close(run_once(network.ann(), (x,)), ann(x), rtol=1e-4, atol=1e-5)


def test_several_outputs_and_inputs() -> None:
    def forward(net: Any, x: Tensor) -> Any:
        hidden = torch.relu(net.first(x))
        return {"one": net.second(hidden), "two": torch.relu(net.third(hidden))}

    ann = Written(forward, first=nn.Linear(4, 8), second=nn.Linear(8, 3), third=nn.Linear(8, 2)).eval()
    x = torch.rand(30, 4)
    snn = Converter([x], progress=False)(ann)
    found = diagnose(ann, snn, [(x, torch.zeros(30, dtype=torch.int64))], T, progress=False)
    assert [layer.name for layer in found] == ["relu", "relu#2"] or len(found.layers) == 2
    assert found.accuracy is None
    assert 0 < found.divergence < 1


def test_results_as_data_and_text() -> None:
    ann, x = convolutional(), images()
    snn = Converter([x], mode=0.3, progress=False)(ann)
    found = diagnose(ann, snn, [x], 8, readout=Delayed(delay=2), progress=False)
    data = json.loads(found.to_json(channels=True))
    assert data["T"] == 8
    assert data["readout"] == "delayed"
    assert [layer["name"] for layer in data["layers"]] == [layer.name for layer in found]
    assert len(data["layers"][0]["channels"]["clipping"]) == 4
    assert data["worst"][0] == found.worst[0].name
    assert "channels" not in found.to_dict()["layers"][0]
    text = str(found)
    assert text.splitlines()[0].startswith("layer ")
    assert found.verdict in text
    assert found.advice[0].call in text
    assert found._repr_html_().startswith("<table>")
    assert found["5"].name == "5"
    with pytest.raises(KeyError, match="'nothing' is no layer"):
        found["nothing"]


def test_pandas_on_demand() -> None:
    pytest.importorskip("pandas", reason="to_pandas needs it")
    ann, x = convolutional(), images()
    found = diagnose(ann, Converter([x], progress=False)(ann), [x], 4, progress=False)
    assert list(found.to_pandas().index) == [layer.name for layer in found]


class _Random(InPlaceNeuron):
    def step(self, x: Tensor, out: Tensor) -> None:
        out.copy_((torch.rand_like(x) < x).to(x.dtype))


class _RandomMaker(NeuronMaker):
    name = "random"
    resolution = 1.0

    def make(self, site: NeuronSite) -> nn.Module:
        return _Random()


def test_a_neuron_without_a_staircase_has_no_rounding() -> None:
    ann, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.rand(30, 4)
    snn = Converter([x], neuron=_RandomMaker(), progress=False)(ann)
    found = diagnose(ann, snn, [x], T, progress=False)
    assert found["1"].rounding is None
    assert "no staircase" in found["1"].missing["rounding"]
    assert found["1"].unevenness > 0
    assert any("1: rounding is not known" in note for note in found.notes)


def test_terms_that_fall_and_terms_that_stay() -> None:
    ann, x = nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 3)), torch.rand(60, 4)
    snn = Converter([x], mode=0.5, progress=False)(ann)
    (layer,) = diagnose(ann, snn, [x], 64, progress=False)
    assert layer.staying == ("clipping",)
    assert layer.shrinking == ("rounding",)
    assert checkpoints_until(1) == (1,)


def test_a_perfect_conversion_needs_nothing() -> None:
    ann, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.rand(30, 4)
    snn = Converter([x], mode="max", initial_potential=0.5, progress=False)(ann)
    found = diagnose(ann, snn, [x], 2000, progress=False)
    assert found.advice == ()
    assert "nothing needs to be mended" in found.verdict
    assert math.isfinite(found.layers[0].sqnr)


def refused(match: str, ann: Any, snn: Any, data: Any, steps: Any = 4, **arguments: Any) -> None:
    with pytest.raises(InputError, match=match):
        diagnose(ann, snn, data, steps, progress=False, **arguments)


def test_what_cannot_be_diagnosed_is_refused() -> None:
    ann, x = convolutional(), images()
    snn = Converter([x], progress=False)(ann)
    refused("not made of this ANN", convolutional(), snn, [x])
    refused("not made of this ANN", nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU()), snn, [x])
    refused("T=0", ann, snn, [x], 0)
    refused("T='4'", ann, snn, [x], "4")
    refused("samples=0", ann, snn, [x], samples=0)
    refused("is empty", ann, snn, [])
    refused("which is one batch at most", ann, snn, x)
    refused("holds no samples", ann, snn, [x[:0]])
    refused("The network cannot take", ann, snn, [torch.rand(4, 3)])
    refused("no labels", ann, snn, [x], labels=True)
    refused("one-hot|class", ann, snn, [(x, torch.rand(24))], labels=True)
    refused("out of range", ann, snn, [(x, torch.full((24,), 99))], labels=True)
    refused("takes the ANN first", snn, ann, [x])
    refused("takes the ANN first, a torch.nn.Module", "ann", snn, [x])
    refused("takes a converted network", ann, ann, [x])
    with pytest.raises(OptionError):
        diagnose(ann, snn, [x], 4, readout="nothing", progress=False)
    assert diagnose(ann, snn, [(x, torch.full((24,), 99))], 4, progress=False).accuracy is None


def test_a_network_without_neurons_is_refused() -> None:
    ann, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.rand(30, 4)
    refused("No layer of the network spikes", ann, Converter([x], progress=False).normalize(ann), [x])


def test_labels_that_do_not_belong_to_classes_are_left_out() -> None:
    ann, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)), torch.rand(30, 4)
    snn = Converter([x], progress=False)(ann)
    assert diagnose(ann, snn, [(x, torch.rand(30, 1))], 8, progress=False).accuracy is None
    refused("needs a classifier", ann, snn, [(x, torch.zeros(30, dtype=torch.int64))], labels=True)


def test_the_networks_are_left_as_they_are() -> None:
    ann, x = convolutional().train(), images()
    snn = Converter([x], progress=False)(ann)
    before = {name: value.clone() for name, value in (*ann.state_dict().items(), *snn.state_dict().items())}
    diagnose(ann, snn, [x], 4, progress=False)
    assert ann.training
    after = dict((*ann.state_dict().items(), *snn.state_dict().items()))
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert torch.equal(simulate(snn, x, 4), simulate(snn, x, 4))


def test_parts_of_the_data_add_up() -> None:
    ann, x = convolutional(), images(40)
    snn = Converter([x], mode=0.5, progress=False)(ann)
    whole = diagnose(ann, snn, [x], 8, progress=False)
    parts = diagnose(ann, snn, [x[:7], x[7:30], x[30:]], 8, progress=False)
    assert parts.samples == whole.samples == 40
    for one, other in zip(parts, whole, strict=True):
        assert one.error == pytest.approx(other.error, rel=1e-5)
        assert one.alone == pytest.approx(other.alone, rel=1e-4)
    assert diagnose(ann, snn, [x[:7], x[7:30], x[30:]], 8, samples=9, progress=False).samples == 9
