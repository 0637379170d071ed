"""Evaluations that are killed and continued: the same numbers to the bit, and no file of another run."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sj_ann2snn
from sj_ann2snn import (
    Accuracy,
    CheckpointError,
    CheckpointWarning,
    Delayed,
    EvaluationInterrupted,
    EvaluationResult,
    OptionError,
    evaluate,
    tune,
)
from sj_ann2snn.evaluation.checkpoints import file as checkpoint_file
from sj_ann2snn.evaluation.checkpoints import identity
from sj_ann2snn.evaluation.checkpoints.file import CheckpointFile
from sj_ann2snn.evaluation.checkpoints.identity import checksum, layers_of, text_of

from ..helpers.networks import convert

ROOT = Path(__file__).parents[2]
STEPS = 12


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)).eval()


@pytest.fixture
def ann() -> nn.Module:
    return network()


@pytest.fixture
def data(ann: nn.Module) -> list[Any]:
    x = torch.rand(60, 6) * 2 - 1
    return list(zip(x.split(10), ann(x).argmax(1).split(10), strict=True))


@pytest.fixture
def snn(ann: nn.Module, data: list[Any]) -> nn.Module:
    converted: nn.Module = convert(ann, [x for x, _ in data])
    return converted


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoint_file, "REST", 0)  # every batch is written
    return tmp_path / "run.json"


def run(snn: nn.Module, data: Any, path: Path | None = None, steps: int = STEPS, **arguments: Any) -> EvaluationResult:
    return evaluate(snn, data, steps, progress=False, checkpoint=path, **arguments)


def numbers(result: EvaluationResult) -> Any:
    return {**dataclasses.asdict(result), "seconds": None}


def until(data: list[Any], batches: int) -> Iterator[Any]:
    """A loader during which the user presses Ctrl-C."""
    yield from data[:batches]
    raise KeyboardInterrupt


class Counted(Accuracy):
    """The accuracy, which counts the batches that it is shown."""

    shown = 0

    def targets(self, found: Any, shape: tuple[int, ...]) -> Tensor:
        type(self).shown += 1
        return super().targets(found, shape)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forked")
@pytest.mark.parametrize(("kind", "kills"), [("evaluate", 50), ("tune", 5)])
def test_killed_at_random_points_it_ends_in_the_same_numbers(kind: str, kills: int, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "tests.helpers.killed_runs", kind, str(tmp_path), str(kills)]
    found = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert not found.returncode, found.stderr
    counted = json.loads(found.stdout)
    assert counted["killed"] == kills
    assert counted["most"] > 1  # a run was killed more than once
    assert not counted["wrong"]
    assert counted["left"] < kills / 2  # most kills leave nothing behind


@pytest.mark.parametrize("batches", range(1, 6))
def test_only_what_is_missing_is_simulated(
    batches: int, snn: nn.Module, data: list[Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counted, "shown", 0)
    with pytest.raises(EvaluationInterrupted) as caught:
        run(snn, until(data, batches), path, metric=Counted())
    assert caught.value.result.samples == 10 * batches
    result = run(snn, data, path, metric=Counted())
    assert Counted.shown == len(data)
    assert numbers(result) == numbers(run(snn, data))
    assert result.seconds > caught.value.result.seconds


@pytest.mark.parametrize(
    "arguments",
    [
        {"metric": ["top1"]},
        {"metric": {"a": "mse", "b": "r2"}, "targets": "outputs"},
        {"metric": {"a": "agreement", "b": lambda output, target: (output - target).abs().mean()}, "ann": True},
        {"early_exit": 2.0, "readout": Delayed(delay=2)},
        {"metric": "r2", "targets": "constant"},  # NaN
    ],
    ids=["list", "numbers", "ann", "exit", "nan"],
)
def test_every_total_is_kept(
    arguments: dict[str, Any], ann: nn.Module, snn: nn.Module, data: list[Any], path: Path
) -> None:
    target = arguments.pop("targets", "")
    if target:
        data = [(x, ann(x).detach() if target == "outputs" else torch.zeros(len(x), 3)) for x, _ in data]
    if arguments.pop("ann", False):
        arguments["ann"] = ann
    with pytest.raises(EvaluationInterrupted):
        run(snn, until(data, 3), path, **arguments)
    assert repr(numbers(run(snn, data, path, **arguments))) == repr(numbers(run(snn, data, **arguments)))


def test_a_finished_run_returns_at_once(
    snn: nn.Module, data: list[Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(snn, data, path)
    written = path.read_bytes()
    monkeypatch.setattr(sj_ann2snn.simulation.engine.Simulator, "run_all", lambda *args: pytest.fail("it simulates"))
    assert run(snn, data, path) == first
    assert path.read_bytes() == written


def test_batches_are_written_rarely(
    snn: nn.Module, data: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    save = CheckpointFile.save

    def noted(self: CheckpointFile, state: Any) -> None:
        written.append(len(state["batches"]))
        save(self, state)

    monkeypatch.setattr(CheckpointFile, "save", noted)
    run(snn, data, tmp_path / "run.json")
    assert written == [0, 6]  # six batches take less than a hundred times as long as a write


OTHERS: dict[str, tuple[Callable[..., Any], str]] = {
    "T": (lambda snn, data, path: run(snn, data, path, steps=13), "T was 12, and is 13"),
    "readout": (lambda snn, data, path: run(snn, data, path, readout="last"), "readout was None, and is 'last'"),
    "metric": (lambda snn, data, path: run(snn, data, path, metric="top5"), "metric was .*top=1.*, and is .*top=5"),
    "exit": (lambda snn, data, path: run(snn, data, path, early_exit=1.0), "early exit was None, and is 1.0"),
    "ann": (lambda snn, data, path: run(snn, data, path, ann=network(), metric="top1"), "ann was None, and is .*"),
    "weights": (lambda snn, data, path: run(changed(snn), data, path), "network differs in 2"),
    "mode": (
        lambda snn, data, path: run(convert(network(), [x for x, _ in data], mode="90%"), data, path),
        "mode was 'max', and is '90%'; network differs in",
    ),
    "batch": (
        lambda snn, data, path: run(snn, [data[0], (data[1][0] + 1, data[1][1])], path),
        "batch 1 of the data was another. A run can only be continued if the loader yields the same batches",
    ),
    "labels": (
        lambda snn, data, path: run(snn, [(x, (y + 1) % 3) for x, y in data], path),
        "batch 0 of the data was another",
    ),
    "order": (lambda snn, data, path: run(snn, data[::-1], path), "batch 0 of the data was another"),
    "fewer": (lambda snn, data, path: run(snn, data[:1], path), "the data had 2 batches or more, and has 1"),
}


def changed(snn: nn.Module) -> nn.Module:
    with torch.no_grad():
        snn.get_parameter("2.weight")[0, 0] += 1
    return snn


@pytest.mark.parametrize("other", OTHERS)
def test_the_file_of_another_run_is_refused_and_left(other: str, snn: nn.Module, data: list[Any], path: Path) -> None:
    with pytest.raises(EvaluationInterrupted):
        run(snn, until(data, 2), path)
    before = path.read_bytes()
    continued, difference = OTHERS[other]
    with pytest.raises(CheckpointError, match=f"run.json belongs to another run: .*{difference}.*To start") as caught:
        continued(snn, data, path)
    assert "; ".join(caught.value.differences) in str(caught.value)
    assert path.read_bytes() == before


def test_versions_are_part_of_a_run(
    snn: nn.Module, data: list[Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(snn, data, path)
    monkeypatch.setattr(identity, "__version__", "0.0.1")
    monkeypatch.setattr(identity, "spikingjelly_version", lambda: "9.9")
    with pytest.raises(CheckpointError, match=r"sj-ann2snn was .*, and is 0.0.1; SpikingJelly was .*, and is 9.9"):
        run(snn, data, path)


def test_a_finished_run_of_less_data_is_refused(snn: nn.Module, data: list[Any], path: Path) -> None:
    run(snn, data[:4], path)
    with pytest.raises(CheckpointError, match="the data had 4 batches, and has more"):
        run(snn, data, path)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda text: b"",
    "cut": lambda text: text[:-20],
    "other text": lambda text: b"my notes",
    "other JSON": lambda text: b"[1, 2]",
    "a digit": lambda text: text.replace(b'["samples",20]', b'["samples",21]'),
    "deep": lambda text: b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_refused_and_left(damage: str, snn: nn.Module, data: list[Any], path: Path) -> None:
    with pytest.raises(EvaluationInterrupted):
        run(snn, until(data, 2), path)
    text = DAMAGE[damage](path.read_bytes())
    path.write_bytes(text)
    with pytest.raises(CheckpointError, match=r"run\.json holds no checkpoint, or was damaged .* delete the file"):
        run(snn, data, path)
    assert path.read_bytes() == text


def test_files_of_another_kind_or_version_are_refused(snn: nn.Module, data: list[Any], path: Path) -> None:
    CheckpointFile(path, "tune", {}).save(())
    with pytest.raises(CheckpointError, match="written by tune, not by evaluate"):
        run(snn, data, path)
    document = json.loads(path.read_text())
    del document["checksum"]
    document["version"] = 2
    document["checksum"] = checkpoint_file._checksum(document)
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="has version 2; this version of sj-ann2snn reads version 1"):
        run(snn, data, path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions, of users without all rights")
def test_a_folder_without_permission_is_noticed_before_the_run(snn: nn.Module, data: list[Any], tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match="cannot be written: Permission denied"):
        run(snn, until(data, 0), tmp_path / "run.json")
    tmp_path.chmod(0o700)


def test_a_place_that_cannot_be_written_is_noticed_before_the_run(
    snn: nn.Module, data: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match="cannot be written: No such file or directory. Name a file in a folder"):
        run(snn, until(data, 0), tmp_path / "nowhere" / "run.json")
    with pytest.raises(CheckpointError, match="is no file"):
        run(snn, until(data, 0), tmp_path)
    with pytest.raises(OptionError, match="checkpoint=5 is not allowed"):
        run(snn, until(data, 0), 5)  # type: ignore[arg-type]

    def read_only(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(checkpoint_file, "replacing", read_only)
    with pytest.raises(CheckpointError, match="cannot be written: Read-only file system"):
        run(snn, until(data, 0), tmp_path / "run.json")


def test_a_full_disk_does_not_end_the_run(
    snn: nn.Module, data: list[Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replacing = checkpoint_file.replacing
    room = [3]

    def until_full(target: Any) -> Any:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replacing(target)

    monkeypatch.setattr(checkpoint_file, "replacing", until_full)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = run(snn, data, path)
    told = [str(one.message) for one in caught if issubclass(one.category, CheckpointWarning)]
    assert len(told) == 1
    assert "cannot be written: No space left on device" in told[0]
    assert "The run goes on" in told[0]
    assert numbers(result) == numbers(run(snn, data))
    monkeypatch.setattr(checkpoint_file, "replacing", replacing)
    assert numbers(run(snn, data, path)) == numbers(result)  # from what was written while there was room


def test_metrics_with_a_state_of_their_own_are_refused(snn: nn.Module, data: list[Any], path: Path) -> None:
    class Accumulating:
        def update(self, output: Tensor, target: Tensor) -> None: ...

        def compute(self) -> float:
            return 0.0

    with pytest.raises(OptionError, match=r"Metric 'Accumulating' .* is an object with update\(\) and compute\(\)"):
        run(snn, data, path, metric=Accumulating())
    assert not path.exists()


def test_a_network_is_known_again_after_it_has_run(snn: nn.Module, data: list[Any]) -> None:
    before = layers_of(snn)
    run(snn, data)
    assert layers_of(snn) == before
    snn.get_submodule("1").v_threshold = 2.0
    assert [name for name, one in layers_of(snn).items() if one != before[name]] == ["1"]


def test_values_are_known_by_what_they_hold() -> None:
    def above(limit: float) -> Callable[[Tensor], Tensor]:
        return lambda x: x > limit

    class Held:
        def __init__(self) -> None:
            self.itself, self.value = self, 1

        def method(self) -> None: ...

    assert text_of(above(1.0)) == text_of(above(1.0)) != text_of(above(2.0))
    assert text_of(lambda x: x + 1) != text_of(lambda x: x + 2)
    assert text_of(Held()) == text_of(Held())
    assert text_of(Held().method) == text_of(Held().method)
    assert " at 0x" not in text_of([Held(), Held().method, above(1.0), torch.relu, json])
    x = torch.rand(2, 3)
    parts = [
        (x,),
        ({"x": x},),
        (x, None),
        (x.double(),),
        (x.numpy(),),
        (x.T,),
        ("ab", "c"),
        ("a", "bc"),
        (x[:1], x[1:]),
    ]
    assert len({checksum(*part) for part in parts}) == len(parts)


def test_one_process_keeps_a_checkpoint(tmp_path: Path) -> None:
    snn, x = nn.Linear(2, 2), torch.rand(4, 2)
    for call in (
        lambda: evaluate(snn, [(x, x.argmax(1))], 4, checkpoint=tmp_path / "run", distributed=True),
        lambda: tune(snn, [(x, x.argmax(1))], checkpoint=tmp_path / "run", distributed="sharded"),
    ):
        with pytest.raises(
            OptionError, match=r"checkpoint=.*run.* and distributed=.* are not allowed together: .*Leave"
        ):
            call()
    assert not list(tmp_path.iterdir())
