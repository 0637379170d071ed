"""Commands under torchrun: several processes share the data, and one of them prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sj_ann2snn.cli import main

from ..helpers.command_line import compared

EVALUATE = ["evaluate", "usercode:network", "--data", "usercode:data", "--T", "12"]


@pytest.mark.usefixtures("workplace")
def test_evaluate_prints_the_ann_and_the_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*EVALUATE, "--early-exit", "100"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "ANN accuracy 1.0000"
    assert second.startswith("accuracy ")
    assert "120 samples" in second


@pytest.mark.usefixtures("workplace")
def test_evaluate_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*EVALUATE, "--metric", "mse", "--against-ann", "--readout", "delayed", "delay=2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ann"] == {"mse": 0.0}
    assert len(found["result"]["values"]["mse"]) == 12
    assert found["readout"] == ["delayed", "delay=2"]


def together(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in two processes that torchrun starts."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launcher, "-m", "sj_ann2snn", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def without_times(found: Any) -> Any:
    """JSON without what every run has another one of."""
    if isinstance(found, dict):
        return {key: without_times(value) for key, value in found.items() if key != "seconds"}
    return [without_times(one) for one in found] if isinstance(found, list) else found


def test_two_processes_print_once_what_one_prints(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="compare draws a picture")
    command = compared("--modes", "max", "99%", "--json", "--out", "results")
    done = together(workplace, *command)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("mode max: converting") == 1
    assert main(command) == 0
    assert without_times(json.loads(done.stdout)) == without_times(json.loads(capsys.readouterr().out))


def test_commands_for_one_process_say_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert main(["modes"]) == 2
    assert "This command runs in one process, but a launcher has started several" in capsys.readouterr().err
