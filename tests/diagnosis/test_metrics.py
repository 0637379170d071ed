"""Diagnoses with every metric of `evaluate`: the same values, and losses that count in the right direction."""

from __future__ import annotations

import collections
import functools
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sj_ann2snn import (
    Accuracy,
    Converter,
    InputError,
    IoU,
    MeanSquaredError,
    Metric,
    OptionError,
    PluginError,
    diagnose,
    evaluate,
)
from sj_ann2snn.evaluation.evaluate import ann_values
from tests.helpers.networks import Written

T = 8

Pair = collections.namedtuple("Pair", "scores boxes")


def classifier() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def two_outputs(kind: Any = dict) -> nn.Module:
    def forward(net: Any, x: Tensor) -> Any:
        hidden = torch.relu(net.first(x))
        return kind(scores=net.second(hidden), boxes=torch.relu(net.third(hidden)))

    return Written(forward, first=nn.Linear(4, 8), second=nn.Linear(8, 3), third=nn.Linear(8, 2)).eval()


def segmenter() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()


class Summing:
    """An object like a torchmetrics.Metric: the root mean squared error."""

    higher_is_better = False

    def __init__(self) -> None:
        self.sum, self.count = 0.0, 0

    def update(self, output: Tensor, target: Tensor) -> None:
        self.sum += float((output - target).square().sum())
        self.count += output.numel()

    def compute(self) -> float:
        return (self.sum / self.count) ** 0.5


class Both(Summing):
    """One of several values."""

    def compute(self) -> Any:
        return {"squared": self.sum, "rooted": super().compute()}


class Margin(Metric):
    """The mean difference between the label's score and the others'."""

    name = "margin"

    def targets(self, found: Any, shape: tuple[int, ...]) -> Tensor:
        return F.one_hot(torch.as_tensor(found), shape[1]).double()

    def contributions(self, answers: Tensor, targets: Tensor) -> Tensor:
        return (answers * (2 * targets - 1)).sum(2, keepdim=True)


def by_batch(output: Tensor, target: Tensor) -> float:
    """Of a whole batch; not the mean over its samples."""
    return float(output.softmax(1).amax(1).var(unbiased=False)) * float((output.argmax(1) == target).float().mean())


def numbers(x: Tensor) -> Tensor:
    return torch.stack([x.sum(1), x.prod(1), x[:, 0]], 1)


def classes(x: Tensor) -> Tensor:
    return (10 * x.sum(1)).long() % 3


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Any], Any]] = {
    "top1": (classifier, classes, "top1"),
    "top2": (classifier, classes, "top2"),
    "an instance": (classifier, classes, Accuracy(top=2)),
    "mse": (classifier, numbers, "mse"),
    "mae": (classifier, numbers, "mae"),
    "r2": (classifier, numbers, "r2"),
    "threshold": (classifier, lambda x: (numbers(x) > 0.5).long(), IoU(threshold=0.5)),
    "several": (classifier, classes, {"accuracy": "top1", "margin": Margin()}),
    "own metric": (classifier, classes, Margin()),
    "function": (classifier, classes, F.cross_entropy),
    "function of a batch": (classifier, classes, by_batch),
    "loss": (classifier, numbers, nn.SmoothL1Loss()),
    "accumulating": (classifier, numbers, Summing()),
    "two values": (classifier, numbers, Both()),
    "by output": (two_outputs, lambda x: (classes(x), x[:, :2]), {"scores": "top1", "boxes": "mse"}),
    "by place": (two_outputs, lambda x: (classes(x), x[:, :2]), ["top1", None]),
    "dict of targets": (two_outputs, lambda x: {"boxes": x[:, :2], "scores": classes(x)}, {"boxes": "mae"}),
    "whole output": (
        functools.partial(two_outputs, Pair),
        lambda x: (classes(x), x[:, :2]),
        lambda output, target: F.mse_loss(output.boxes, target[1]),
    ),
}


def batch_of(x: Tensor, targets: Any) -> Any:
    if isinstance(targets, dict):
        return {"x": x, **targets}
    return (x, *targets) if isinstance(targets, tuple) else (x, targets)


@pytest.mark.parametrize("name", CASES)
def test_the_values_are_those_of_evaluate(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, label, metric = CASES[name]
    ann, x = make(), torch.rand(50, 4)
    snn = Converter([x], mode=0.5, progress=False)(ann)
    loader = [batch_of(part, label(part)) for part in x.split(30)]
    wanted = evaluate(snn, loader, T, metric=metric, progress=False)
    of_ann = ann_values(ann, loader, metric)
    monkeypatch.setattr("sj_ann2snn.diagnosis.examining.VALUES", 200)  # several chunks of each batch
    found = diagnose(ann, snn, loader, T, metric=metric, progress=False)
    assert found.samples == 50
    assert list(found.metrics) == list(wanted.values)
    for key, one in found.metrics.items():
        assert one.value == pytest.approx(wanted.values[key][-1], rel=1e-5)
        assert one.over_time[4] == pytest.approx(wanted.values[key][3], rel=1e-5)
        assert one.ann_value == pytest.approx(of_ann[key], rel=1e-5)
        for layer in found:
            assert layer.drops[key].keys() == {"alone", "all_but_this"}
    first = next(iter(found.metrics.values()))
    assert (found.accuracy, found.ann_accuracy, found.drop) == (first.value, first.ann_value, first.drop)
    assert found.accuracy_over_time == first.over_time
    for layer in found:
        drops = next(iter(layer.drops.values()))
        assert (layer.alone_points, layer.all_but_this_points) == (drops["alone"], drops["all_but_this"])
    json.loads(found.to_json())
    assert found.verdict in str(found)


def test_the_drops_of_a_layer_are_those_of_the_network_with_only_it_spiking() -> None:
    ann = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    x = torch.rand(60, 4)
    snn = Converter([x], mode=0.3, progress=False)(ann)
    for metric, sign, factor in (("mse", 1, 1), ("r2", -1, 1), ("top1", -1, 100)):
        targets = classes(x) if metric == "top1" else ann(x).detach() + 0.01 * torch.rand(60, 3)
        found = diagnose(ann, snn, [(x, targets)], T, metric=metric, progress=False)
        one = found.metrics[metric]
        # The only layer alone is the whole network, and the network without it is the ANN.
        assert found.layers[0].alone_points == pytest.approx(one.drop, rel=1e-3, abs=1e-6)
        assert found.layers[0].all_but_this_points == pytest.approx(0, abs=1e-4)
        assert one.drop == pytest.approx(sign * factor * (one.value - one.ann_value))
        assert (one.unit, one.higher_is_better) == ("points" if factor == 100 else "", sign < 0)
        assert one.drop > 0 or metric == "top1"


def test_losses_count_in_their_direction() -> None:
    ann, x = classifier(), torch.rand(40, 4)
    snn = Converter([x], mode=0.2, progress=False)(ann)
    targets = ann(x).detach()
    for metric, better in (
        (nn.MSELoss(), False),
        (F.mse_loss, False),
        (functools.partial(F.smooth_l1_loss, beta=0.5), False),
        (Summing(), False),
        ("r2", True),
    ):
        found = diagnose(ann, snn, [(x, targets)], T, metric=metric, progress=False)
        (one,) = found.metrics.values()
        assert one.higher_is_better is better
        assert one.drop > 0
        assert (" fell from " if better else " rose from ") in found.verdict
        assert not found.notes

    def distance(output: Tensor, target: Tensor) -> Tensor:
        return (output - target).abs().mean()

    found = diagnose(ann, snn, [(x, targets)], T, metric=distance, progress=False)
    assert found.drop is not None
    assert found.drop < 0
    assert "'distance' does not say whether a higher value is better" in found.notes[0]
    distance.higher_is_better = False  # type: ignore[attr-defined]
    found = diagnose(ann, snn, [(x, targets)], T, metric=distance, progress=False)
    assert found.drop is not None
    assert found.drop > 0
    assert not found.notes


def test_against_the_ann() -> None:
    ann, x = classifier(), torch.rand(40, 4)
    snn = Converter([x], mode=0.3, progress=False)(ann)
    plain = diagnose(ann, snn, [x], T, against_ann=True, progress=False)
    wanted = evaluate(snn, [x], T, ann=ann, progress=False)
    assert list(plain.metrics) == ["agreement"]
    assert plain.accuracy == wanted.values["agreement"][-1]
    assert plain.ann_accuracy == 1
    assert "agreement lost" in plain.verdict
    assert diagnose(ann, snn, [x], T, metric="agreement", progress=False) == plain
    both = diagnose(ann, snn, [x], T, metric={"a": "mse", "b": "top1"}, against_ann=True, progress=False)
    wanted = evaluate(snn, [x], T, metric={"a": "mse", "b": "top1"}, ann=ann, progress=False)
    assert both.metrics["a"].value == pytest.approx(wanted.values["a"][-1], rel=1e-5)
    assert both.metrics["a"].ann_value == 0
    assert both.metrics["b"].value == wanted.values["b"][-1]


def test_several_outputs_against_the_ann() -> None:
    ann, x = two_outputs(Pair), torch.rand(40, 4)
    snn = Converter([x], mode=0.3, progress=False)(ann)
    found = diagnose(ann, snn, [x], T, metric=("agreement", "mse"), progress=False)
    wanted = evaluate(snn, [x], T, metric=("agreement", "mse"), ann=ann, progress=False)
    assert list(found.metrics) == list(wanted.values)
    for name, one in found.metrics.items():
        assert one.value == pytest.approx(wanted.values[name][-1], rel=1e-5)


def test_the_accuracy_of_every_pixel_is_found_without_asking() -> None:
    ann, x = segmenter(), torch.rand(10, 1, 6, 6)
    labels = (3 * x[:, 0]).long()
    labels[0, 0] = -100
    snn = Converter([x], mode=0.5, progress=False)(ann)
    found = diagnose(ann, snn, [(x, labels)], T, progress=False)
    assert found.accuracy == evaluate(snn, [(x, labels)], T, progress=False).accuracy[-1]
    assert list(diagnose(ann, snn, [(x, labels)], T, metric="iou", progress=False).metrics) == ["iou"]


@pytest.mark.parametrize("samples", [1, 7, 30, 31, 49])
@pytest.mark.parametrize("name", ["by output", "dict of targets", "function of a batch", "accumulating"])
def test_targets_are_cut_like_the_samples(name: str, samples: int) -> None:
    make, label, metric = CASES[name]
    ann, x = make(), torch.rand(50, 4)
    snn = Converter([x], mode=0.5, progress=False)(ann)
    loader = [batch_of(part, label(part)) for part in x.split(30)]
    parts = [x[:30][:samples], x[30:samples]] if samples > 30 else [x[:samples]]
    cut = [batch_of(part, label(part)) for part in parts]
    found = diagnose(ann, snn, loader, T, samples=samples, metric=metric, progress=False)
    assert found.samples == samples
    wanted = evaluate(snn, cut, T, metric=metric, progress=False)
    for key, one in found.metrics.items():
        assert one.value == pytest.approx(wanted.values[key][-1], rel=1e-5, nan_ok=True)


def test_lists_of_targets_are_cut_by_sample() -> None:
    ann, x = classifier(), torch.rand(6, 4)
    snn = Converter([x], progress=False)(ann)
    words = [{"name": f"sample {index}"} for index in range(6)]
    seen = []

    def asked(output: Tensor, target: Any) -> float:
        seen.append((len(output), [one["name"] for one in target]))
        return 0.5

    diagnose(ann, snn, [(x, words)], 2, samples=4, metric=asked, progress=False)
    assert set(map(str, seen)) == {str((4, ["sample 0", "sample 1", "sample 2", "sample 3"]))}


def test_a_metric_that_is_undefined_is_said_so() -> None:
    ann, x = classifier(), torch.rand(20, 4)
    snn = Converter([x], mode=0.5, progress=False)(ann)
    found = diagnose(ann, snn, [(x, torch.ones(20, 3))], 4, metric="r2", progress=False)
    assert found.accuracy is not None
    assert math.isnan(found.accuracy)
    assert "r2 nan, of the ANN nan" in found.verdict
    assert json.loads(found.to_json())["metrics"]["r2"]["value"] is None


def test_torchmetrics() -> None:
    torchmetrics = pytest.importorskip("torchmetrics", reason="an optional package of users")
    ann, x = classifier(), torch.rand(40, 4)
    snn = Converter([x], mode=0.3, progress=False)(ann)
    metric = torchmetrics.MetricCollection(
        [torchmetrics.MeanSquaredError(), torchmetrics.R2Score(), torchmetrics.MeanAbsoluteError()]
    )
    found = diagnose(ann, snn, [(x, ann(x).detach())], T, metric=metric, progress=False)
    better = {name.rpartition(".")[2]: one.higher_is_better for name, one in found.metrics.items()}
    assert better == {"MeanSquaredError": False, "R2Score": True, "MeanAbsoluteError": False}
    assert all(one.drop > 0 for one in found.metrics.values())


def test_what_is_refused() -> None:
    ann, x = classifier(), torch.rand(20, 4)
    snn = Converter([x], progress=False)(ann)

    def refused(kind: type[Exception], told: str, data: Any, **arguments: Any) -> None:
        with pytest.raises(kind, match=told):
            diagnose(ann, snn, data, 4, progress=False, **arguments)

    labelled = [(x, classes(x))]
    refused(OptionError, "metric='top-1' is not known", labelled, metric="top-1")
    refused(OptionError, "metric=Accuracy is a class", labelled, metric=Accuracy)
    refused(OptionError, "labels=True and metric=... exclude", labelled, labels=True, metric="mse")
    refused(OptionError, "labels=False and against_ann=True exclude", labelled, labels=False, against_ann=True)
    refused(OptionError, "against_ann='yes' is not allowed", labelled, against_ann="yes")
    refused(
        InputError,
        r"(?s)Batch 0 .* no labels or other targets, which the metric 'mse' .*against_ann",
        [x],
        metric="mse",
    )
    refused(InputError, "Batch 1 cannot be diagnosed. It holds", [*labelled, x], metric="top1")
    refused(
        InputError,
        "Batch 1 cannot be diagnosed. Its targets have shape",
        [(x, x[:, :3]), (x, torch.rand(20, 7))],
        metric="mse",
    )
    refused(InputError, "out of range", [(x, torch.full((20,), 9))], metric="top1")

    def broken(output: Tensor, target: Tensor) -> float:
        raise RuntimeError("no luck")

    refused(PluginError, "Metric 'broken'.*no luck", labelled, metric=broken)
    assert diagnose(ann, snn, labelled, 4, labels=False, progress=False).metrics == {}
    assert MeanSquaredError.higher_is_better is False


def test_a_metric_of_one_output_for_a_network_with_two() -> None:
    ann, x = two_outputs(), torch.rand(20, 4)
    snn = Converter([x], progress=False)(ann)
    with pytest.raises(InputError, match="needs a network with one output"):
        diagnose(ann, snn, [(x, x[:, :2])], 4, metric="mse", progress=False)
    with pytest.raises(InputError, match="names the output 'nothing'"):
        diagnose(ann, snn, [(x, x[:, :2])], 4, metric={"nothing": "mse"}, progress=False)
