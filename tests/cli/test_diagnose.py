"""``sj-ann2snn diagnose``."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sj_ann2snn.cli import main

from ..helpers.command_line import SMALL_MODELS
from ..helpers.onnx_models import Weights, model, needs_onnx, node

MODELS = (
    SMALL_MODELS
    + """
def numbers():
    (x,), _ = loaders()
    return [x], [(x, trained()(x).detach())]

def unlabelled():
    (x,), _ = loaders()
    return [x], [x]

originals, moved = [], []

class Moving(torch.nn.Sequential):
    def to(self, *args, **kwargs):
        if self is originals[0]:
            moved.append(args)
        return super().to(*args, **kwargs)

def moving():
    originals.append(Moving(*trained()))
    return originals[0]

class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.head = trained()[:2], torch.nn.Linear(16, 2)

    def forward(self, x):
        hidden = self.layers(x)
        return {"scores": hidden[:, :3], "boxes": self.head(hidden)}

def two():
    torch.manual_seed(2)
    return Two()
"""
)


@pytest.fixture
def models(workplace: Path) -> None:
    (workplace / "diagnosed.py").write_text(MODELS, encoding="utf-8")


def test_diagnose_prints_a_table_a_verdict_and_calls(models: None, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["diagnosed:trained", "--data", "diagnosed:loaders", "--mode", "0.2", "--T", "16"]
    assert main(["diagnose", *arguments]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("layer ")
    assert "1. 1 clips " in shown
    assert "Converter(mode=" in shown


def test_diagnose_as_json(models: None, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["diagnosed:trained", "--data", "diagnosed:loaders", "--mode", "0.2", "--T", "16", "--samples", "20"]
    assert main(["diagnose", *arguments, "--readout", "delayed", "delay=2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mode"] == "0.2"
    assert found["diagnosis"]["samples"] == 20
    assert found["diagnosis"]["readout"] == "delayed"
    assert found["diagnosis"]["advice"][0]["cause"] == "clipping"


def test_diagnose_refuses_its_own_arguments_as_options(models: None, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["diagnosed:trained", "--data", "diagnosed:loaders", "--option", "mode=max"]
    assert main(["diagnose", *arguments]) == 2
    assert "use --mode instead" in capsys.readouterr().err


def numbers_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["diagnose", *arguments, "--mode", "0.2", "--T", "8", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_diagnose_by_another_metric(models: None, capsys: pytest.CaptureFixture[str]) -> None:
    found = numbers_of(capsys, "diagnosed:trained", "--data", "diagnosed:numbers", "--metric", "mse")
    one = found["diagnosis"]["metrics"]["mse"]
    assert found["metric"] == [["mse"]]
    assert one["unit"] == ""
    assert one["higher_is_better"] is False
    assert one["drop"] == pytest.approx(one["value"] - one["ann_value"])
    assert found["diagnosis"]["layers"][0]["alone_points"] > 0
    found = numbers_of(
        capsys, "diagnosed:trained", "--data", "diagnosed:loaders", "--metric", "torch.nn.functional:cross_entropy"
    )
    assert list(found["diagnosis"]["metrics"]) == ["cross_entropy"]
    with_options = ["--metric", "top1", "top=2"]
    found = numbers_of(capsys, "diagnosed:trained", "--data", "diagnosed:loaders", *with_options)
    assert found["diagnosis"]["metrics"]["top2"]["unit"] == "points"


def test_diagnose_against_the_ann(models: None, capsys: pytest.CaptureFixture[str]) -> None:
    found = numbers_of(capsys, "diagnosed:trained", "--data", "diagnosed:unlabelled", "--against-ann")
    assert found["against_ann"] is True
    assert found["diagnosis"]["metrics"]["agreement"]["ann_value"] == 1
    found = numbers_of(
        capsys,
        "diagnosed:two",
        "--data",
        "diagnosed:unlabelled",
        "--metric",
        "scores=agreement",
        "boxes=mse",
        "--against-ann",
    )
    assert list(found["diagnosis"]["metrics"]) == ["scores", "boxes"]
    assert main(["diagnose", "diagnosed:trained", "--data", "diagnosed:unlabelled", "--metric", "mse", "--T", "4"]) == 2
    assert "which the metric 'mse' asks for" in capsys.readouterr().err


def test_diagnose_moves_the_ann_to_the_device(models: None, capsys: pytest.CaptureFixture[str]) -> None:
    numbers_of(capsys, "diagnosed:moving", "--data", "diagnosed:loaders", "--device", "cpu")
    moved = importlib.import_module("diagnosed").moved
    assert moved == [(torch.device("cpu"),)]
    assert main(["diagnose", "diagnosed:moving", "--data", "diagnosed:loaders", "--device", "nowhere"]) == 2
    assert "--device nowhere cannot be used here" in capsys.readouterr().err


@needs_onnx
def test_diagnose_an_onnx_file(models: None, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx

    weights = Weights()
    nodes = [
        node("Gemm", f"x {weights('w', 6, 16)} {weights('b', 16)}", "h"),
        node("Relu", "h", "r"),
        node("Gemm", f"r {weights('v', 16, 3)} {weights('c', 3)}", "y"),
    ]
    onnx.save(model(nodes, {"x": ("n", 6)}, ["y"], weights), workplace / "net.onnx")
    found = numbers_of(capsys, "net.onnx", "--data", "diagnosed:unlabelled", "--metric", "mse", "--against-ann")
    assert found["diagnosis"]["metrics"]["mse"]["ann_value"] == 0
    assert found["diagnosis"]["metrics"]["mse"]["drop"] > 0
