"""``sj-ann2snn modes``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import sj_ann2snn
from sj_ann2snn.cli import main

from ..helpers.command_line import BROKEN_PLUGIN, GOOD_PLUGIN, install, run


@pytest.mark.usefixtures("no_plugins")
def test_modes_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["modes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[::2]] == ["0.5", "max", "99.9%"]
    assert "true maximum" in lines[2]
    assert f"Percentile, sj-ann2snn {sj_ann2snn.__version__}; options: percentile_bits=None" in lines[5]


@pytest.mark.usefixtures("no_plugins")
def test_modes_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["modes", "--json"]) == 0
    modes = {mode["mode"]: mode for mode in json.loads(capsys.readouterr().out)["modes"]}
    assert set(modes) == {"max", "0.5", "99.9%"}
    assert modes["99.9%"] == {
        "mode": "99.9%",
        "name": "percentile",
        "class": "Percentile",
        "module": "sj_ann2snn.builtin.normalizations",
        "distribution": "sj-ann2snn",
        "version": sj_ann2snn.__version__,
        "entry_point": "sj_ann2snn.builtin.normalizations",
        "options": {"percentile_bits": {"required": False, "default": None}},
        "description": modes["99.9%"]["description"],
    }
    assert modes["99.9%"]["description"].startswith("λ is the true p-percentile")


def test_modes_of_plugins_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, "sj-test-twice", "1.2", GOOD_PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SJ_ANN2SNN_LOAD_PLUGINS", "sj-test-twice")
    assert main(["modes"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^twice +Pretends that everything is twice as large\.$", out, re.MULTILINE)
    assert "Twice, sj-test-twice 1.2; options: strength=2.0" in out


def test_a_broken_plugin_is_one_plain_line_on_stderr(tmp_path: Path) -> None:
    install(tmp_path, "sj-test-broken", "0.3", BROKEN_PLUGIN)
    done = run("modes", path=tmp_path)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: ")
    assert "sj-test-broken 0.3" in line
    assert "no luck today" in line
    assert "max" in done.stdout
