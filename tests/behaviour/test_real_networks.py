"""A quick run of `benchmarks/real_networks.py`, on a network of its own and on those whose packages are installed."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

real = pytest.importorskip("real", reason="benchmarks/ is missing: it comes with the repository")

import real_networks  # noqa: E402
from low_latency import Store  # noqa: E402
from real.page import tables  # noqa: E402
from real.task import Task  # noqa: E402
from real.ways import OURS, PEERS  # noqa: E402

NAME = "CREPE tiny"
"""Under which the network of this file is measured: the tables have the names of the benchmark."""


class Answer(NamedTuple):
    side: Tensor
    size: Tensor


class Squares(nn.Module):
    """On which side of a picture something bright is, and how bright it is, as a named tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = nn.Linear(16, 2, bias=False)
        with torch.no_grad():
            columns = torch.arange(16) % 4
            self.sum.weight.copy_(torch.stack([columns < 2, columns >= 2]).float())

    def forward(self, x: Tensor) -> Answer:
        halves = self.sum(x.flatten(1)).relu()
        return Answer(torch.sigmoid(halves @ torch.tensor([[1.0], [-1.0]])), halves.sum(1, keepdim=True))


def squares(count: int) -> Task:
    x = 0.1 * torch.rand(count, 1, 4, 4)
    left = torch.arange(count) % 2 == 0
    x[left, :, :, :2] += 0.5
    x[~left, :, :, 2:] += 0.5
    return Task(
        network=Squares().eval(),
        package="none",
        data="bright halves",
        calibration=[x],
        inputs=x,
        targets=left,
        metric=lambda output, target: ((output.side[:, 0] > 0.5) == target).float(),
        measures="sides found",
    )


def test_a_network_is_measured_in_every_way(tmp_path: Path) -> None:
    store = Store(tmp_path / "found.json")
    ways = [*OURS, *PEERS]
    real_networks.measure(store, NAME, squares(8), ways, (2, 4), quick=True)
    assert store.get(NAME, "ANN", 0)["value"] == 1
    for way in OURS:
        for steps in (2, 4):
            assert store.get(NAME, way, steps).get("value") == 1, f"{way}: {store.get(NAME, way, steps)}"
    # Not every line of SpikingJelly has recipes, and none of them takes this network.
    assert all("refused" in store.get(NAME, way, 4) for way in PEERS)
    assert store.get(NAME, "time, differential", 0)["ratio"] > 0
    page = tables(store)
    assert f"| {NAME} | 1.000 | **1.000** / **1.000** |" in page
    assert "bright halves" in page
    assert "Error: " in page


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "found.json")
    task = squares(4)
    real_networks.measure(store, NAME, task, ["differential"], (2,), quick=True)
    before = (tmp_path / "found.json").read_text()
    real_networks.measure(store, NAME, task, ["differential"], (2,), quick=True)
    assert (tmp_path / "found.json").read_text() == before


def test_a_network_without_its_package_is_skipped_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torchcrepe", None)
    assert real_networks.main(["--networks", NAME, "--quick", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert f"{NAME} is skipped: import of torchcrepe halted" in shown.err
    assert "Nothing was measured" in shown.out


@pytest.mark.parametrize("name", real.TASKS)
def test_networks_of_packages_convert(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages
        try:
            task = real.load(name, 4, 2)
        except ImportError as problem:
            pytest.skip(f"{name} needs a package that the extra `real-networks` brings: {problem}")
        store = Store(tmp_path / "found.json")
        real_networks.measure(store, name, task, ["differential, 16 sizes"], (2, 4), quick=True)
    measured = [store.get(name, "differential, 16 sizes", steps) for steps in (2, 4)]
    assert all("value" in one for one in measured), measured
