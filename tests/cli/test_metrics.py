"""``--metric`` of `compare` and `bench`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sj_ann2snn import evaluate
from sj_ann2snn.cli import main

from ..helpers.command_line import failing
from ..helpers.networks import convert

CODE = """
import torch
from torch import nn


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.scores, self.boxes = nn.Linear(4, 12), nn.Linear(12, 3), nn.Linear(12, 2)

    def forward(self, x):
        h = torch.relu(self.body(x))
        return {"scores": self.scores(h), "boxes": self.boxes(h)}


def one_head():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3))


def loaders():
    torch.manual_seed(1)
    x = torch.randn(30, 4)
    targets = {"scores": torch.randint(3, (30,)), "boxes": torch.randn(30, 2)}
    return [x], [(x[:20], {k: v[:20] for k, v in targets.items()}), (x[20:], {k: v[20:] for k, v in targets.items()})]


def numbers():
    torch.manual_seed(1)
    x = torch.randn(30, 4)
    return [x], [(x, torch.randn(30, 3))]


def unlabelled():
    return numbers()[0], numbers()[0]


def worst(output, target):
    return (output - target).abs().max()


class Largest:
    def __init__(self):
        self.found = []

    def update(self, output, target):
        self.found.append(output.max())

    def compute(self):
        return max(self.found)


largest = Largest()


def made():
    return Largest()
"""


@pytest.fixture(autouse=True)
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "measured.py").write_text(CODE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SJ_ANN2SNN_LOAD_PLUGINS", "")
    yield
    sys.modules.pop("measured", None)


def compared(network: str, data: str, *more: str) -> list[str]:
    return ["compare", f"measured:{network}", "--data", f"measured:{data}", "--modes", "max", "--T", "6", *more]


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (("mse",), "mse"),
        (("measured:worst",), "worst"),
        (("measured:largest",), "Largest"),
        (("measured:Largest",), "Largest"),
        (("measured:made",), "Largest"),
    ],
)
def test_compare_measures_what_evaluate_measures(
    given: tuple[str, ...], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = found(capsys, *compared("one_head", "numbers", "--metric", *given))
    import measured  # type: ignore[import-not-found]

    metric = {"mse": "mse", "worst": measured.worst}.get(name, measured.largest)
    calibration, test = measured.numbers()
    ann = measured.one_head()
    wanted = evaluate(convert(ann, calibration, mode="max"), test, 6, metric=metric, progress=False)
    (mode,) = numbers["modes"]  # type: ignore[misc]
    assert mode["values"] == {name: list(wanted.value)}
    assert numbers["ann"] == {name: evaluate(ann, test, 1, metric=metric, progress=False).value[0]}
    assert "ann_accuracy" not in numbers
    assert numbers["pictures"] == [f"{name}.png"]
    assert Path("sj-ann2snn-compare", f"{name}.png").stat().st_size > 10_000


def test_compare_measures_several_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(compared("Heads", "loaders", "--metric", "scores=top1", "boxes=mse")) == 0
    out = capsys.readouterr().out
    assert re.search(r"^ANN scores 0\.\d{4}, boxes \d\.\d{4} on 30 samples$", out, re.M)
    assert out.count("spikes and synaptic operations per sample over T=6 steps") == 2
    assert Path("sj-ann2snn-compare", "scores.png").is_file()
    assert Path("sj-ann2snn-compare", "boxes.png").is_file()
    split = compared("Heads", "loaders", "--metric", "scores=top1", "--metric", "boxes=mse")
    assert list(found(capsys, *split)["ann"]) == ["scores", "boxes"]  # type: ignore[call-overload]


def test_compare_needs_no_targets_for_agreement(capsys: pytest.CaptureFixture[str]) -> None:
    assert found(capsys, *compared("one_head", "unlabelled", "--metric", "agreement"))["ann"] == {"agreement": 1}
    several = found(capsys, *compared("one_head", "unlabelled", "--metric", "mse", "--metric", "top1", "--against-ann"))
    assert several["ann"] == {"mse": 0, "top1": 1}
    assert found(capsys, *compared("one_head", "unlabelled", "--against-ann"))["ann"] == {"agreement": 1}


def test_bench_measures(capsys: pytest.CaptureFixture[str]) -> None:
    timed = ["bench", "measured:one_head", "--T", "6", "--samples", "5", "--repeats", "1"]
    data = ["--data", "measured:numbers", "--metric", "mse"]
    numbers = found(capsys, *timed, *data)
    import measured

    calibration, test = measured.numbers()
    wanted = evaluate(convert(measured.one_head(), calibration, mode="max"), test, 6, metric="mse", progress=False)
    assert numbers["values"]["mse"]["spiking network"] == pytest.approx(wanted.value[-1])  # type: ignore[index]
    assert main([*timed, *data]) == 0
    assert re.search(r"mse after T=6: \d\.\d{4} \(ANN \d\.\d{4}\)", capsys.readouterr().out)
    without = failing(capsys, *timed, "--input", "4", "--metric", "mse")
    assert without.strip() == "error: --metric measures the network on your test data: give --data MODULE:LOADERS."


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("topp1",), r"metric='topp1' is not known\. Did you mean 'top1'"),
        (("iou", "treshold=0.5"), r"The metric iou does not take these options: treshold"),
        (("iou", "threshold=much"), r"threshold='much' is not allowed"),
        (("iou", "threshold"), r"--metric iou threshold: 'threshold' is not allowed: write an option as name=value"),
        (("measured:worst", "a=1"), r"--metric measured:worst a=1 is not allowed: only named metrics take options"),
        (("measured:nothing",), r"measured has no 'nothing'"),
        (("measured:CODE",), r"measured has no 'CODE'"),
        (("nowhere:metric",), r"there is no module 'nowhere'"),
        (("scores=top1", "--metric", "mse"), r"with and without names of outputs"),
        (("measured:torch",), r"metric=.* is not allowed: give the name of a metric"),
    ],
)
def test_what_is_refused(given: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(message, failing(capsys, *compared("one_head", "numbers", "--metric", *given)))
