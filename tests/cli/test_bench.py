"""``sj-ann2snn bench`` on a network of the user's own."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sj_ann2snn.cli import bench, main

CODE = """
import torch
from torch import nn


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )


def loaders():
    x = torch.rand(30, 1, 8, 8)
    y = torch.zeros(30, dtype=torch.int64)
    batches = [(x[:20], y[:20]), (x[20:], y[20:])]
    return batches, batches


def empty():
    return loaders()[0], []


def wide():
    layers = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)
    return nn.Sequential(*layers)


class Two(nn.Module):
    def forward(self, a, b):
        return torch.relu(a) + torch.relu(b)


def pairs():
    x = torch.rand(9, 3)
    return [((x, x), 0)], [{"a": x, "b": x, "label": torch.zeros(9)}]
"""

ARGUMENTS = ["--samples", "12", "--T", "5", "--repeats", "2"]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "timedcode.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before
    sys.modules.pop("timedcode", None)


def benched(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["bench", "timedcode:network", *ARGUMENTS, "--json", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("source", [["--input", "1x8x8"], ["--data", "timedcode:loaders"]])
def test_every_way_is_timed(source: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = benched(capsys, *source)
    assert [one["way"] for one in found["timings"]] == ["simulate", "loop by hand", "multi-step", "ANN passes"]
    assert all(one["seconds"] > 0 for one in found["timings"])
    assert (found["samples"], found["T"], found["device"]) == (12, 5, "cpu")
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert set(found["shares"]) == {"convolutions and linear layers", "neurons", "pooling", "rest"}
    assert found["versions"]["torch"] == torch.__version__
    assert all(one["first"] > 0 for one in found["timings"])


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "timedcode:network", "--input", "1x8x8", *ARGUMENTS, "--threads", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("timedcode:network: 12 samples, T=5, cpu, 2 thread(s), SpikingJelly ")
    assert re.search(r"^simulate +[\d.e-]+ +1\.00$", shown, re.MULTILINE)
    assert re.search(r"^loop by hand +[\d.e-]+ +[\d.]+$", shown, re.MULTILINE)
    assert re.search(r"^where the time of simulate goes: .*neurons \d+%", shown, re.MULTILINE)
    assert re.search(r"^first run of simulate: [\d.e-]+ s", shown, re.MULTILINE)


def test_the_loops_that_were_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("numba", reason="numba is not installed")
    found = benched(capsys, "--input", "1x8x8")["loops"]
    assert set(found) == {"5"}  # the convolution in front reads no spikes
    assert main(["bench", "timedcode:wide", "--input", "1x8x8", *ARGUMENTS]) == 0
    assert re.search(
        r"^layers on packed spikes: 2 \((rows of weights|table lookup).*\)$", capsys.readouterr().out, re.M
    )


def test_as_many_samples_as_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert benched(capsys, "--data", "timedcode:loaders", "--samples", "25")["samples"] == 25
    assert benched(capsys, "--data", "timedcode:loaders", "--samples", "500")["samples"] == 30


def test_options_reach_the_converter(capsys: pytest.CaptureFixture[str]) -> None:
    benched(capsys, "--input", "1x8x8", "--mode", "99%", "--option", "channel_wise=true", "--option", "maxpool=avg")
    assert main(["bench", "timedcode:network", "--input", "1x8x8", "--option", "mode=max"]) == 2
    assert "use --mode instead" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("network", "data", "told"),
    [
        ("timedcode:network", "timedcode:empty", "The test loader is empty"),
        ("timedcode:Two", "timedcode:pairs", "bench only times networks with one input [N, ...]"),
    ],
)
def test_data_that_cannot_be_timed(network: str, data: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", network, "--data", data]) == 2
    assert told in capsys.readouterr().err


def test_a_way_that_does_not_run_here_is_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[str] = []
    switch = bench.set_step_mode

    def no_multi_step(snn: Any, mode: str) -> None:
        modes.append(mode)
        switch(snn, mode)

    timed = bench.timed

    def short_of_memory(compute: Any, device: torch.device) -> float:
        if modes[-1] == "m":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nat some place")
        return timed(compute, device)

    monkeypatch.setattr(bench, "set_step_mode", no_multi_step)
    monkeypatch.setattr(bench, "timed", short_of_memory)
    assert main(["bench", "timedcode:network", "--input", "1x8x8", *ARGUMENTS]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^multi-step +– +does not run: DefaultCPUAllocator: can't allocate memory$", shown, re.MULTILINE)
    assert re.search(r"^ANN passes +[\d.e-]+ +[\d.]+$", shown, re.MULTILINE)
