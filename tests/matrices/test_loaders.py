"""Kinds of loaders and batches by entry points: each works, or is refused with the package's own error."""

from __future__ import annotations

import collections
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from sj_ann2snn import Ann2SnnError, CalibrationError, Converter, InputError, evaluate
from sj_ann2snn.cli import main
from sj_ann2snn.evaluation.evaluate import accuracy_of

SAMPLES = 10

Pair = collections.namedtuple("Pair", ["x", "y"])


@dataclasses.dataclass
class Record:
    x: Tensor
    y: Tensor


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(SAMPLES, 4, generator=generator)
    with torch.no_grad():
        return x, network()(x).argmax(1)


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    x, y = data()
    return list(zip(x.split(sizes or (5, 5)), y.split(sizes or (5, 5)), strict=True))


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Any]:
        return iter(zip(*data(), strict=True))


class Rows(Dataset):  # type: ignore[type-arg]
    """A data set as users write it."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        if index >= SAMPLES:
            raise IndexError(index)
        x, y = data()
        return x[index], y[index]


class NoLength(list):  # type: ignore[type-arg]
    def __len__(self) -> int:
        raise RuntimeError("nobody knows")


def once() -> Iterator[Any]:
    yield from batches()


def breaks(error: BaseException, after: int = 1) -> Iterator[Any]:
    yield from batches()[:after]
    raise error


class BreaksAtOnce:
    def __iter__(self) -> Iterator[Any]:
        raise OSError("disk on fire")


class Getitem:
    """The old way to be iterable."""

    def __getitem__(self, index: int) -> Any:
        return batches()[index]


WORKS: dict[str, Callable[[], Any]] = {
    "DataLoader": lambda: DataLoader(TensorDataset(*data()), batch_size=5),
    "DataLoader, last batch smaller": lambda: DataLoader(TensorDataset(*data()), batch_size=4),
    "DataLoader, single samples": lambda: DataLoader(TensorDataset(*data()), batch_size=1),
    "DataLoader, own data set": lambda: DataLoader(Rows(), batch_size=5),
    "DataLoader, stream": lambda: DataLoader(Stream(), batch_size=4, num_workers=0),
    "list of tuples": batches,
    "tuple of lists": lambda: tuple([x, y] for x, y in batches()),
    "batches of different size": lambda: batches(1, 7, 2),
    "deque": lambda: collections.deque(batches()),
    "iterable by index": Getitem,
    "no length": lambda: NoLength(batches()),
    "named tuples": lambda: [Pair(x, y) for x, y in batches()],
    "dicts": lambda: [{"x": x, "label": y} for x, y in batches()],
    "dicts with other keys": lambda: [{"id": 7, "image": x, "labels": y, "path": ["a"]} for x, y in batches()],
    "user dicts": lambda: [collections.UserDict(input=x, labels=y) for x, y in batches()],
    "more than labels": lambda: [(x, y, ["a"] * len(x)) for x, y in batches()],
    "labels of numpy": lambda: [(x, y.numpy()) for x, y in batches()],
    "labels as a list": lambda: [(x, y.tolist()) for x, y in batches()],
}
"""Kinds of loaders that every entry point takes."""

READ_ONCE: dict[str, Callable[[], Any]] = {
    "generator": once,
    "iterator": lambda: iter(batches()),
    "zip": lambda: zip(*[part.split(5) for part in data()], strict=True),
    "map": lambda: map(tuple, batches()),
}
"""Kinds that can be read only once: the command line reads its loaders repeatedly, and refuses them."""

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "TensorDataset": (lambda: TensorDataset(*data()), r"a TensorDataset.*DataLoader\(dataset, batch_size"),
    "own data set": (Rows, r"a Rows.*DataLoader\(dataset, batch_size"),
    "stream of samples": (Stream, "Batch 0|batch 0"),
    "tensor": (lambda: data()[0], "a tensor of shape.*one batch at most"),
    "numpy array": (lambda: data()[0].numpy(), "a numpy array of shape.*one batch at most"),
    "dict": (lambda: dict(zip("xy", data(), strict=True)), "a dict with 'x', 'y'.*one batch at most"),
    "network": (network, "a Sequential|iterable"),
    "number": (lambda: 7, "an? int.*iterable of batches|iterable"),
    "text": (lambda: "data", "a str.*iterable of batches|iterable"),
    "function": (lambda: batches, "iterable"),
    "empty list": (list, "empty"),
    "empty generator": (lambda: iter(()), "empty|read only once"),
    "empty DataLoader": (lambda: DataLoader(TensorDataset(data()[0][:0], data()[1][:0])), "empty"),
    "batches of numpy": (lambda: [(x.numpy(), y.numpy()) for x, y in batches()], "a tuple of a numpy array of shape"),
    "batches of lists": (lambda: [(x.tolist(), y) for x, y in batches()], "a tuple of a list of"),
    "dataclasses": (lambda: [Record(x, y) for x, y in batches()], "holds a Record"),
    "nested tuples": (lambda: [((x,), y) for x, y in batches()], "a tuple of a (tuple of a )?tensor"),
    "batches of text": (lambda: ["a", "b"], "holds a str"),
    "batches of nothing": (lambda: [None], "holds a NoneType"),
    "empty tuples": (lambda: [()], "a tuple of nothing"),
    "inputs without samples": (lambda: [(torch.tensor(1.0), torch.tensor(1))], "Batch 0|batch 0"),
    "no samples": (lambda: [(data()[0][:0], data()[1][:0])], "no samples"),
    "another shape": (lambda: [(torch.rand(5, 9), torch.zeros(5, dtype=torch.int64))], r"[Bb]atch 0 .*shape \(\d, 9\)"),
    "huge nested lists": (lambda: [[[0] * 1000] * 1000], "holds a list of 1000 list"),
}
"""Kinds that no entry point takes, and what the refusal says."""

BREAKS: dict[str, tuple[Callable[[], Any], str]] = {
    "at once": (BreaksAtOnce, "disk on fire"),
    "midway": (lambda: breaks(OSError("disk on fire")), "batch 1 fails with OSError: disk on fire"),
    "at the first batch": (lambda: breaks(KeyError("image"), 0), "batch 0 fails with KeyError: 'image'"),
    "in a DataLoader": (
        lambda: DataLoader(Broken(), batch_size=2),
        "batch 0 fails with ZeroDivisionError: division by zero",
    ),
    "with a long text": (lambda: breaks(ValueError("x" * 10**6), 0), r"xxx\.\.\. \(1,000,000 characters\)"),
}
"""Loaders that fail, and what is said."""


class Broken(Rows):
    def __getitem__(self, index: int) -> Any:
        return 1 / 0


def by_converter(loader: Any) -> Any:
    return Converter(loader, progress=False)(network())


def by_check(loader: Any) -> Any:
    assert Converter(loader, progress=False).check(network()).convertible


def by_evaluate(loader: Any) -> Any:
    snn = Converter([data()[0]], progress=False)(network())
    assert evaluate(snn, loader, T=64, progress=False).accuracy[-1] >= 0.8


def by_accuracy_of(loader: Any) -> Any:
    assert accuracy_of(network(), loader) == 1.0


ENTRY_POINTS: dict[str, Callable[[Any], Any]] = {
    "Converter": by_converter,
    "check": by_check,
    "evaluate": by_evaluate,
    "accuracy_of": by_accuracy_of,
}
"""What takes a loader in Python."""

COMMANDS = ("compare", "check", "bench", "export")
"""What takes a loader on the command line."""


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@pytest.mark.parametrize("kind", [*WORKS, *READ_ONCE])
def test_loaders_that_work(kind: str, entry_point: str) -> None:
    ENTRY_POINTS[entry_point]({**WORKS, **READ_ONCE}[kind]())


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_loader(kind: str, entry_point: str) -> None:
    make, message = REFUSED[kind]
    with pytest.raises(Ann2SnnError, match=message) as caught:
        ENTRY_POINTS[entry_point](make())
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@pytest.mark.parametrize("kind", BREAKS)
def test_loaders_that_fail(kind: str, entry_point: str) -> None:
    make, message = BREAKS[kind]
    if entry_point == "check" and kind == "midway":
        by_check(make())  # it reads one batch only
        return
    error = CalibrationError if entry_point in ("Converter", "check") else InputError
    with pytest.raises(error, match=message) as caught:
        ENTRY_POINTS[entry_point](make())
    assert len(str(caught.value)) < 2000
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_ctrl_c_in_a_loader_stays_ctrl_c(entry_point: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        ENTRY_POINTS[entry_point](breaks(KeyboardInterrupt(), 0))


class Given:
    """The user's module on the command line."""

    loader: Callable[[], Any]

    def command(self, command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
        arguments = ["--data", "given:loaders"]
        if command in ("compare", "bench"):
            arguments += ["--T", "4", "--json"]
        if command == "compare":
            arguments += ["--modes", "max"]
        if command == "bench":
            arguments += ["--repeats", "1"]
        if command == "export":
            arguments += ["--out", "network.zip"]
        status = main([command, "given:network", *arguments])
        return status, *capsys.readouterr()


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SJ_ANN2SNN_LOAD_PLUGINS", "")
    module: Any = type(sys)("given")
    found = Given()
    module.network = network
    module.loaders = lambda: (found.loader(), found.loader())
    monkeypatch.setitem(sys.modules, "given", module)
    return found


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", WORKS)
def test_loaders_that_work_on_the_command_line(
    kind: str, command: str, given: Given, capsys: pytest.CaptureFixture[str]
) -> None:
    given.loader = WORKS[kind]
    status, out, err = given.command(command, capsys)
    assert status == 0, err
    if command == "compare":
        assert json.loads(out)["ann_accuracy"] == 1.0


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", [*READ_ONCE, *REFUSED, *BREAKS])
def test_what_is_no_loader_on_the_command_line(
    kind: str, command: str, given: Given, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = {**{name: (one, "read only once") for name, one in READ_ONCE.items()}, **REFUSED, **BREAKS}[kind]
    given.loader = make
    status, out, err = given.command(command, capsys)
    assert status == 2, out
    assert not out
    assert "Traceback" not in err
    assert err.count("error: ") == 1
    assert len(err) < 5000
    if kind in READ_ONCE:
        assert message in err


def test_arrays_of_numpy_name_their_shape() -> None:
    with pytest.raises(InputError, match=r"a tuple of a numpy array of shape \(5, 4\) and dtype float32"):
        by_evaluate([(np.zeros((5, 4), np.float32), np.zeros(5, np.int64))])
