"""evaluate(metric=...): every kind of metric, output and target, against the same computed by hand from the outputs."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    Accuracy,
    Dice,
    EvaluationInterrupted,
    ExitRule,
    InputError,
    IoU,
    Metric,
    OptionError,
    PluginError,
    evaluate,
)
from sj_ann2snn.evaluation.evaluate import ann_values
from sj_ann2snn.evaluation.metrics import by_batch
from sj_ann2snn.simulation.engine import tiling

from ..helpers.networks import Written, run_by_hand, using_threads
from ..helpers.networks import convert as converted

STEPS, SAMPLES = 9, 21


def convert(ann: nn.Module, x: Tensor) -> Any:
    """The spiking network of `ann`; no activation of `x` meets a threshold exactly, where one bit decides."""
    return converted(ann, x * 1.03)


def means(snn: nn.Module, x: Tensor, part: Callable[[Any], Tensor] = lambda y: y) -> Tensor:
    """The mean output after every step, ``[T, N, ...]``, by hand."""
    from spikingjelly.activation_based import functional

    functional.reset_net(snn)
    with torch.no_grad():
        outputs = torch.stack([part(snn(x)) for _ in range(STEPS)])
    functional.reset_net(snn)
    return outputs.cumsum(0) / torch.arange(1, STEPS + 1).reshape(-1, *[1] * (outputs.dim() - 1))


def classifier(classes: int = 8) -> tuple[nn.Module, Tensor]:
    ann = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, classes)).double()
    return ann, torch.randn(SAMPLES, 5, dtype=torch.float64) * 2


def segmenter(classes: int = 3) -> tuple[nn.Module, Tensor]:
    ann = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, classes, 3, padding=1)).double()
    return ann, torch.randn(SAMPLES, 2, 6, 5, dtype=torch.float64) * 2


class Two(NamedTuple):
    scores: Any
    boxes: Any


def two_heads(kind: str) -> tuple[nn.Module, Tensor]:
    def forward(net: Any, x: Tensor) -> Any:
        h = torch.relu(net.body(x))
        scores, boxes = net.scores(h), net.boxes(h)
        if kind == "dict":
            return {"scores": scores, "boxes": boxes}
        if kind == "OrderedDict":
            return collections.OrderedDict(scores=scores, boxes=boxes)
        return Two(scores, boxes) if kind == "named tuple" else (scores, boxes)

    ann = Written(forward, body=nn.Linear(5, 12), scores=nn.Linear(12, 4), boxes=nn.Linear(12, 2)).double()
    return ann, torch.randn(SAMPLES, 5, dtype=torch.float64) * 2


HEADS = ("tuple", "dict", "OrderedDict", "named tuple")


def measured(snn: nn.Module, data: Any, metric: Any, **arguments: Any) -> Any:
    return evaluate(
        snn, data if isinstance(data, list) else [data], T=STEPS, metric=metric, progress=False, **arguments
    )


def halves(x: Tensor, *targets: Any) -> list[Any]:
    """Two batches of different sizes."""
    return [(x[:8], *(one[:8] for one in targets)), (x[8:], *(one[8:] for one in targets))]


def test_top_k_is_the_share_of_labels_among_the_best() -> None:
    ann, x = classifier()
    snn, labels = convert(ann, x), torch.randint(8, (SAMPLES,))
    best = means(snn, x).argsort(dim=2, descending=True, stable=True)
    for k in (1, 3, 5):
        wanted = (best[..., :k] == labels[:, None]).any(2).double().mean(1)
        result = measured(snn, halves(x, labels), f"top{k}")
        assert list(result.values) == [f"top{k}"]
        assert result.value == pytest.approx(wanted.tolist())
        assert len(set(result.value)) > 1
        assert measured(snn, halves(x, labels), Accuracy(top=k)).value == result.value


def test_equal_scores_do_not_count_for_all_classes() -> None:
    ann = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 7)).double()
    for layer in (ann[0], ann[2]):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    nn.init.ones_(ann[0].bias)
    snn, x = convert(ann, torch.ones(7, 2).double()), torch.ones(7, 2).double()
    labels = torch.arange(7)
    assert measured(snn, (x, labels), "top1").value[-1] == pytest.approx(1 / 7)
    assert measured(snn, (x, labels), "top5").value[-1] == pytest.approx(5 / 7)


@pytest.mark.parametrize("columns", [(), (1,), (3,), (3, 4)])
def test_errors_of_numbers(columns: tuple[int, ...]) -> None:
    size = int(np.prod(columns)) if columns else 1
    last = nn.Sequential(nn.Linear(16, size), nn.Unflatten(1, columns) if columns else nn.Flatten(0))
    ann = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), *last).double()
    x = torch.randn(SAMPLES, 5, dtype=torch.float64) * 2
    snn, targets = convert(ann, x), torch.randn(SAMPLES, *columns, dtype=torch.float64)
    answers = means(snn, x)
    found = measured(snn, halves(x, targets), ["mse", "mae", "r2"]).values
    assert list(found) == ["mse", "mae", "r2"]
    difference = (answers - targets).reshape(STEPS, -1)
    assert found["mse"] == pytest.approx(difference.square().mean(1).tolist())
    assert found["mae"] == pytest.approx(difference.abs().mean(1).tolist())
    y = targets.reshape(SAMPLES, columns[0] if columns else 1, -1)
    residual = (answers.reshape(STEPS, *y.shape) - y).square().sum((1, 3))
    spread = (y - y.mean((0, 2), keepdim=True)).square().sum((0, 2))
    assert found["r2"] == pytest.approx((1 - residual / spread).mean(1).tolist())


def test_targets_of_numbers_may_be_of_many_kinds() -> None:
    ann, x = classifier(1)
    snn, targets = convert(ann, x), torch.randint(5, (SAMPLES, 1))
    wanted = measured(snn, (x, targets.double()), "mse").value
    for given in (
        targets,
        targets[:, 0],
        targets.numpy(),
        targets.tolist(),
        targets.float().numpy()[::-1].copy()[::-1],
    ):
        assert measured(snn, (x, given), "mse").value == pytest.approx(wanted)


def test_a_constant_target_has_no_coefficient_of_determination() -> None:
    ann, x = classifier(1)
    assert np.isnan(measured(convert(ann, x), (x, torch.full((SAMPLES,), 0.1)), "r2").value).all()


def confusion(answers: Tensor, labels: Tensor, classes: int) -> list[tuple[int, int, int]]:
    """For each class the sizes of the intersection and of both regions, one pixel after the other."""
    sizes = [[0, 0, 0] for _ in range(classes)]
    for found, wanted in zip(answers.flatten().tolist(), labels.flatten().tolist(), strict=True):
        if wanted == -100:
            continue
        sizes[found][1] += 1
        sizes[wanted][2] += 1
        sizes[wanted][0] += found == wanted
    return [tuple(one) for one in sizes]  # type: ignore[misc]


@pytest.mark.parametrize("ignored", [False, True])
def test_regions_of_classes(ignored: bool) -> None:
    ann, x = segmenter()
    snn, labels = convert(ann, x), torch.randint(2, (SAMPLES, 6, 5))  # the third class is never right
    if ignored:
        labels[:, :2] = -100
    answers = means(snn, x).argmax(2)
    found = measured(snn, halves(x, labels), ["iou", "dice", "top1"]).values
    for step in range(STEPS):
        sizes = [one for one in confusion(answers[step], labels, 3) if any(one)]
        assert found["iou"][step] == pytest.approx(np.mean([i / (f + w - i) for i, f, w in sizes]))
        assert found["dice"][step] == pytest.approx(np.mean([2 * i / (f + w) for i, f, w in sizes]))
        assert found["top1"][step] == pytest.approx(sum(s[0] for s in sizes) / sum(s[2] for s in sizes))


@pytest.mark.parametrize("threshold", [0, 0.3, -0.2])
def test_a_single_region(threshold: float) -> None:
    ann, x = segmenter(1)
    snn, mask = convert(ann, x), torch.randint(2, (SAMPLES, 1, 6, 5))
    yes = means(snn, x) > threshold
    both, either = (yes & mask.bool()).sum((1, 2, 3, 4)), (yes | mask.bool()).sum((1, 2, 3, 4))
    for target in (mask, mask[:, 0], mask.bool(), mask.double()):
        found = measured(snn, halves(x, target), [IoU(threshold=threshold), Dice(threshold=threshold)]).values
        assert found["iou"] == pytest.approx((both / either).tolist())
        assert found["dice"] == pytest.approx((2 * both / (either + both)).tolist())
    wanted = (yes == mask.bool()).double().mean((1, 2, 3, 4)).tolist()
    assert measured(snn, (x, mask), Accuracy(threshold=threshold)).value == pytest.approx(wanted)


def test_several_yes_or_no_questions() -> None:
    ann, x = classifier(4)
    snn, targets = convert(ann, x), torch.randint(2, (SAMPLES, 4))
    wanted = ((means(snn, x) > 0.1) == targets.bool()).double().mean((1, 2)).tolist()
    assert measured(snn, (x, targets), Accuracy(threshold=0.1)).value == pytest.approx(wanted)


def test_a_function_of_the_batch_is_weighted_by_its_samples() -> None:
    ann, x = classifier(2)
    snn, targets = convert(ann, x), torch.randn(SAMPLES, 2, dtype=torch.float64)
    seen = []

    def furthest(output: Tensor, target: Tensor) -> Tensor:
        seen.append((len(output), output.device.type, target.shape))
        return (output - target).abs().max()

    answers = means(snn, x)
    parts = [(answers[:, p] - targets[p]).abs().amax((1, 2)) for p in (slice(0, 8), slice(8, SAMPLES))]
    wanted = (parts[0] * 8 + parts[1] * (SAMPLES - 8)) / SAMPLES
    result = measured(snn, halves(x, targets), furthest)
    assert result.values == {"furthest": pytest.approx(wanted.tolist())}
    assert seen == [(8, "cpu", (8, 2))] * STEPS + [(SAMPLES - 8, "cpu", (SAMPLES - 8, 2))] * STEPS


@pytest.mark.parametrize("kind", [Tensor.double, Tensor.numpy, lambda y: y > 0.5], ids=["tensor", "numpy", "bool"])
def test_a_function_of_every_sample_is_averaged(kind: Any) -> None:
    ann, x = classifier(2)
    snn = convert(ann, x)
    wanted = torch.as_tensor(kind(means(snn, x)[..., 0])).double().mean(1).tolist()
    found = measured(snn, halves(x, torch.zeros(SAMPLES)), lambda output, target: kind(output[:, 0]))
    assert found.values == {"<lambda>": pytest.approx(wanted)}


@pytest.mark.parametrize("result", [1, 0.5, np.float32(0.5), torch.tensor(True), np.array(2)])
def test_functions_may_return_any_number(result: Any) -> None:
    ann, x = classifier(2)
    assert measured(convert(ann, x), (x, x), lambda output, target: result).value == (pytest.approx(float(result)),) * 9


class Accumulated:
    """Like a torchmetrics.Metric: the largest output."""

    def __init__(self) -> None:
        self.largest, self.batches = -torch.inf, 0

    def update(self, output: Tensor, target: Any) -> None:
        self.largest = max(self.largest, float(output.max()))
        self.batches += 1

    def compute(self) -> Any:
        assert self.batches == 2
        return torch.tensor(self.largest)


def test_objects_that_accumulate() -> None:
    ann, x = classifier(2)
    snn, mine = convert(ann, x), Accumulated()
    result = measured(snn, halves(x, x), mine)
    assert result.values == {"Accumulated": pytest.approx(means(snn, x).amax((1, 2)).tolist(), rel=1e-6)}
    assert mine.batches == 0  # every step has a copy of its own


def test_objects_with_several_values() -> None:
    class Several(Accumulated):
        def compute(self) -> Any:
            return {"one": super().compute(), "two": 2.0}

    ann, x = classifier(2)
    result = measured(convert(ann, x), halves(x, x), {"found": Several()})
    assert list(result.values) == ["found.one", "found.two"]
    assert result.values["found.two"] == (2.0,) * STEPS


def test_torchmetrics() -> None:
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is optional")
    ann, x = classifier(5)
    snn, labels = convert(ann, x), torch.randint(5, (SAMPLES,))
    for ours, theirs in (
        ("top1", torchmetrics.classification.MulticlassAccuracy(5, average="micro")),
        (
            "top1",
            torchmetrics.MetricCollection({"top": torchmetrics.classification.MulticlassAccuracy(5, average="micro")}),
        ),
    ):
        found = measured(snn, halves(x, labels), theirs)
        assert next(iter(found.values.values())) == pytest.approx(measured(snn, halves(x, labels), ours).value)
    ann, x = segmenter()
    snn, labels = convert(ann, x), torch.randint(3, (SAMPLES, 6, 5))
    jaccard = torchmetrics.classification.MulticlassJaccardIndex(3)
    assert measured(snn, halves(x, labels), jaccard).value == pytest.approx(
        measured(snn, halves(x, labels), "iou").value, rel=1e-6
    )
    numbers = torch.randn(SAMPLES, 5, dtype=torch.float64)
    ann, x = classifier(5)
    snn = convert(ann, x)
    assert measured(snn, halves(x, numbers), torchmetrics.R2Score().set_dtype(torch.float64)).value == pytest.approx(
        measured(snn, halves(x, numbers), "r2").value
    )


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("given", ["dict", "tuple", "several things", "list"])
def test_one_metric_per_output(kind: str, given: str) -> None:
    ann, x = two_heads(kind)
    snn = convert(ann, x)
    labels, boxes = torch.randint(4, (SAMPLES,)), torch.randn(SAMPLES, 2, dtype=torch.float64)

    def part(index: int) -> Callable[[Any], Tensor]:
        return lambda y: list(y.values() if isinstance(y, dict) else y)[index]

    right = (means(snn, x, part(0)).argmax(2) == labels).double().mean(1).tolist()
    error = (means(snn, x, part(1)) - boxes).square().mean((1, 2)).tolist()
    by_name = kind != "tuple"
    metric = {"scores": "top1", "boxes": "mse"} if by_name else {0: "top1", 1: "mse"}
    targets: dict[str, list[Any]] = {
        "dict": [{"x": x, "scores": labels, "boxes": boxes}] if by_name else [(x, (labels, boxes))],
        "tuple": [(x, (labels, boxes))],
        "several things": halves(x, labels, boxes),
        "list": [(x, [labels, boxes])],
    }
    if given == "dict" and by_name:
        targets["dict"].append((x, {"scores": labels, "boxes": boxes}))
    names = ("scores", "boxes") if by_name else ("0", "1")
    for data in ([one] for one in targets[given]) if given == "dict" else (targets[given],):
        found = measured(snn, data, metric).values
        assert found == {names[0]: pytest.approx(right), names[1]: pytest.approx(error)}
        assert list(measured(snn, data, ("top1", "mse")).values.values()) == [
            pytest.approx(right),
            pytest.approx(error),
        ]
        assert measured(snn, data, (None, "mse")).values == {"mse": pytest.approx(error)}


@pytest.mark.parametrize("kind", HEADS)
def test_functions_see_what_the_network_returns(kind: str) -> None:
    ann, x = two_heads(kind)
    snn, types = convert(ann, x), set()
    labels, boxes = torch.randint(4, (SAMPLES,)), torch.randn(SAMPLES, 2, dtype=torch.float64)

    def check(output: Any, target: Any) -> float:
        types.add((type(output), type(target), len(target)))
        scores, found = output.values() if isinstance(output, dict) else output
        assert scores.shape == (SAMPLES, 4)
        return float((found - target[1]).square().mean())

    with torch.no_grad():
        original = ann(x)
    result = measured(snn, (x, labels, boxes), check)
    assert types == {(type(original), tuple, 2)}
    assert result.value == pytest.approx(measured(snn, (x, labels, boxes), (None, "mse")).value)
    types.clear()
    measured(snn, [x], check, ann=ann) if kind in ("tuple", "named tuple") else None
    assert types <= {(type(original), type(original), 2)}


def test_the_only_output_needs_no_name() -> None:
    ann = Written(
        lambda net, x: {"logits": net.b(torch.relu(net.a(x))), "none": None}, a=nn.Linear(5, 9), b=nn.Linear(9, 3)
    )
    x, labels = torch.randn(SAMPLES, 5), torch.randint(3, (SAMPLES,))
    snn = convert(ann, x)
    wanted = (means(snn, x, lambda y: y["logits"]).argmax(2) == labels).double().mean(1).tolist()
    assert measured(snn, (x, labels), None).accuracy == pytest.approx(wanted)


@pytest.mark.parametrize("make", [classifier, segmenter])
def test_agreement_with_the_ann_needs_no_targets(make: Any) -> None:
    ann, x = make()
    snn = convert(ann, x)
    with torch.no_grad():
        best = ann(x).argmax(1)
    same = (means(snn, x).argmax(2) == best).double()
    wanted = same.mean(tuple(range(1, same.dim()))).tolist()
    for data in ([x], [(x,)], [{"x": x}], [(x[:8],), (x[8:],)], [(x, "no labels")]):
        assert measured(snn, data, "agreement", ann=ann).values == {"agreement": pytest.approx(wanted)}
        assert measured(snn, data, None, ann=ann).values == {"agreement": pytest.approx(wanted)}
        assert measured(snn, data, "top1", ann=ann).value == pytest.approx(wanted)
    assert wanted[-1] > wanted[0]


@pytest.mark.parametrize("classes", [1, 3])
def test_agreement_of_numbers_is_the_coefficient_of_determination(classes: int) -> None:
    ann, x = segmenter(classes)
    snn = convert(ann, x)
    r2 = measured(snn, [x], "r2", ann=ann).value
    assert measured(snn, [x], {"fit": "r2", "distance": "mse"}, ann=ann).values["fit"] == r2
    assert (measured(snn, [x], "agreement", ann=ann).value == r2) is (classes == 1)
    assert r2[-1] > 0.5


def test_regions_of_the_ann() -> None:
    ann, x = segmenter()
    snn = convert(ann, x)
    with torch.no_grad():
        best = ann(x).argmax(1)
    assert measured(snn, [x], "iou", ann=ann).value == pytest.approx(measured(snn, (x, best), "iou").value)
    ann, x = segmenter(1)
    snn = convert(ann, x)
    with torch.no_grad():
        mask = ann(x) > 0.1
    found = measured(snn, [x], Dice(threshold=0.1), ann=ann).value
    assert found == pytest.approx(measured(snn, (x, mask), Dice(threshold=0.1)).value)


def test_training_modes_of_the_ann_are_restored() -> None:
    ann = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 3)).train()
    x = torch.randn(SAMPLES, 5)
    snn = convert(ann.eval(), x)
    wanted = measured(snn, [x], None, ann=ann).value
    assert measured(snn, [x], None, ann=ann.train()).value == wanted
    assert ann.training
    assert ann[2].training


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("budget", [1, 3000, 1 << 22])
def test_nothing_depends_on_tiles_or_threads(budget: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiling.TILE_BYTES, "cpu", budget)
    ann, x = segmenter()
    torch.manual_seed(7)
    for parameter in ann.parameters():
        nn.init.normal_(parameter, std=0.4)
    x = torch.randn(SAMPLES, 2, 6, 5, dtype=torch.float64)
    targets = torch.randn(SAMPLES, 3, 6, 5, dtype=torch.float64)
    with using_threads(threads):
        result = measured(convert(ann, x), halves(x, targets), ["mse", "r2", nn.functional.l1_loss])
    assert result.values == {
        name: pytest.approx(values, rel=1e-12) for name, values in REFERENCE(x, targets, ann).items()
    }


def REFERENCE(x: Tensor, targets: Tensor, ann: nn.Module) -> dict[str, list[float]]:  # noqa: N802 - by hand, once
    answers = means(convert(ann, x), x)
    deviations = (targets - targets.mean((0, 2, 3), keepdim=True)).square().sum((0, 2, 3))
    return {
        "mse": (answers - targets).square().mean((1, 2, 3, 4)).tolist(),
        "r2": (1 - (answers - targets).square().sum((1, 3, 4)) / deviations).mean(1).tolist(),
        "l1_loss": (answers - targets).abs().mean((1, 2, 3, 4)).tolist(),
    }


class AfterTheSample(ExitRule):
    """Sample i stops at step i + 1; it is told apart by its first answer."""

    name = "after-the-sample"

    def settled(self, answers: Tensor, step: int) -> Tensor:
        return torch.full((len(answers),), step >= 4)


@pytest.mark.parametrize("metric", ["mse", nn.functional.mse_loss])
def test_a_sample_that_stops_early_keeps_its_answer(metric: Any) -> None:
    ann, x = segmenter()
    snn, targets = convert(ann, x), torch.randn(SAMPLES, 3, 6, 5, dtype=torch.float64)
    whole = measured(snn, (x, targets), metric).value
    early = measured(snn, (x, targets), metric, early_exit=AfterTheSample())
    assert early.steps_per_sample == 4
    assert early.value == pytest.approx((*whole[:4], *(whole[3],) * (STEPS - 4)))


def test_the_margin_of_dense_outputs_and_of_several_outputs() -> None:
    ann, x = segmenter()
    snn, labels = convert(ann, x), torch.randint(3, (SAMPLES, 6, 5))
    sums = means(snn, x) * torch.arange(1, STEPS + 1).reshape(-1, 1, 1, 1, 1)
    best = sums.topk(2, dim=2).values
    lead = (best[:, :, 0] - best[:, :, 1]).amin((2, 3))
    threshold = float(lead.amax(0).median())
    stops = [next((t + 1 for t in range(STEPS) if lead[t, i] >= threshold), STEPS) for i in range(SAMPLES)]
    result = measured(snn, (x, labels), "iou", early_exit=threshold)
    assert result.steps_per_sample == pytest.approx(sum(stops) / SAMPLES)
    assert 1 < result.steps_per_sample < STEPS
    ann, x = two_heads("tuple")
    snn = convert(ann, x)
    one = measured(snn, (x, torch.zeros(SAMPLES)), (lambda output, target: 0.0, None), early_exit=1.0).steps_per_sample
    other = measured(
        snn, (x, torch.zeros(SAMPLES)), (None, lambda output, target: 0.0), early_exit=1.0
    ).steps_per_sample
    both = measured(snn, (x, torch.zeros(SAMPLES)), lambda output, target: 0.0, early_exit=1.0).steps_per_sample
    assert both >= max(one, other)


def test_readouts_apply_to_every_metric() -> None:
    ann, x = segmenter()
    snn, targets = convert(ann, x), torch.randn(SAMPLES, 3, 6, 5, dtype=torch.float64)
    last = run_by_hand(snn, x, STEPS)
    wanted = (last - targets).square().mean((1, 2, 3, 4)).tolist()
    assert measured(snn, (x, targets), "mse", readout="last").value == pytest.approx(wanted)
    assert measured(snn, (x, targets), nn.functional.mse_loss, readout="last").value == pytest.approx(wanted)


def test_networks_that_are_no_graph() -> None:
    from spikingjelly.activation_based import layer, neuron

    snn = nn.Sequential(layer.Linear(5, 8), neuron.IFNode(v_reset=None), layer.Linear(8, 3)).double()
    x, targets = torch.randn(SAMPLES, 5).double(), torch.randn(SAMPLES, 3).double()
    wanted = (means(snn, x) - targets).square().mean((1, 2)).tolist()
    assert measured(snn, (x, targets), "mse").value == pytest.approx(wanted)
    assert measured(snn, (x, targets), nn.functional.mse_loss).value == pytest.approx(wanted)


class Within(Metric):
    name = "within"

    def __init__(self, *, distance: float = 1.0) -> None:
        self.distance = distance

    def contributions(self, answers: Tensor, targets: Tensor) -> Any:
        return ((answers - targets).abs() <= self.distance).flatten(2).all(2, keepdim=True)


def test_metrics_of_the_callers_own() -> None:
    ann, x = classifier(2)
    snn, targets = convert(ann, x), torch.zeros(SAMPLES, 2, dtype=torch.float64)
    wanted = (means(snn, x).abs() <= 0.5).all(2).double().mean(1).tolist()
    assert measured(snn, halves(x, targets), Within(distance=0.5)).values == {"within": pytest.approx(wanted)}


def test_the_ann_is_measured_the_same_way() -> None:
    ann, x = segmenter()
    labels = torch.randint(3, (SAMPLES, 6, 5))
    with torch.no_grad():
        wanted = (ann(x).argmax(1) == labels).double().mean().item()
    assert ann_values(ann, halves(x, labels), ["top1", "iou"])["top1"] == pytest.approx(wanted)
    assert ann_values(ann, [x], ["top1", "iou", "agreement"], against=ann) == {"top1": 1, "iou": 1, "agreement": 1}
    ann, x = two_heads("named tuple")
    boxes = torch.randn(SAMPLES, 2, dtype=torch.float64)

    def error(output: Any, target: Any) -> Tensor:
        return (output.boxes - target).square().mean()

    with torch.no_grad():
        wanted = float((ann(x).boxes - boxes).square().mean())
    assert ann_values(ann, [(x, boxes)], error) == {"error": pytest.approx(wanted)}
    assert ann_values(ann, [(x, boxes)], {"boxes": "mse"}) == {"boxes": pytest.approx(wanted)}


def test_the_result_says_what_it_measured() -> None:
    ann, x = classifier(2)
    snn, targets = convert(ann, x), torch.randn(SAMPLES, 2, dtype=torch.float64)
    result = measured(snn, (x, targets), ["mse", "mae"])
    assert "mse " in str(result)
    assert "; mae " in str(result)
    with pytest.raises(InputError, match="measured mse, mae, not top1"):
        _ = result.accuracy
    with pytest.raises(InputError, match="measured mse, mae; choose one"):
        _ = result.value


def broken(error: BaseException) -> Callable[..., Any]:
    def metric(output: Any, target: Any) -> Any:
        raise error

    return metric


def writing(output: Tensor, target: Tensor) -> float:
    target.sub_(1)
    return 0.0


LABELS = torch.zeros(SAMPLES, dtype=torch.int64)
REFUSED: dict[str, tuple[Any, Any, Any, type[Exception], str]] = {
    "unknown name": (
        classifier,
        "top-1",
        LABELS,
        OptionError,
        r"metric='top-1' is not known\. Did you mean 'top1' or 'top5'\?.*mse",
    ),
    "a class": (classifier, IoU, LABELS, OptionError, r"metric=IoU is a class; give an instance, metric=IoU\(\.\.\.\)"),
    "no metric": (classifier, 3, LABELS, OptionError, "metric=3 is not allowed: give the name"),
    "nothing": (classifier, {}, LABELS, OptionError, "metric={} holds no metric"),
    "a key that is no name": (classifier, {None: "mse"}, LABELS, OptionError, "key None; name the outputs"),
    "a list in a dict": (classifier, {"a": ["mse"]}, LABELS, OptionError, "a list under 'a'; name the metrics"),
    "agreement without the ANN": (
        classifier,
        "agreement",
        LABELS,
        OptionError,
        r"'agreement' compares .*give the ANN, ann=",
    ),
    "top of all classes": (
        lambda: classifier(3),
        "top5",
        LABELS,
        InputError,
        "best 5 of the network's 3 classes are all",
    ),
    "classes of one column": (
        lambda: segmenter(1),
        "iou",
        LABELS,
        InputError,
        r"1 column.*IoU or Dice with a threshold",
    ),
    "other numbers than 0 and 1": (
        lambda: segmenter(1),
        IoU(threshold=0),
        torch.full((SAMPLES, 6, 5), 255),
        InputError,
        "other numbers than 0 and 1",
    ),
    "a map of another size": (
        segmenter,
        "iou",
        torch.zeros(SAMPLES, 3, 3, dtype=torch.int64),
        InputError,
        r"labels have shape \(21, 3, 3\).*needs labels of shape \(21, 6, 5\)",
    ),
    "real labels of pixels": (segmenter, "iou", torch.rand(SAMPLES, 6, 5), InputError, "real numbers, such as"),
    "a void label": (
        segmenter,
        "iou",
        torch.full((SAMPLES, 6, 5), 255),
        InputError,
        "label 255 is out of range .*3 classes.*label -100",
    ),
    "numbers of another shape": (
        classifier,
        "mse",
        torch.zeros(SAMPLES, 3),
        InputError,
        r"targets have shape \(21, 3\), but the network's output has shape \(21, 8\)",
    ),
    "too few numbers": (classifier, "mse", torch.zeros(3, 8), InputError, r"targets have shape \(3, 8\)"),
    "NaN": (classifier, "mae", torch.full((SAMPLES, 8), torch.nan), InputError, "targets hold NaN"),
    "complex numbers": (classifier, "mae", torch.zeros(SAMPLES, 8, dtype=torch.cfloat), InputError, "complex numbers"),
    "text": (classifier, "r2", ["a"] * SAMPLES, InputError, "targets are no numbers: they are a list of 21 str"),
    "an unknown output": (
        lambda: two_heads("dict"),
        {"masks": "iou"},
        LABELS,
        InputError,
        "output 'masks', which.*'scores', 'boxes'",
    ),
    "too many outputs": (
        lambda: two_heads("tuple"),
        ("mse",) * 3,
        LABELS,
        InputError,
        "metric has 3 entries.*a tuple of",
    ),
    "an output out of range": (lambda: two_heads("tuple"), {5: "mse"}, LABELS, InputError, "the output 5, which"),
    "targets without the output": (
        lambda: two_heads("dict"),
        {"scores": "top1"},
        {"boxes": LABELS},
        InputError,
        "a dict with 'boxes', without one for the output 'scores'",
    ),
    "several outputs": (
        lambda: two_heads("dict"),
        "mse",
        LABELS,
        InputError,
        r"metric=\{'scores': 'mse', 'boxes': 'mse'\}",
    ),
    "a function that fails": (
        classifier,
        broken(RuntimeError("no idea")),
        LABELS,
        PluginError,
        r"Metric 'metric' \(your own argument\), given the outputs after step 1, failed with RuntimeError: no idea \(in metric\)",
    ),
    "a function that leaves": (classifier, broken(SystemExit(3)), LABELS, PluginError, "SystemExit: 3"),
    "a function that writes": (classifier, writing, LABELS, PluginError, r"writes to the targets \(in writing\)"),
    "a function without a result": (
        classifier,
        lambda output, target: None,
        LABELS,
        InputError,
        "returned a NoneType; it must return a number",
    ),
    "a function with a map": (
        classifier,
        lambda output, target: output,
        LABELS,
        InputError,
        r"one number for each of the 21 samples",
    ),
    "a function with text": (classifier, lambda output, target: "good", LABELS, InputError, "returned a str"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_why(name: str) -> None:
    make, metric, targets, error, message = REFUSED[name]
    ann, x = make()
    with pytest.raises(error, match=message):
        measured(convert(ann, x), (x, targets), metric)


class BadSums(Within):
    def contributions(self, answers: Tensor, targets: Tensor) -> Any:
        return answers.sum()


class BadValue(Within):
    def value(self, sums: Tensor, samples: int) -> Any:
        return 0.5


class BadTargets(Within):
    def targets(self, found: Any, shape: tuple[int, ...]) -> Any:
        return [0] * SAMPLES


class Failing(Within):
    def contributions(self, answers: Tensor, targets: Tensor) -> Any:
        raise ValueError("no idea")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (
            BadSums(),
            r"returned a tensor of shape \(\) .*from contributions\(\); it must return a tensor \[\d+, \d+, k\]",
        ),
        (BadValue(), r"returned a float from value\(\); it must return a tensor \[9\]"),
        (BadTargets(), r"returned a list of 21 int from targets\(\); it must return a tensor with one row"),
        (Failing(), r"Metric 'within' \(your own argument\), given the answers after step \d+, failed with ValueError"),
    ],
)
def test_a_metric_that_breaks_its_contract(metric: Metric, message: str) -> None:
    ann, x = classifier(2)
    with pytest.raises(PluginError, match=message):
        measured(convert(ann, x), (x, torch.zeros(SAMPLES, 2)), metric)


def test_outputs_that_do_not_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_batch, "MOST_BYTES", 8 * 8 * STEPS * 10)
    ann, x = classifier()
    snn = convert(ann, x)
    with pytest.raises(InputError, match=r"21 samples and 9 steps.*Give batches of at most 10 samples"):
        measured(snn, (x, LABELS), lambda output, target: 0.0)
    assert measured(snn, [(x[:10], LABELS[:10])], lambda output, target: 0.0).value == (0.0,) * STEPS


def test_a_single_answer_for_all_samples_is_refused() -> None:
    with pytest.raises(InputError, match="answers with a single number for 21 samples"):
        ann_values(
            Written(lambda net, x: net.a(x).sum(), a=nn.Linear(5, 3)), [(torch.randn(SAMPLES, 5), LABELS)], "mse"
        )


def test_an_interrupt_keeps_what_was_measured() -> None:
    ann, x = classifier()
    snn, labels = convert(ann, x), torch.randint(8, (SAMPLES,))

    def batches() -> Any:
        yield x, labels
        raise KeyboardInterrupt

    class Loader:
        def __iter__(self) -> Any:
            return batches()

    wanted = measured(snn, (x, labels), ["top1", lambda output, target: output.mean()]).values
    with pytest.raises(EvaluationInterrupted) as caught:
        evaluate(snn, Loader(), T=STEPS, metric=["top1", lambda output, target: output.mean()], progress=False)
    assert caught.value.result.values == wanted


class Detector(nn.Module):
    """As many boxes as pixels are large, for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1)).double()

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        return [{"boxes": (one[0] > 0.1).nonzero(), "scores": one[0][one[0] > 0.1]} for one in self.body(x)]


def test_detectors_with_converted_parts_may_find_any_number_of_boxes() -> None:
    torch.manual_seed(2)
    ann, x = Detector(), torch.randn(SAMPLES, 1, 5, 5, dtype=torch.float64) * 2
    snn = converted(ann, x * 1.03, convert_only="body")
    counts: list[list[int]] = []

    def missed(output: Any, target: Any) -> Tensor:
        counts.append([len(one["boxes"]) for one in output])
        found = [{tuple(box) for box in one["boxes"].tolist()} for one in output]
        wanted = [{tuple(box) for box in one["boxes"].tolist()} for one in target]
        return torch.tensor([len(b - a) / max(1, len(b)) for a, b in zip(found, wanted, strict=True)])

    wanted = []
    for answer in means(snn.body, x):
        boxes = [set(map(tuple, (one[0] > 0.1).nonzero().tolist())) for one in answer]
        with torch.no_grad():
            truth = [set(map(tuple, one["boxes"].tolist())) for one in ann(x)]
        wanted.append(np.mean([len(b - a) / max(1, len(b)) for a, b in zip(boxes, truth, strict=True)]))
    assert measured(snn, [x], missed, ann=ann).value == pytest.approx(wanted)
    assert len({tuple(one) for one in counts}) > 2
    assert wanted[-1] < wanted[0]
    assert ann_values(ann, [x], missed, against=ann) == {"missed": 0}
    with torch.no_grad():
        truth = ann(x)
    assert measured(snn, (x, truth), missed).value == pytest.approx(wanted)
