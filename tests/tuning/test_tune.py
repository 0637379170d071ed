"""The search for the cheapest conversion that loses little enough."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sj_ann2snn
from sj_ann2snn import (
    ConversionError,
    Converter,
    Correction,
    Delayed,
    InputError,
    Max,
    ModeError,
    OptionError,
    Trial,
    Tuning,
    TuningInterrupted,
    costs,
    evaluate,
    hookimpl,
    simulate,
    tune,
)
from sj_ann2snn.tuning import measuring
from sj_ann2snn.tuning.data import read_samples
from sj_ann2snn.tuning.space import Space

from ..diagnosis.test_delay import SlowMaker
from ..helpers.networks import GradedMaker

STEPS = 24


def network() -> nn.Module:
    torch.manual_seed(0)
    ann = nn.Sequential(
        nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4)
    )
    for layer in ann:
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain=1.4)
    return ann.eval()


@pytest.fixture(scope="module")
def ann() -> nn.Module:
    return network()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(600, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def data(ann: nn.Module, images: Tensor) -> list[Any]:
    with torch.no_grad():
        labels = ann(images).argmax(1)
    return [(x, y) for x, y in zip(images.split(60), labels.split(60), strict=True)]


@pytest.fixture(scope="module")
def found(ann: nn.Module, data: list[Any]) -> Tuning:
    return search(ann, data, budget="spikes")


def search(ann: nn.Module, data: Any, max_drop: float = 6.0, **arguments: Any) -> Tuning:
    return tune(ann, data, max_drop, **{"T": STEPS, "progress": False, "samples": 600, **arguments})


def made(tuning: Tuning, ann: nn.Module) -> nn.Module:
    """What the call makes."""
    names = {**vars(sj_ann2snn), "calibration": tuning.calibration, "ann": ann}
    network: nn.Module = eval(tuning.call, names)
    return network


def test_it_finds_what_loses_little_and_says_what_it_costs(found: Tuning, ann: nn.Module, data: list[Any]) -> None:
    assert found.reached
    assert found.drop <= 6.0
    assert found.samples + found.held_out_samples == 600
    assert found.held_out_samples == 180
    again = evaluate(found.network, data, found.T, progress=False, readout=read(found))
    assert again.spikes_per_sample == pytest.approx(found.cost, rel=0.05)
    whole = (found.drop * found.samples + (found.held_out_drop or 0.0) * found.held_out_samples) / 600
    assert 100 * (1 - again.accuracy[-1]) == pytest.approx(whole, abs=0.01)


def read(found: Tuning) -> Any:
    if found.readout is None:
        return None
    name, options = found.readout
    return getattr(sj_ann2snn, name.capitalize())(**options)


def test_the_call_makes_the_network_again_bit_for_bit(found: Tuning, ann: nn.Module, images: Tensor) -> None:
    assert torch.equal(simulate(made(found, ann), images, found.T), simulate(found.network, images, found.T))
    assert found.evaluate_call.startswith(f"evaluate(snn, test_loader, T={found.T}")


def test_it_beats_every_conversion_that_was_tried(found: Tuning, ann: nn.Module, data: list[Any]) -> None:
    drops, costs = [point.drop for point in found.frontier], [point.cost for point in found.frontier]
    assert costs == sorted(costs)
    assert drops == sorted(drops, reverse=True)
    assert len(found.frontier) > 1
    default = Converter([x for x, _ in data], mode="max", progress=False)(ann)
    result = evaluate(default, data, STEPS, progress=False)
    lost = [100 * (1 - value) for value in result.accuracy]
    enough = [step for step in range(STEPS) if max(lost[step:]) <= 6.0]
    assert not enough or found.cost < result.spikes_over_time[enough[0]]


def test_every_budget_is_saved(found: Tuning, ann: nn.Module, data: list[Any]) -> None:
    fast = search(ann, data, budget="steps")
    lean = search(ann, data, budget="synops")
    assert fast.reached
    assert fast.cost == fast.T <= 1.2 * found.T
    assert lean.reached
    assert lean.budget == "synops"
    spikes = next(point for point in found.frontier if point.cost == found.cost)
    assert lean.cost <= spikes.synops * 1.05


def test_energy_is_what_costs_counts(ann: nn.Module, data: list[Any]) -> None:
    found = search(ann, data, 10.0, budget="energy", energy="int8", mode="max", readout="mean", layers=False)
    assert found.reached
    samples = read_samples(ann, data, 600, 0.3)
    counted = costs(ann, found.network, samples.search, found.T, energy="int8", samples=600, progress=False)
    assert found.cost == pytest.approx(counted.energy / 1000)
    chosen = next(point for point in found.frontier if (point.T, point.drop) == (found.T, found.drop))
    assert chosen.cost == pytest.approx(found.cost, rel=0.1)  # estimated from one batch
    assert " nJ per sample" in found.verdict


def test_samples_to_judge_by_have_no_influence(ann: nn.Module, data: list[Any], found: Tuning) -> None:
    samples = read_samples(ann, data, 600, 0.3)
    held = {tuple(row.tolist()) for x, _ in samples.held_out for row in x}
    changed = [(x, (y + torch.tensor([tuple(row.tolist()) in held for row in x])) % 4) for x, y in data]
    other = search(ann, changed, budget="spikes")
    assert other.call == found.call
    assert other.drop == found.drop
    assert other.held_out_drop != found.held_out_drop


def test_what_nothing_reaches_gives_the_best(ann: nn.Module, data: list[Any]) -> None:
    found = search(ann, data, -1.0, T=4)
    assert not found.reached
    assert "Nothing that was tried loses at most -1 points. The best, T=" in found.verdict
    assert found.drop <= min(point.drop for point in found.frontier)
    assert torch.isfinite(simulate(found.network, data[0][0], found.T)).all()


def test_arguments_of_the_caller_hold(ann: nn.Module, data: list[Any]) -> None:
    found = search(ann, data, 8.0, mode="99%", channel_wise=False, readout="mean", layers=False)
    calls = [point.call for point in found.frontier]
    assert all('mode="99%"' in call and "channel_wise=False" in call for call in calls)
    assert found.readout is None
    assert "layers" not in "".join(calls)


def test_without_targets_the_answers_of_the_ann_count(ann: nn.Module, data: list[Any]) -> None:
    images = [x for x, _ in data]
    found = search(ann, images)
    assert dict(found.ann_values) == {"agreement": 1.0}
    wrong = [(x, (y + 1) % 4) for x, y in data]
    assert search(ann, wrong, against_ann=True).call == found.call


def test_an_error_must_not_rise(ann: nn.Module, data: list[Any]) -> None:
    found = search(ann, [(x, ann(x).detach()) for x, _ in data], 2.0, metric="mse", mode="max")
    assert found.reached
    assert dict(found.ann_values)["mse"] == pytest.approx(0, abs=1e-6)
    result = evaluate(found.network, [(x, ann(x).detach()) for x, _ in data], found.T, metric="mse", progress=False)
    assert result.value[-1] < 0.03


class TwoHeads(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.other = body, nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.body(x)
        return {"scores": x, "boxes": self.other(x)}


def test_of_several_outputs_the_worst_counts(ann: nn.Module, data: list[Any]) -> None:
    heads = TwoHeads(ann).eval()
    batches = [(x, {"scores": y, "boxes": heads(x)["boxes"].detach()}) for x, y in data]
    found = search(heads, batches, 6.0, metric={"scores": "top1", "boxes": "mse"}, T=48)
    result = evaluate(
        found.network, batches, found.T, metric={"scores": "top1", "boxes": "mse"}, progress=False, readout=read(found)
    )
    assert found.reached
    assert 1 - result.values["scores"][-1] < 0.08
    assert result.values["boxes"][-1] < 0.08


class Unmeasured(nn.Module):
    """The second output depends on a layer of its own, whose few large activations a percentile clips."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu = nn.Linear(8, 24), nn.ReLU()
        self.inner, self.seen, self.head = nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4)
        self.other, self.unseen, self.last = nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 2)
        with torch.no_grad():
            self.other.weight[0] *= 50

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.relu(self.stem(x))
        return {"scores": self.head(self.seen(self.inner(x))), "boxes": self.last(self.unseen(self.other(x)))}


def test_the_diagnosis_is_by_the_metric_of_the_search(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    ann = Unmeasured().eval()
    with torch.no_grad():
        batches = [(x, {"scores": ann(x)["scores"].argmax(1)}) for x in images.split(60)]
    given: list[Any] = []
    tried: list[str] = []
    real, modes = measuring.diagnose, Space.layer_modes

    def spied(*args: Any, **options: Any) -> Any:
        given.append((real(*args, **options), options))
        return given[-1][0]

    def watched(space: Space, like: Any, layer: str) -> Any:
        tried.append(layer)
        return modes(space, like, layer)

    monkeypatch.setattr(measuring, "diagnose", spied)
    monkeypatch.setattr(Space, "layer_modes", watched)
    monkeypatch.setattr("sj_ann2snn.tuning.search.LAYERS", 2)
    metric = {"scores": "top1"}
    search(ann, batches, 4.0, metric=metric, mode=0.5, channel_wise=False, readout=Delayed(delay=1), T=16)
    assert given
    for diagnosis, options in given:
        assert options["metric"] == metric
        assert isinstance(options["readout"], Delayed)
        assert set(diagnosis.metrics) == {"scores"}
        assert diagnosis.worst[0].name == "unseen"
    assert set(tried) == {"relu", "seen"}


def test_the_diagnosis_counts_the_answers_of_the_ann_where_the_search_does(
    ann: nn.Module, data: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    real = measuring.diagnose

    def spied(*args: Any, **options: Any) -> Any:
        given.append(real(*args, **options))
        return given[-1]

    monkeypatch.setattr(measuring, "diagnose", spied)
    search(ann, data, against_ann=True, mode="max", layers=False)
    assert given
    assert all(set(one.metrics) == {"agreement"} for one in given)


def test_a_delay_is_estimated_from_the_data(ann: nn.Module, images: Tensor) -> None:
    """The last layer waits for 13 steps: no delay that readouts declare fits."""
    with torch.no_grad():
        batches = [(x, ann(x)) for x in images.split(60)]
    options: dict[str, Any] = {"neuron": SlowMaker({"1": 4, "3": 8, "5": 13}), "mode": "max", "layers": False, "T": 40}
    found = search(ann, batches, 3.0, metric="mse", **options)
    assert found.reached
    assert found.readout is not None
    name, chosen = found.readout
    assert name == "delayed"
    assert 12 <= chosen["delay"] < found.T
    assert f"readout=Delayed(delay={chosen['delay']})" in found.evaluate_call
    longest = search(ann, batches, 3.0, metric="mse", readout=Delayed(delay=8), **options)
    assert not longest.reached or found.T < longest.T
    assert search(ann, batches, 3.0, metric="mse", readout="mean", **options).readout is None


class Fine(GradedMaker):
    name = "fine"
    tunable = {"levels": (2, 16)}  # noqa: RUF012


def test_neurons_of_plugins_are_tried_with_the_values_that_they_declare(ann: nn.Module, data: list[Any]) -> None:
    plugin = SimpleNamespace(ann2snn_neurons=hookimpl(lambda: [Fine]))
    plain, found = search(ann, data), search(ann, data, plugins=[plugin])
    assert found.T < plain.T
    assert dict(found.arguments)["neuron"] == "fine"
    assert dict(found.arguments)["levels"] == 16
    assert "plugins" in found.arguments


class Planned(Max):
    """A mode that depends on the number of steps: λ falls with it."""

    name = "planned"

    def __init__(self, *, T: int = 2) -> None:  # noqa: N803 - the field's name for the number of time steps
        self.T = T

    def observer(self, site: Any) -> Any:
        observer = super().observer(site)
        scale = observer.scale
        observer.scale = lambda: scale() * (0.9 if self.T > 6 else 0.05)
        return observer


def test_a_mode_that_depends_on_the_steps_is_converted_for_each(ann: nn.Module, data: list[Any]) -> None:
    plugin = SimpleNamespace(ann2snn_normalizations=hookimpl(lambda: [Planned]))
    found = search(ann, data, 10.0, plugins=[plugin], mode="planned", layers=False)
    assert found.reached
    assert found.T > 6
    assert f"T={found.T})" in found.call.replace(", ", ")")
    graded = SimpleNamespace(
        ann2snn_normalizations=hookimpl(lambda: [Planned]), ann2snn_neurons=hookimpl(lambda: [Fine])
    )
    several = search(ann, data, 10.0, plugins=[graded], mode="planned", neuron="fine", layers=False)
    levels = several.arguments.get("levels", 3)
    assert several.arguments["T"] == several.T * levels


class Broken(Correction):
    name = "broken"

    def correct(self, trial: Trial) -> None:
        raise ValueError("no idea")


def test_what_cannot_be_converted_is_listed_and_the_rest_goes_on(ann: nn.Module, data: list[Any]) -> None:
    plugin = SimpleNamespace(ann2snn_corrections=hookimpl(lambda: [Broken]))
    found = search(ann, data, plugins=[plugin])
    assert found.reached
    (reason,) = {reason for call, reason in found.failures.items() if 'corrections="broken"' in call}
    assert "no idea" in reason
    assert "could not be converted" in str(found)
    with pytest.raises(ConversionError, match=r"None of \d+ conversions that were tried works. The first: .*no idea"):
        search(ann, data, plugins=[plugin], corrections="broken")


def test_a_network_that_does_not_convert_says_why(data: list[Any]) -> None:
    odd = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4), nn.Tanh(), nn.ReLU(), nn.Linear(4, 4))
    with pytest.raises(ConversionError, match=r"(?s)None of .* works\. The first: .*Tanh"):
        search(odd, data)


class Counting(Max):
    """Ctrl-C at the third conversion."""

    name = "counting"
    conversions = 0

    def observer(self, site: Any) -> Any:
        if site.index == 0:
            type(self).conversions += 1
        if self.conversions == 3:
            raise KeyboardInterrupt
        return super().observer(site)


def test_an_interrupted_search_keeps_what_it_has(ann: nn.Module, data: list[Any]) -> None:
    plugin = SimpleNamespace(ann2snn_normalizations=hookimpl(lambda: [Counting]))
    Counting.conversions = 0
    with pytest.raises(TuningInterrupted, match="the best so far") as stopped:
        search(ann, data, plugins=[plugin], mode="counting")
    assert isinstance(stopped.value, KeyboardInterrupt)
    best = stopped.value.result
    assert best.trials == 3
    assert best.arguments["mode"] == "counting"
    assert torch.isfinite(simulate(best.network, data[0][0], best.T)).all()


def test_no_time_leaves_the_first_candidate(ann: nn.Module, data: list[Any]) -> None:
    found = search(ann, data, seconds=0)
    assert found.trials <= 4
    assert found.call.startswith("Converter(calibration, ")


def test_other_modes_are_tried_in_the_layers_that_matter(images: Tensor) -> None:
    """One layer clips rare, large activations; with max in all layers the others round too much."""
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    with torch.no_grad():
        ann[2].weight[0] *= 30
        ann[4].weight[:, 0] *= 3
        labels = ann(images).argmax(1)
    found = search(ann, [(images, labels)], 2.0, mode=0.5, T=64, channel_wise=True, budget="steps")
    without = search(ann, [(images, labels)], 2.0, mode=0.5, T=64, channel_wise=True, budget="steps", layers=False)
    calls = "".join(point.call for point in found.frontier)
    assert "layers={" in calls
    assert (found.reached, -found.cost) >= (without.reached, -without.cost)


def test_it_is_data_a_table_and_a_picture(found: Tuning) -> None:
    plain = json.loads(found.to_json())
    assert plain["T"] == found.T
    assert plain["frontier"][0]["cost"] == found.frontier[0].cost
    assert plain["verdict"] == found.verdict
    assert f"snn = {found.call}" in str(found)
    assert 2 < str(found).count("Converter(") <= 13  # the rows, and the call
    assert f"{found.drop:.2f}  " in str(found)
    assert str(found).count("Converter(") == found._repr_html_().count("<tr>")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    axes = found.figure().axes[0]
    assert axes.get_xlabel() == "spikes per sample"
    assert axes.lines[1].get_xdata()[0] == found.cost


def test_the_frontier_is_a_data_frame(found: Tuning) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    assert list(found.to_pandas()["cost"]) == [point.cost for point in found.frontier]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"T": 0}, InputError, "T=0"),
        ({"energy": "free"}, OptionError, "energy='free' is not allowed"),
        ({"samples": 5}, InputError, "samples=5"),
        ({"budget": "money"}, OptionError, r"budget='money' is not known\. Allowed are 'steps', 'spikes'"),
        ({"max_drop": "much"}, OptionError, "max_drop='much' is not allowed: points that may be lost must be a number"),
        ({"max_drop": float("nan")}, OptionError, "max_drop=nan is not allowed"),
        ({"held_out": 0.95}, OptionError, r"held_out=0\.95 is not allowed: .* must be a number in \[0, 0\.9\)"),
        ({"seconds": -1}, OptionError, "seconds=-1 is not allowed"),
        ({"dataloader": []}, OptionError, r"tune does not take dataloader=\.\.\.; give calibration instead"),
        ({"metric": "beauty"}, OptionError, "beauty"),
        ({"nonsense": 3}, OptionError, "unknown keyword nonsense"),
        ({"mode": "mox"}, ModeError, "mode='mox' is not known"),
        ({"readout": "loud"}, OptionError, "loud"),
    ],
)
def test_wrong_arguments(
    ann: nn.Module, data: list[Any], arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        tune(ann, data, **{"progress": False, **arguments})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "The data is empty: it yields no batches to tune with"),
        (torch.rand(8, 8), r"The data is a tensor.*\[batch\]|one batch at most"),
        ([torch.rand(1, 8)], r"The data makes 1 batch, which cannot be shared out"),
        ([{}], "Batch 0 cannot be used"),
    ],
)
def test_wrong_data(ann: nn.Module, given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tune(ann, given, progress=False)


def test_the_ann_itself_is_asked_for(ann: nn.Module, data: list[Any]) -> None:
    snn = Converter([data[0][0]], progress=False)(ann)
    with pytest.raises(InputError, match=r"takes the ANN, but this \w+ has spiking neurons"):
        tune(snn, data)
    with pytest.raises(InputError, match=r"takes the ANN, a torch.nn.Module, not 'ann'"):
        tune("ann", data)  # type: ignore[arg-type]
