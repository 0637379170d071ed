"""``sj-ann2snn tune``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sj_ann2snn.cli import main

from ..helpers.command_line import SMALL_MODELS

MODELS = (
    SMALL_MODELS
    + """
def many():
    return loaders(160)

def stopped(output, target):
    raise KeyboardInterrupt
"""
)


@pytest.fixture
def models(workplace: Path) -> None:
    (workplace / "tuned.py").write_text(MODELS, encoding="utf-8")


ARGUMENTS = ["tune", "tuned:trained", "--data", "tuned:many", "--T", "12", "--max-drop", "5"]


def test_tune_prints_calls_and_the_frontier(models: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGUMENTS, "--mode", "max", "--channel-wise", "--readout", "mean", "--budget", "spikes"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("T=")
    assert "\nsnn = Converter(calibration, " in shown
    assert 'mode="max"' in shown
    assert "\npoints lost " in shown
    assert " on 112 samples, " in shown
    assert " on 48 held out" in shown


def test_tune_as_json(models: None, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = ["--option", "neuron=if", "--option", "initial_potential=0.5", "--mode", "99%"]
    assert main([*ARGUMENTS, *fixed, "--against-ann", "--held-out", "0.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["arguments"]["mode"] == "99%"
    assert found["arguments"]["initial_potential"] == 0.5
    assert found["ann_values"] == {"agreement": 1.0}
    assert found["held_out_samples"] == 80
    assert found["reached"] is True


def test_tune_refuses_what_the_search_refuses(models: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGUMENTS, "--held-out", "2"]) == 2
    assert "held_out=2.0 is not allowed" in capsys.readouterr().err
    assert main([*ARGUMENTS, "--option", "mode=max"]) == 2
    assert "use --mode instead" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*ARGUMENTS, "--budget", "money"])
    assert "invalid choice: 'money'" in capsys.readouterr().err


def test_an_interrupt_before_anything_is_known(models: None) -> None:
    assert main([*ARGUMENTS, "--metric", "tuned:stopped"]) == 130


def test_tune_goes_on_from_its_checkpoint(models: None, capsys: pytest.CaptureFixture[str], workplace: Path) -> None:
    arguments = [*ARGUMENTS, "--mode", "max", "--channel-wise", "--readout", "mean", "--json", "--checkpoint", "s.json"]
    assert main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert (workplace / "s.json").is_file()
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert main([*arguments, "--max-drop", "6"]) == 2
    assert "max drop was 5.0, and is 6.0" in capsys.readouterr().err
