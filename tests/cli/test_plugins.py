"""``sj-ann2snn plugins``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import sj_ann2snn
from sj_ann2snn.cli import main

from ..helpers.command_line import BROKEN_PLUGIN, GOOD_PLUGIN, RUN, install, run

BOTH_FORMS = "main(['plugins']); print('and as JSON'); sys.exit(main(['plugins', '--json']))"


@pytest.mark.usefixtures("no_plugins")
def test_plugins_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"sj-ann2snn {sj_ann2snn.__version__}"
    assert "  sj_ann2snn.builtin.normalizations\n    ann2snn_normalizations: Max, Fraction, Percentile" in out
    assert "ReLUMapper" in out
    assert not err


@pytest.mark.usefixtures("no_plugins")
def test_plugins_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["failed"] == []
    hooks = {hook for plugin in found["plugins"] for hook in plugin["hooks"]}
    assert {"ann2snn_normalizations", "ann2snn_layer_mappers", "ann2snn_neurons"} <= hooks
    (modes,) = [plugin for plugin in found["plugins"] if plugin["entry_point"].endswith(".normalizations")]
    assert {"name": "max", "class": "Max", "module": "sj_ann2snn.builtin.normalizations"} in modes["hooks"][
        "ann2snn_normalizations"
    ]


def test_failed_plugins_are_told_with_their_traceback(tmp_path: Path) -> None:
    install(tmp_path, "sj-test-broken", "0.3", BROKEN_PLUGIN)
    install(tmp_path, "sj-test-twice", "1.2", GOOD_PLUGIN)
    done = run("plugins", path=tmp_path, program=RUN.replace("sys.exit(main())", BOTH_FORMS))
    assert done.returncode == 1
    assert not done.stderr, "the warning points here and would only repeat it"
    text, _, data = done.stdout.partition("and as JSON\n")
    assert "sj-test-broken 0.3 (entry point main) could not be loaded: RuntimeError: no luck today" in text
    assert re.search(r'^    .*sj_test_broken\.py", line 1', text, re.MULTILINE)
    assert "sj-test-twice 1.2\n  main\n    ann2snn_normalizations: Twice" in text
    (failed,) = json.loads(data)["failed"]
    assert (failed["distribution"], failed["version"], failed["entry_point"]) == ("sj-test-broken", "0.3", "main")
    assert failed["error"] == "RuntimeError: no luck today"
    assert failed["traceback"].startswith("Traceback (most recent call last)")
    assert "sj_test_broken.py" in failed["traceback"]


@pytest.mark.parametrize(
    ("variable", "value"), [("SJ_ANN2SNN_DISABLE_PLUGINS", "sj-test-twice"), ("SJ_ANN2SNN_LOAD_PLUGINS", "")]
)
def test_plugins_left_out_by_the_environment_are_told(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, "sj-test-twice", "1.2", GOOD_PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(variable, value)
    assert main(["plugins"]) == 0
    out = capsys.readouterr().out
    assert f"sj-test-twice 1.2 (entry point main) is installed but not in use: {variable}='{value}' disables" in out
