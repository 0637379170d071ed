"""``sj-ann2snn costs``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sj_ann2snn.cli import main

from ..helpers.command_line import SMALL_MODELS

COMMAND = ["costs", "counted:trained", "--data", "counted:loaders", "--T", "16"]


@pytest.fixture(autouse=True)
def models(workplace: Path) -> None:
    (workplace / "counted.py").write_text(SMALL_MODELS, encoding="utf-8")


def test_costs_prints_a_table_and_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("layer ")
    assert "2 (Linear)" in shown
    assert "The spiking network takes " in shown


def test_costs_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    figures = ["--energy", "mac=2", "accumulate=0.5", "update=1"]
    assert main([*COMMAND, "--samples", "20", *figures, "--early-exit", "3", "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["mode"] == "max"
    assert found["early_exit"] == 3
    costs = found["costs"]
    assert costs["samples"] == 20
    assert costs["ann_macs"] == 6 * 16 + 16 * 3
    assert costs["energy"] == pytest.approx(2 * costs["macs"] + 0.5 * costs["accumulates"] + costs["updates"])
    assert costs["verdict"] in shown.err


def test_known_energies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--energy", "int8"]) == 0
    assert "8-bit integer, 45 nm: MAC 0.23 pJ" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("energy", "message"),
    [
        (["int9"], "energy='int9' is not allowed"),
        (["mac=much"], "--energy mac=much is not allowed: much is not a number of pJ"),
        (["mac="], "nothing is not a number of pJ"),
        (["mac=-1"], "EnergyPerOperation(mac=-1.0) is not allowed"),
        (["flop=1"], "--energy flop=1 is not allowed: give one of float32"),
        (["float32", "int8"], "--energy float32 is not allowed"),
    ],
)
def test_energies_that_are_none(energy: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--energy", *energy]) == 2
    assert message in capsys.readouterr().err


def test_arguments_of_its_own_are_no_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--option", "mode=max"]) == 2
    assert "use --mode instead" in capsys.readouterr().err
