"""Plants a fault in one layer: it comes first, and what the diagnosis names mends it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("sklearn", reason="the networks are trained on scikit-learn's digits")

from sj_ann2snn import Converter, Delayed, Diagnosis, QuietLayerWarning, diagnose, evaluate
from tests.diagnosis.planted import NETWORKS, DeadChannels, LateMaker, Planted, digits, trained
from tests.helpers.plugins import of_repository

pytestmark = pytest.mark.filterwarnings("ignore::sj_ann2snn.QuietLayerWarning")

LAYERS = {
    "linear": ("2", "6"),
    "convolutional": ("9",),
    "residual": ("relu1",),
    "bounded": ("7",),
    "two-sided": ("2", "4"),
    "deep": ("4", "10"),
}
T = 32


def calibration() -> list[torch.Tensor]:
    return [digits()[0][:400]]


def held_out() -> list[Any]:
    _, _, images, labels = digits()
    return [(images, labels)]


def converted(ann: nn.Module, **arguments: Any) -> nn.Module:
    return Converter(calibration(), progress=False, **arguments)(ann)


def accuracy(snn: nn.Module, steps: int = T, **arguments: Any) -> float:
    return evaluate(snn, held_out(), steps, progress=False, **arguments).accuracy[-1]


def looked_at(ann: nn.Module, snn: nn.Module, steps: int = T) -> Diagnosis:
    return diagnose(ann, snn, held_out(), steps, samples=120, progress=False)


def only(layer: str, found: Diagnosis) -> dict[str, Any]:
    """What the first advice gives `layer`; it must leave the other layers as they are."""
    assert found.advice[0].arguments.keys() == {"layers"}
    assert found.advice[0].arguments["layers"].keys() == {layer}
    assert f'layers={{"{layer}": {{' in found.advice[0].call
    assert " in this layer" in found.advice[0].text
    return dict(found.advice[0].arguments["layers"][layer])


def mended(ann: nn.Module, diagnosis: Diagnosis, made_with: dict[str, Any]) -> float:
    """The accuracy with the arguments that the first advice names."""
    arguments = dict(diagnosis.advice[0].arguments)
    steps = arguments.pop("T", diagnosis.T)
    return accuracy(converted(ann, **{**made_with, **arguments}), steps)


def cases() -> Iterator[tuple[str, str]]:
    return ((name, layer) for name, layers in LAYERS.items() for layer in layers)


def test_every_network_is_tried() -> None:
    assert LAYERS.keys() == NETWORKS.keys()
    assert issubclass(QuietLayerWarning, Warning)


@pytest.mark.parametrize(("name", "layer"), list(cases()))
def test_a_scale_that_is_too_small_clips(name: str, layer: str) -> None:
    ann, made_with = trained(name), {"mode": Planted(layer, 0.05), "initial_potential": 0.5}
    snn = converted(ann, **made_with)
    found = looked_at(ann, snn)
    assert found.worst[0].name == found.advice[0].layer == layer
    assert found.advice[0].cause == "clipping"
    assert "clipping" in found[layer].staying
    assert only(layer, found).keys() <= {"mode", "channel_wise"}
    assert mended(ann, found, made_with) >= max(accuracy(snn) + 0.05, found.ann_accuracy - 0.03)


@pytest.mark.parametrize(
    ("name", "layer"), [("linear", "6"), ("convolutional", "9"), ("residual", "relu1"), ("two-sided", "2")]
)
def test_a_scale_that_an_outlier_makes_too_large_silences(name: str, layer: str) -> None:
    ann, made_with = trained(name), {"mode": Planted(layer, 30.0), "initial_potential": 0.5}
    snn = converted(ann, **made_with)
    found = looked_at(ann, snn)
    assert found.worst[0].name == found.advice[0].layer == layer
    assert found.advice[0].cause in ("silence", "rounding")
    assert "rounding" in found[layer].own
    assert "mode" in only(layer, found)
    assert mended(ann, found, made_with) >= max(accuracy(snn), found.ann_accuracy - 0.06)


@pytest.mark.parametrize("mode", ["max", 0.5])
@pytest.mark.parametrize(("name", "factor"), [("linear", 64.0), ("convolutional", 64.0)])
def test_the_mode_that_an_outlier_in_the_calibration_data_misled_is_not_advised_again(
    name: str, factor: float, mode: Any
) -> None:
    """The samples lack the outlier, so by them the same mode would find a small λ."""
    ann, images = trained(name), digits()[0].clone()  # a single image is below the percentiles advised
    images[0] *= factor
    snn = Converter([images], mode=mode, progress=False)(ann)
    found = looked_at(ann, snn)
    advised = found.advice[0].arguments
    assert advised.get("mode", mode) != mode
    again = Converter([images], progress=False, **{"mode": mode, **advised})(ann)
    assert accuracy(again) >= found.ann_accuracy - 0.06 > accuracy(snn)


@pytest.mark.parametrize(("name", "layer"), [("linear", "4"), ("convolutional", "6"), ("residual", "relu2")])
def test_dead_channels_are_silent(name: str, layer: str) -> None:
    ann = trained(name)
    made_with = {"mode": DeadChannels(layer, 200.0), "channel_wise": True, "initial_potential": 0.5}
    snn = converted(ann, **made_with)
    found = looked_at(ann, snn)
    assert found.worst[0].name == found.advice[0].layer == layer
    assert found.advice[0].cause == "silence"
    silent = found[layer].channels["silent"]
    assert sum(silent[::2]) / len(silent[::2]) > sum(silent[1::2]) / len(silent[1::2])
    assert "mode" in only(layer, found)
    assert mended(ann, found, made_with) >= max(accuracy(snn), found.ann_accuracy - 0.06)


@pytest.mark.parametrize(
    ("name", "norm", "layer"),
    [("convolutional", "5", "6"), ("residual", "norm1", "relu1"), ("residual", "norm3", "relu3")],
)
def test_a_wrong_batchnorm_computes_something_else(name: str, norm: str, layer: str) -> None:
    ann = trained(name)
    wrong = copy.deepcopy(ann)
    wrong.get_submodule(norm).running_mean += 0.7
    snn = converted(wrong, mode="99.9%", initial_potential=0.5)
    found = looked_at(ann, snn)
    assert found.worst[0].name == found.advice[0].layer == layer
    assert found.advice[0].cause == "batchnorm"
    assert f"{norm} in front of {layer}" in found.advice[0].text
    again = converted(ann, mode="99.9%", initial_potential=0.5)
    assert looked_at(ann, again).divergence < found.divergence / 2
    assert accuracy(again) >= accuracy(snn)


def stale(name: str, how: str) -> nn.Module:
    """A trained network whose own statistics do not fit the data."""
    ann = copy.deepcopy(trained(name))
    for module in ann.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            if how == "never updated":
                module.reset_running_stats()
            else:
                module.running_mean[::2] += 2 * module.running_var.sqrt()[::2]
                module.running_mean[1::2] -= 2 * module.running_var.sqrt()[1::2]
                if how == "scaled":
                    module.running_var.mul_(30)
    return ann


@pytest.mark.parametrize("labels", [None, False])
@pytest.mark.parametrize("how", ["never updated", "shifted", "scaled"])
@pytest.mark.parametrize(("name", "norm"), [("convolutional", "1"), ("residual", "norm1")])
def test_statistics_of_the_ann_that_do_not_fit_the_data(name: str, norm: str, how: str, labels: bool | None) -> None:
    ann = stale(name, how)
    snn = converted(ann, mode="99.9%", initial_potential=0.5)
    found = diagnose(ann, snn, held_out(), T, samples=120, labels=labels, progress=False)
    assert "a part that computes something else" not in found.verdict
    (advice,) = [one for one in found.advice if one.cause == "batchnorm"]
    assert advice == found.advice[-1]
    assert (advice.layer, advice.arguments, advice.gain) == (norm, {}, 0)
    assert ("were never updated" in advice.text) == (how == "never updated")
    assert "BatchNorms behind it" in advice.text or "BatchNorm" in advice.text
    assert "reset_running_stats()" in advice.text
    if labels is None:
        assert f"top1 {found.ann_accuracy:.4g}, and " in advice.text
    # What the text says mends it.
    for module in ann.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
            module.train()
    with torch.no_grad():
        ann(calibration()[0])
    ann.eval()
    again = converted(ann, mode="99.9%", initial_potential=0.5)
    mended = diagnose(ann, again, held_out(), T, samples=120, progress=False)
    assert not [one for one in mended.advice if one.cause == "batchnorm"]
    assert accuracy(again) > accuracy(snn) + 0.02


@pytest.mark.parametrize("name", ["convolutional", "residual"])
def test_statistics_that_fit_are_left_alone(name: str) -> None:
    ann = trained(name)
    snn = converted(ann, mode="99.9%", initial_potential=0.5)
    for samples in (10, 32, 120):
        for labels in (None, False):
            found = diagnose(ann, snn, held_out(), 4, samples=samples, labels=labels, progress=False)
            assert "batchnorm" not in {one.cause for one in found.advice}


@pytest.mark.parametrize("name", ["linear", "bounded", "residual"])
def test_too_few_steps_round(name: str) -> None:
    ann = trained(name)
    snn = converted(ann, mode="99.9%", initial_potential=0.5)
    found = looked_at(ann, snn, 2)
    assert found.advice[0].cause == "rounding"
    assert "T=8" in found.advice[0].text
    assert mended(ann, found, {"mode": "99.9%", "initial_potential": 0.5}) > accuracy(snn, 2)


def test_an_uneven_input_makes_the_layer_behind_uneven() -> None:
    ann = trained("linear")
    snn = converted(ann, mode="max", neuron=LateMaker("4", 16))
    found = looked_at(ann, snn)
    assert found.worst[0].name == found.advice[0].layer == "6"
    assert found.advice[0].cause == "unevenness"
    assert found["4"].unevenness < found["6"].unevenness / 2
    assert 'neuron="signed"' in found.advice[0].text
    later = looked_at(ann, snn, 4 * T)
    assert later["6"].unevenness < found["6"].unevenness / 2
    assert accuracy(snn, 4 * T) >= accuracy(snn)


UNEVEN = [
    ("convolutional", "2", "6", ("9",)),
    ("residual", "relu2", "relu3", ()),
    ("two-sided", "2", "4", ()),
    ("deep", "4", "6", ("8",)),
    ("deep", "6", "8", ("10",)),
]
"""Networks, the layer whose spikes come late, that which they reach, and those behind it."""


@pytest.mark.parametrize(("name", "late", "layer", "behind"), UNEVEN)
def test_neurons_that_take_spikes_back_mend_an_uneven_input(
    name: str, late: str, layer: str, behind: tuple[str, ...]
) -> None:
    ann, signed = trained(name), [of_repository("signed")]
    made_with = {"mode": "max", "neuron": LateMaker(late, 28, 16), "plugins": signed}
    snn = converted(ann, **made_with)
    found = diagnose(ann, snn, held_out(), T, samples=120, plugins=signed, progress=False)
    advice = found.advice[0]
    assert (found.worst[0].name, advice.layer, advice.cause) == (layer, layer, "unevenness")
    # The late neurons themselves stay as they are.
    assert advice.arguments == {"layers": {one: {"neuron": "signed"} for one in (layer, *behind)}}
    assert ("which it feeds" in advice.text) == bool(behind)
    assert mended(ann, found, made_with) > accuracy(snn) + 0.05


@pytest.mark.parametrize(("name", "late", "layer"), [*(one[:3] for one in UNEVEN), ("linear", "4", "6")])
def test_without_such_neurons_more_steps_mend_an_uneven_input(
    name: str, late: str, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SJ_ANN2SNN_LOAD_PLUGINS", "")  # built-ins only
    ann, made_with = trained(name), {"mode": "max", "neuron": LateMaker(late, 28, 16)}
    snn = converted(ann, **made_with)
    found = looked_at(ann, snn)
    advice = found.advice[0]
    assert (advice.layer, advice.cause, advice.arguments) == (layer, "unevenness", {"T": 4 * T})
    assert mended(ann, found, made_with) > accuracy(snn) + 0.02


def test_where_most_layers_are_uneven_the_remedy_is_for_all() -> None:
    ann, signed = trained("residual"), [of_repository("signed")]
    made_with = {"mode": "max", "initial_potential": 0.5, "plugins": signed}
    snn = converted(ann, **made_with)
    found = diagnose(ann, snn, held_out(), 8, samples=120, plugins=signed, progress=False)
    (advice,) = [one for one in found.advice if one.cause == "unevenness"][:1]
    assert advice.arguments == {"neuron": "signed"}


def test_a_max_pool_by_momentum_comes_first() -> None:
    ann = trained("convolutional")
    made_with = {"mode": "99.9%", "initial_potential": 0.5, "maxpool": "momentum"}
    snn = converted(ann, **made_with)
    found = looked_at(ann, snn)
    assert found.worst[0].name == found.advice[0].layer == "3"
    assert found.worst[0].kind == "MaxPool2d"
    assert found.advice[0].cause == "maxpool"
    assert found.advice[0].arguments == {"maxpool": "cumulative"}
    assert mended(ann, found, made_with) >= accuracy(snn)


def test_average_pools_in_place_of_max_pools_come_first() -> None:
    ann = trained("convolutional")
    made_with = {"mode": "99.9%", "initial_potential": 0.5, "maxpool": "avg"}
    snn = converted(ann, **made_with)
    found = looked_at(ann, snn)
    assert found.advice[0].cause == "maxpool"
    assert found.mismatch > 0.1
    assert mended(ann, found, made_with) > accuracy(snn) + 0.2


@pytest.mark.parametrize("steps", [32, 48])
def test_a_readout_that_starts_too_early(steps: int) -> None:
    ann = trained("deep")
    snn = converted(ann, mode="max")
    found = looked_at(ann, snn, steps)
    advice = found.advice[0]
    assert advice.cause == "readout"
    assert advice.arguments["readout"] == "delayed"
    delayed = Delayed(delay=advice.arguments["delay"])
    assert accuracy(snn, steps, readout=delayed) > accuracy(snn, steps)
    assert f"readout=Delayed(delay={delayed.delay})" in advice.call
