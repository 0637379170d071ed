"""Whatever the user's code does, a command ends with one message and its exit status, never with a traceback or a lie."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sj_ann2snn.cli import main

CODE = """
import sys
import torch
from torch import nn


class Stop(BaseException):
    pass


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def batches():
    x = torch.rand(20, 4)
    return [(x, torch.zeros(20, dtype=torch.int64))]


def loaders():
    return batches(), batches()


def exits():
    sys.exit(0)


def exits_with_text():
    sys.exit("no licence")


def stops():
    raise Stop("enough")


def long():
    raise ValueError("x" * 10**7)


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def unprintable():
    raise Unprintable


def interrupted():
    raise KeyboardInterrupt


def chatty():
    print("hello from the network")
    return network()


class Network(nn.Module):
    def __init__(self, features):
        super().__init__()


def needs(features, classes):
    return network()


class Loader:
    def __init__(self, fail, after=0):
        self.fail, self.after = fail, after

    def __iter__(self):
        yield from batches() * self.after
        self.fail()


def breaks():
    raise OSError("disk on fire")


def broken_loaders():
    return Loader(breaks), Loader(breaks)


def exiting_loaders():
    return Loader(exits), Loader(exits)


def interrupted_loaders():
    return Loader(interrupted), Loader(interrupted)


def half_broken_loaders():
    return batches(), Loader(breaks, after=1)


def half_exiting_loaders():
    return batches(), Loader(exits, after=1)


class Forward(nn.Module):
    def __init__(self, fail):
        super().__init__()
        self.net, self.fail = network(), fail

    def forward(self, x):
        self.fail()
        return self.net(x)


def exiting_network():
    return Forward(exits)


def key_error():
    return {}["scale"]


def failing_network():
    return Forward(key_error)


class Hostile:
    def __getattr__(self, name):
        raise RuntimeError("hands off")


hostile = Hostile()
"""

MODULES = {
    "user": CODE,
    "prints": CODE + "\nprint('hello from the module')\n",
    "exits_at_import": "import sys\nsys.exit(0)\n",
    "raises_at_import": "raise ValueError('not today')\n",
    "stops_at_import": "class Stop(BaseException): pass\nraise Stop('enough')\n",
    "no_syntax": "def f(:\n",
    "not_text": "\x00",
    "guarded": "def __getattr__(name):\n    raise RuntimeError('hands off')\n",
    "interrupted": "raise KeyboardInterrupt\n",
}

COMMANDS: dict[str, list[str]] = {
    "check": ["check", "{network}", "--data", "{loaders}"],
    "compare": ["compare", "{network}", "--data", "{loaders}", "--modes", "max", "--T", "3", "--json"],
    "bench": ["bench", "{network}", "--data", "{loaders}", "--T", "3", "--repeats", "1", "--json"],
    "export": ["export", "{network}", "--data", "{loaders}", "--out", "network.zip", "--json"],
}
"""The commands that run the user's code."""

NETWORKS = {
    "user:exits": r"user:exits: calling it failed: it called sys.exit(0), so nothing further was done.",
    "user:exits_with_text": "it called sys.exit('no licence')",
    "user:stops": "user:stops: calling it failed with Stop: enough",
    "user:long": "failed with ValueError: xxx",
    "user:unprintable": "failed with Unprintable",
    "user:Network": "user:Network is a class that needs arguments (features)",
    "user:needs": "user:needs is a function that needs arguments (features, classes)",
    "user:hostile": "must return a trained torch.nn.Module",
    "user:hostile.network": "looking up 'network' failed with RuntimeError: hands off",
    "user:network.__class__": "user:network.__class__",
    "exits_at_import:network": "importing exits_at_import failed: it called sys.exit(0)",
    "raises_at_import:network": "importing raises_at_import failed with ValueError: not today",
    "stops_at_import:network": "importing stops_at_import failed with Stop: enough",
    "no_syntax:network": "importing no_syntax failed with SyntaxError",
    "not_text:network": "importing not_text failed with ",
    "guarded:network": "looking up 'network' failed with RuntimeError: hands off",
    ".user:network": "'.user:network' is not MODULE:NAME",
    "user:": "'user:' is not MODULE:NAME",
    "user..x:network": "user..x:network",
    "user:" + "x" * 10**5: "has no 'xxx",
    "user:failing_network": "KeyError: 'scale'",
    "user:exiting_network": "it called sys.exit(0)",
}
"""Networks that cannot be had, and what is said."""

LOADERS = {
    "user:exits": "user:exits: calling it failed: it called sys.exit(0)",
    "user:network": "it must return two",
    "user:hostile": "it must return two",
    "user:broken_loaders": "disk on fire",
    "user:exiting_loaders": "it called sys.exit(0)",
}
"""Loaders that cannot be had, and what is said."""


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SJ_ANN2SNN_LOAD_PLUGINS", "")
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


def run(command: str, network: str = "user:network", loaders: str = "user:loaders") -> int:
    return main([part.format(network=network, loaders=loaders) for part in COMMANDS[command]])


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """The only error message of a command that has failed."""
    out, err = capsys.readouterr()
    assert not out
    assert "Traceback" not in err
    assert err.count("error: ") == 1
    assert len(err) < 4000
    return err[err.index("error: ") :]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("network", NETWORKS, ids=lambda name: name[:40])
def test_networks_that_cannot_be_had(network: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, network) == 2
    assert NETWORKS[network] in told(capsys)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("loaders", LOADERS)
def test_loaders_that_cannot_be_had(loaders: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, loaders=loaders) == 2
    assert LOADERS[loaders] in told(capsys)


@pytest.mark.parametrize(
    ("loaders", "message"),
    [
        ("user:half_broken_loaders", "The loader cannot be read: batch 1 fails with OSError: disk on fire."),
        ("user:half_exiting_loaders", "The command stopped: it called sys.exit(0), so nothing further was done."),
    ],
)
def test_loaders_that_fail_midway(loaders: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", loaders=loaders) == 2
    assert message in told(capsys)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "code",
    [
        {"network": "user:interrupted"},
        {"network": "interrupted:network"},
        {"loaders": "user:interrupted"},
        {"loaders": "user:interrupted_loaders"},
    ],
    ids=str,
)
def test_ctrl_c_in_the_users_code(code: dict[str, str], command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, **code) == 130
    assert "Traceback" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("command", ["compare", "bench", "export"])
@pytest.mark.parametrize("network", ["user:chatty", "prints:network"])
def test_what_the_users_code_prints_does_not_mix_with_the_result(
    network: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, network) == 0
    out, err = capsys.readouterr()
    json.loads(out)
    assert "hello from the " in err


def test_the_place_in_the_users_code_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "user:exits") == 2
    message = told(capsys)
    assert "user.py" in message
    assert "sys.exit(0)" in message.splitlines()[-1]
    assert "targets.py" not in message


def test_a_fault_of_a_command_is_told_like_any_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sj_ann2snn.cli.modes.describe_mode", lambda one: 1 / 0)
    assert main(["modes"]) == 2
    assert "The command stopped with ZeroDivisionError: division by zero" in told(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "user:network", "--input", "4", "--T", "1000000000000000"], "at most 1,000,000"),
        (["bench", "user:network", "--input", "4", "--threads", "999999999"], "at most 1,024"),
        (["bench", "user:network", "--input", "999999999999"], "at most 1,073,741,824"),
        (["check", "user:network", "--input", "99999x99999x99999"], "at most 1,073,741,824"),
        (["compare", "user:network", "--data", "user:loaders", "--T", "1" * 5000], "argument --T: '111"),
    ],
)
def test_numbers_that_no_machine_can_hold(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err) < 4000


def test_more_samples_than_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "user:network", "--input", "4", "--samples", "1000000000000"]) == 2
    assert "--samples 1000000000000 is not allowed" in told(capsys)
