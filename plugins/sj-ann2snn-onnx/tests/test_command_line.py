"""``sj-ann2snn export --to onnx --check``."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from sj_ann2snn_onnx import notes_of

from sj_ann2snn.cli import main

pytest.importorskip("onnxruntime")

MODELS = """
import torch
from torch import nn

def trained():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 3)
    )

def loaders():
    torch.manual_seed(1)
    data = [((torch.rand(20, 1, 8, 8) * 64).round() / 64, torch.randint(3, (20,))) for _ in range(2)]
    return data[:1], data[1:]
"""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        version("sj-ann2snn-onnx")
    except PackageNotFoundError:
        pytest.skip("the command line finds installed plugins, and this one is not installed")
    (tmp_path / "onnx_models.py").write_text(MODELS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("weights", [[], ["--weights", "int8"]], ids=["float", "int8"])
def test_a_file_is_written_and_checked(weights: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["export", "onnx_models:trained", "--data", "onnx_models:loaders", "--mode", "99.9%", "--out", "net.onnx"]
    status = main([*asked, *weights, "--to", "onnx", "spikes=True", "--check", "5", "--T", "100", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == "onnx"
    assert found["check"]["layers"] == ["1", "5"]
    assert (found["check"]["samples"], found["check"]["steps"]) == (5, 100)
    assert found["check"]["agrees"] is (status == 0)
    assert found["check"]["agrees"] or not weights  # in floating point, the first currents may be rounded differently
    assert notes_of("net.onnx")["numbers"] == ("integers" if weights else "float32")
