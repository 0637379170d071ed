"""The command line as a program: its help, its version, and what all commands share."""

from __future__ import annotations

import importlib.metadata
import io
import os
import subprocess
import sys

import pytest
import torch

import sj_ann2snn
from sj_ann2snn.cli import main

from ..helpers.command_line import RUN


def test_the_script_is_installed() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="sj-ann2snn")
    assert script.load() is main


def test_version_names_what_is_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"sj-ann2snn {sj_ann2snn.__version__} (SpikingJelly ")
    assert f"torch {torch.__version__}" in out
    assert not err


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("demo", "compare", "modes", "plugins", "--version"))


@pytest.mark.parametrize("command", ["demo", "compare", "modes", "plugins"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "--json" in text
    assert "%%" not in text


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "demo" in capsys.readouterr().err


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["convert"])
    assert stopped.value.code == 2
    assert "convert" in capsys.readouterr().err


def test_light_commands_import_nothing_heavy() -> None:
    code = (
        "import sys; from sj_ann2snn.cli import main; main(['modes', '--json']); "
        "heavy = {'matplotlib', 'sklearn', 'tensorboard', 'torchvision'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("no_plugins")
def test_a_narrow_terminal_gets_a_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert main(["modes"]) == 0
    assert b"? is the true maximum" in written.getvalue()


@pytest.mark.skipif(os.name != "posix", reason="pipes break differently there")
def test_a_reader_that_leaves_early_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-c", RUN, "modes"], stdout=gone, stderr=subprocess.PIPE, timeout=300, check=False
        )
    assert done.stderr == b""
    assert done.returncode == 141
