"""The command line in a process of its own, and the code of a user for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sj_ann2snn.cli import main

RUN = "import sys; from sj_ann2snn.cli import main; sys.exit(main())"

GOOD_PLUGIN = '''
from sj_ann2snn import hookimpl
from sj_ann2snn.builtin.normalizations import Max

class Twice(Max):
    """Pretends that everything is twice as large.

    More of it.
    """
    name = "twice"

    def __init__(self, *, strength: float = 2.0) -> None:
        self.strength = strength

@hookimpl
def ann2snn_normalizations():
    return [Twice]
'''

BROKEN_PLUGIN = "raise RuntimeError('no luck today')\n"


def run(
    *arguments: str, path: Path | None = None, cwd: Path | None = None, program: str = RUN, **environment: str
) -> Any:
    """The command line in a process of its own."""
    places = [str(path)] if path else []
    inherited = os.environ.get("PYTHONPATH")
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*places, *([inherited] if inherited else [])]),
            **environment,
        },
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def install(folder: Path, name: str, version: str, source: str) -> None:
    """A plugin distribution as pip would leave it."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[sj_ann2snn]\nmain = {module}\n", encoding="utf-8")


USER_CODE = """
import torch
from torch import nn

STEPS_SEEN = []

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.MaxPool1d(2), nn.Linear(10, 3))

def data():
    torch.manual_seed(1)
    x = torch.rand(120, 6)
    with torch.no_grad():
        y = network()(x).argmax(1)
    return [(x, y)], [(x[:70], y[:70]), (x[70:], y[70:])]

ready = network()
ready_data = data()
pair_of_iterators = lambda: tuple(iter(loader) for loader in data())
answer = 42

def nothing():
    return None

def three():
    return 1, 2, 3

def numbers():
    return 1, 2

def failing():
    return {}["weights.pth"]

def silent():
    raise ValueError

def interrupted():
    raise KeyboardInterrupt

def two_inputs_missing():
    return [torch.rand(4, 6)], [torch.rand(4, 6)]

class Product(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return torch.relu(self.a(x)) * torch.relu(self.b(x))
"""


def compared(*arguments: str) -> list[str]:
    return ["compare", "usercode:network", "--data", "usercode:data", "--T", "12", *arguments]


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says that ends with an error of the package."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return err[err.index("error: ") :]


SMALL_MODELS = """
import torch

def trained():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))

def loaders(count=60):
    torch.manual_seed(1)
    x = torch.rand(count, 6)
    return [x], [(x, trained()(x).argmax(1))]
"""
"""A module with a small network, and data for it whose labels are its own answers."""
