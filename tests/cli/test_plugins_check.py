"""``sj-ann2snn plugins --check``: every class of every installed plugin is tried, each by itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sj_ann2snn.cli import main
from sj_ann2snn.hooks import kinds
from sj_ann2snn.hooks.discovery import ALLOW_VARIABLE
from sj_ann2snn.testing.fixtures import FakeDistributions, fake_distributions, isolated_plugins  # noqa: F401

ALL_KINDS = """
import torch
from sj_ann2snn import *
from sj_ann2snn.builtin import exits, exporters, neurons, normalizations, readouts
import all_kinds_settings as settings


class Rectifier(torch.nn.Module):
    def forward(self, x):
        return torch.where(x > 0, x, torch.zeros_like(x))


def may_fail(name):
    if name == settings.fails:
        raise RuntimeError(f"{name} is out of order")


class Mode(normalizations.Max):
    name = "a-mode"

    def observer(self, site):
        may_fail(self.name)
        return super().observer(site)


class Mapper(LayerMapper):
    name = "a-mapper"
    claims = (Rectifier,)

    def map(self, site):
        may_fail(self.name)
        return Spike()


class Maker(neurons.IFNeuron):
    name = "a-neuron"

    def make(self, site):
        may_fail(self.name)
        return super().make(site)


class Lift(Correction):
    name = "a-correction"

    def correct(self, trial):
        may_fail(self.name)
        trial.adjust_output(trial.output_bias + 1)


class Rule(exits.Margin):
    name = "an-exit-rule"

    def settled(self, answers, step):
        may_fail(self.name)
        return super().settled(answers, step)


class Answer(readouts.Mean):
    name = "a-readout"

    def last_answer(self, outputs, state, done):
        may_fail(self.name)
        return super().last_answer(outputs, state, done)


class Format(exporters.Archive):
    name = "a-format"
    suffixes = ()

    def load(self, path):
        may_fail(self.name)
        return super().load(path)


ann2snn_normalizations = hookimpl(lambda: [Mode], specname="ann2snn_normalizations")
ann2snn_layer_mappers = hookimpl(lambda: [Mapper], specname="ann2snn_layer_mappers")
ann2snn_neurons = hookimpl(lambda: [Maker], specname="ann2snn_neurons")
ann2snn_corrections = hookimpl(lambda: [Lift], specname="ann2snn_corrections")
ann2snn_exit_rules = hookimpl(lambda: [Rule], specname="ann2snn_exit_rules")
ann2snn_readouts = hookimpl(lambda: [Answer], specname="ann2snn_readouts")
ann2snn_exporters = hookimpl(lambda: [Format], specname="ann2snn_exporters")
"""

NAMES = {
    "ann2snn_normalizations": "a-mode",
    "ann2snn_layer_mappers": "a-mapper",
    "ann2snn_neurons": "a-neuron",
    "ann2snn_corrections": "a-correction",
    "ann2snn_exit_rules": "an-exit-rule",
    "ann2snn_readouts": "a-readout",
    "ann2snn_exporters": "a-format",
}


@pytest.fixture
def installed(fake_distributions: FakeDistributions, monkeypatch: pytest.MonkeyPatch) -> FakeDistributions:  # noqa: F811
    monkeypatch.setenv(ALLOW_VARIABLE, "all-kinds")
    place = fake_distributions.add("all-kinds", ALL_KINDS, version="1.5", entry_points={"kinds": "all_kinds"})
    (place / "all_kinds_settings.py").write_text("fails = None\n", encoding="utf-8")
    return fake_distributions


def checked(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    status = main(["plugins", "--json", "--check"])
    out, err = capsys.readouterr()
    assert not err
    return status, json.loads(out)


def test_there_is_a_name_for_every_hook() -> None:
    assert set(NAMES) == set(kinds.KINDS)


def test_a_plugin_of_every_kind_works(installed: FakeDistributions, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = checked(capsys)
    assert status == 0
    place = {"distribution": "all-kinds", "version": "1.5", "entry_point": "kinds"}
    wanted = [{**place, "hook": hook, "name": name, "status": "works"} for hook, name in NAMES.items()]
    assert sorted(found["tried"], key=lambda row: row["hook"]) == sorted(wanted, key=lambda row: row["hook"])
    assert found["conflicts"] == []
    assert main(["plugins", "--check"]) == 0
    out = capsys.readouterr().out
    assert "Tried on a small network for T=4" in out
    for hook, name in NAMES.items():
        assert f"\n  all-kinds 1.5 {hook} {name!r}: works\n" in out


@pytest.mark.parametrize("hook", NAMES)
def test_what_fails_in_use_is_told_and_the_others_work(
    hook: str, installed: FakeDistributions, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = installed.root / "all-kinds" / "all_kinds_settings.py"
    settings.write_text(f"fails = {NAMES[hook]!r}\n", encoding="utf-8")
    status, found = checked(capsys)
    assert status == 1
    assert {row["hook"] for row in found["tried"]} == set(NAMES)
    for row in found["tried"]:
        if row["hook"] == hook:
            assert row["status"].startswith("PluginError: ")
            assert f"failed with RuntimeError: {NAMES[hook]} is out of order" in row["status"]
        else:
            assert row["status"] == "works"
    assert main(["plugins", "--check"]) == 1
    assert f"{hook} {NAMES[hook]!r}: PluginError: " in capsys.readouterr().out
    # Without --check nothing is tried.
    assert main(["plugins", "--json"]) == 0
    assert "tried" not in json.loads(capsys.readouterr().out)


def test_what_a_plugin_prints_is_no_part_of_the_json(
    installed: FakeDistributions, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = installed.root / "all-kinds" / "all_kinds_settings.py"
    settings.write_text("fails = None\nprint('a greeting')\n", encoding="utf-8")
    assert main(["plugins", "--json", "--check"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["failed"] == []
    assert err == "a greeting\n"


def test_with_no_plugin_there_is_nothing_to_try(
    isolated_plugins: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, "")
    assert main(["plugins", "--check"]) == 0
    assert "Nothing to try: no installed plugin contributes a class." in capsys.readouterr().out
    status, found = checked(capsys)
    assert (status, found["tried"]) == (0, [])
