"""``sj-ann2snn diagnose``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sj_ann2snn.cli import main

MODELS = """
import torch

def trained():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))

def loaders():
    torch.manual_seed(1)
    x = torch.rand(60, 6)
    return [x], [(x, trained()(x).argmax(1))]
"""


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
