"""Searches that are interrupted and continued: the same decisions, without the work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sj_ann2snn import CheckpointError, Tuning, TuningInterrupted, tune
from sj_ann2snn.evaluation.checkpoints import file as checkpoint_file
from sj_ann2snn.evaluation.checkpoints.file import CheckpointFile
from sj_ann2snn.tuning import journal
from sj_ann2snn.tuning.measuring import Measurements

FIXED: dict[str, Any] = {
    "neuron": "if",
    "corrections": (),
    "readout": "mean",
    "T": 8,
    "samples": 120,
    "progress": False,
}


@pytest.fixture(scope="module")
def ann() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(120, 6, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def data(ann: nn.Module, images: Tensor) -> list[Any]:
    return list(zip(images.split(20), ann(images).argmax(1).split(20), strict=True))


@pytest.fixture(scope="module")
def found(ann: nn.Module, data: list[Any]) -> Tuning:
    return search(ann, data)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoint_file, "REST", 0)
    return tmp_path / "search.json"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Counts what is measured, and stops before a certain one."""
    counted = SimpleNamespace(records=0, stop=0)

    def noted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counted.records += 1
            if counted.records == counted.stop:
                raise KeyboardInterrupt
            return method(*args, **kwargs)

        return call

    for name in ("record", "diagnose"):
        monkeypatch.setattr(Measurements, name, noted(getattr(Measurements, name)))
    return counted


def search(ann: nn.Module, data: Any, path: Path | None = None, max_drop: float = 5.0, **arguments: Any) -> Tuning:
    return tune(ann, data, max_drop, "spikes", **{**FIXED, **arguments}, checkpoint=path)


def numbers(result: Tuning) -> Any:
    weights = [value.tolist() for value in result.network.state_dict().values()]
    return {**result.to_dict(), "seconds": None, "weights": weights}


def test_an_interrupted_search_goes_on_where_it_was(
    ann: nn.Module, data: list[Any], found: Tuning, path: Path, measured: SimpleNamespace
) -> None:
    total, ends = 0, 0
    while True:
        measured.records, measured.stop = 0, 7  # in the end, at every seventh measurement
        try:
            result = search(ann, data, path)
        except TuningInterrupted:
            total, ends = total + 6, ends + 1
            continue
        total += measured.records
        break
    assert ends > 2
    assert numbers(result) == numbers(found)
    measured.records = measured.stop = 0
    again = search(ann, data, path)
    assert not measured.records
    assert numbers(again) == numbers(found)
    assert again.seconds == result.seconds
    search(ann, data)
    assert measured.records == total


def test_a_search_with_a_limit_of_time_repeats_its_decisions(
    ann: nn.Module, data: list[Any], path: Path, measured: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, pace = [0.0], [1.0]

    def monotonic() -> float:
        clock[0] += pace[0]
        return clock[0]

    monkeypatch.setattr(journal, "time", SimpleNamespace(monotonic=monotonic))
    limited = search(ann, data, path, seconds=12.0)
    assert limited.trials < search(ann, data).trials
    pace[0], measured.records = 100.0, 0  # the next processor is much slower
    assert numbers(search(ann, data, path, seconds=12.0)) == numbers(limited)
    assert not measured.records


def test_the_time_of_all_runs_counts(
    ann: nn.Module, data: list[Any], path: Path, measured: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def monotonic() -> float:
        clock[0] += 1.0
        return clock[0]

    monkeypatch.setattr(journal, "time", SimpleNamespace(monotonic=monotonic))
    measured.stop = 6
    with pytest.raises(TuningInterrupted):
        search(ann, data, path, seconds=12.0)
    clock[0], measured.records, measured.stop = time.monotonic(), 0, 0
    continued = search(ann, data, path, seconds=12.0)
    assert numbers(continued) == numbers(search(ann, data, seconds=12.0))


OTHERS: dict[str, tuple[Callable[..., Any], str]] = {
    "max_drop": (lambda ann, data, path: search(ann, data, path, 6.0), "max drop was 5.0, and is 6.0"),
    "T": (lambda ann, data, path: search(ann, data, path, T=9), "T was 8, and is 9"),
    "seconds": (lambda ann, data, path: search(ann, data, path, seconds=9), "seconds was None, and is 9"),
    "argument": (lambda ann, data, path: search(ann, data, path, mode="max"), "fixed was .*, and is .*'mode': 'max'"),
    "data": (lambda ann, data, path: search(ann, data[::-1], path), "data was "),
    "calibration": (
        lambda ann, data, path: search(ann, data, path, calibration=[x for x, _ in data]),
        "calibration data was that of the data",
    ),
    "network": (lambda ann, data, path: search(other_network(), data, path), "ann differs in 0, 2, 4"),
}


def other_network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)).eval()


@pytest.mark.parametrize("other", OTHERS)
def test_the_file_of_another_search_is_refused(
    other: str, ann: nn.Module, data: list[Any], path: Path, measured: SimpleNamespace
) -> None:
    measured.stop = 2
    with pytest.raises(TuningInterrupted):
        search(ann, data, path)
    before = path.read_bytes()
    continued, difference = OTHERS[other]
    with pytest.raises(CheckpointError, match=f"belongs to another run: .*{difference}"):
        continued(ann, data, path)
    assert path.read_bytes() == before


def test_another_measurement_is_noticed(ann: nn.Module, data: list[Any], path: Path, measured: SimpleNamespace) -> None:
    measured.stop = 4
    with pytest.raises(TuningInterrupted):
        search(ann, data, path)
    identity = checkpoint_file.json.loads(path.read_bytes())["identity"]
    file = CheckpointFile(path, "tune", identity)
    entries = file.load()
    file.save((entries[1], entries[0]))
    with pytest.raises(CheckpointError, match="measurement 0 was .*, and is .*in round 0"):
        search(ann, data, path)
    file.save(({"what": "nothing"},))
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        search(ann, data, path)


def test_shuffled_calibration_data_is_refused(ann: nn.Module, data: list[Any], images: Tensor, path: Path) -> None:
    shuffled = DataLoader(list(images), batch_size=10, shuffle=True)
    with pytest.raises(CheckpointError, match="yields another first batch when it is iterated again"):
        search(ann, data, path, calibration=shuffled)
    assert not path.exists()
