"""``sj-ann2snn report``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sj_ann2snn import html_report
from sj_ann2snn.cli import main

from ..helpers.command_line import SMALL_MODELS
from ..helpers.onnx_models import Weights, model, needs_onnx, node

ARGUMENTS = ["reported:trained", "--data", "reported:loaders", "--mode", "0.2", "--T", "16"]


@pytest.fixture
def models(workplace: Path) -> Path:
    (workplace / "reported.py").write_text(SMALL_MODELS, encoding="utf-8")
    return workplace


def test_report_writes_a_page(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *ARGUMENTS, "--title", "My network"]) == 0
    page = (models / "report.html").read_text(encoding="utf-8")
    assert "<h1>My network</h1>" in page
    assert "What became of 3 calls of the ANN" in page
    shown = capsys.readouterr().out.splitlines()
    assert "clipping" in shown[0]
    assert shown[1] == f"wrote report.html ({len(page.encode()):,} bytes)"


def test_the_data_of_the_page_makes_it_again(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *ARGUMENTS, "--out", "page.html", "--samples", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == "page.html"
    assert found["diagnosis"]["samples"] == 20
    again = html_report(found["diagnosis"])
    page = (models / "page.html").read_text(encoding="utf-8")
    assert again.partition('id="made"')[0] == page.partition('id="made"')[0]


def test_report_takes_the_arguments_of_diagnose(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *ARGUMENTS, "--readout", "delayed", "delay=2", "--channel-wise"]) == 0
    assert "readout delayed" in (models / "report.html").read_text(encoding="utf-8")
    assert main(["report", *ARGUMENTS, "--option", "mode=max"]) == 2
    assert "use --mode instead" in capsys.readouterr().err


@needs_onnx
def test_an_onnx_file(models: Path) -> None:
    import onnx

    w = Weights()
    nodes = [
        node("Gemm", f"x {w('first', 6, 16)}", "a", "/first/Gemm"),
        node("Relu", "a", "b", "/relu/Relu"),
        node("Gemm", f"b {w('second', 16, 3)}", "y", "/second/Gemm"),
    ]
    onnx.save(model(nodes, {"x": ("n", 6)}, ["y"], w), "model.onnx")
    assert main(["report", "model.onnx", "--data", "reported:loaders", "--T", "4"]) == 0
    assert "<svg" in (models / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("out", "message"),
    [("nowhere/page.html", "there is no folder nowhere"), (".", "is a folder. Name a file, such as report.html")],
)
def test_a_place_that_cannot_be_written_is_refused_at_once(
    models: Path, capsys: pytest.CaptureFixture[str], out: str, message: str
) -> None:
    assert main(["report", "no_such_module:f", "--data", "no_such_module:g", "--out", out]) == 2
    assert message in capsys.readouterr().err
