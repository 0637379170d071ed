"""A program that forks the ranks of a group and writes what each of them found.

    python -m tests.distributed.processes SCENARIO FILE

Forked ranks share one import of torch, which takes longer than most of what they do here.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sj_ann2snn import (
    Converter,
    Correction,
    Distributed,
    Normalization,
    Observer,
    Trial,
    diagnose,
    evaluate,
    hookimpl,
    tune,
)
from sj_ann2snn.distributed.packing import digest
from sj_ann2snn.evaluation.evaluate import ann_values

from ..helpers.forking import leave_progress_to_parent

SIZES = (7, 3, 8, 1, 5, 8, 2)
"""Samples of the batches."""

SHARDS = {1: [7], 2: [0, 7], 3: [4, 0, 3], 5: [1, 2, 0, 3, 1]}
"""How many of the batches each rank has, by the number of ranks."""

TIMEOUT = 4.0
"""Seconds without a sign of life after which a rank is lost."""

Work = Callable[[int, int], Any]


def forked(size: int, work: Work, *, by_file: bool = True, most: float = 60.0) -> list[Any]:
    """What ``work(rank, size)`` returns on every rank; for an error its type, text and seconds; None if it is killed."""
    with tempfile.TemporaryDirectory() as folder:
        method = f"file://{folder}/store" if by_file else f"tcp://127.0.0.1:{free_port()}"
        children = []
        for rank in range(size):
            child = os.fork()
            if not child:
                leave_progress_to_parent()
                run_rank(rank, size, method, work, Path(folder) / str(rank))
            children.append(child)
        end = time.monotonic() + most
        waiting, stopped = set(children), set()
        while waiting - stopped and time.monotonic() < end:
            for one in list(waiting - stopped):
                changed, status = os.waitpid(one, os.WNOHANG | os.WUNTRACED)
                if changed:
                    (stopped.add if os.WIFSTOPPED(status) else waiting.discard)(one)
            time.sleep(0.01)
        for one in waiting:
            os.kill(one, signal.SIGKILL)
            os.waitpid(one, 0)
        files = [Path(folder) / str(rank) for rank in range(size)]
        return [pickle.loads(one.read_bytes()) if one.exists() else None for one in files]


def run_rank(rank: int, size: int, method: str, work: Work, out: Path) -> None:
    start = time.monotonic()
    try:
        dist.init_process_group("gloo", init_method=method, rank=rank, world_size=size)
        found = work(rank, size)
    except BaseException as error:
        found = (type(error).__name__, str(error), time.monotonic() - start)
    out.write_bytes(pickle.dumps(found))
    os._exit(0)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


# What the ranks do -----------------------------------------------------------------------------


class MeanObserver(Observer):
    """Sums of floating-point numbers, which depend on their order; in the second pass, those below the first mean."""

    def __init__(self, site: Any) -> None:
        super().__init__(site)
        self.total, self.count, self.means = 0.0, 0, []

    def observe(self, x: Tensor) -> Tensor | None:
        if self.means:
            x = x.clamp(max=4 * self.means[0])
        self.total, self.count = self.total + x.double().sum().item() * 1.1, self.count + x.numel()
        return x

    def merge(self, other: MeanObserver) -> None:
        self.total, self.count = self.total + other.total, self.count + other.count

    def end_pass(self) -> bool:
        self.means.append(self.total / self.count)
        self.total, self.count = 0.0, 0
        return len(self.means) < 2

    def scale(self) -> Tensor:
        return torch.tensor(5 * self.means[-1])


class Mean5(Normalization):
    name = "mean5"

    def observer(self, site: Any) -> Observer:
        return MeanObserver(site)


class ShiftCorrection(Correction):
    name = "shift"

    def correct(self, trial: Trial) -> None:
        mean = trial.inputs().mean()
        for site in trial.sites:
            trial.adjust(site.name, bias=torch.full((site.channels,), float(mean) / 100), scale=site.scale * 0.9)
        trial.note(f"mean {float(mean)!r} of {len(trial.inputs())} samples")


class UnmergeableObserver(MeanObserver):
    def merge(self, other: MeanObserver) -> None:
        raise NotImplementedError


class Unmergeable(Mean5):
    name = "unmergeable"

    def observer(self, site: Any) -> Observer:
        return UnmergeableObserver(site)


class Unpicklable(Mean5):
    name = "unpicklable"

    def observer(self, site: Any) -> Observer:
        class Local(MeanObserver):
            pass

        return Local(site)


class Plugin:
    @hookimpl
    def ann2snn_normalizations(self) -> list[type[Normalization]]:
        return [Mean5, Unmergeable, Unpicklable]

    @hookimpl
    def ann2snn_corrections(self) -> list[type[Correction]]:
        return [ShiftCorrection]


class Accumulated:
    """Accumulates, like a torchmetrics.Metric, what depends on the order of the batches."""

    def __init__(self) -> None:
        self.value = 0.0

    def update(self, output: Tensor, target: Tensor) -> None:
        self.value = 0.7 * self.value + float((output.argmax(1) != target).sum()) / 3

    def compute(self) -> float:
        return self.value


def mean_square(output: Tensor, target: Tensor) -> Tensor:
    return output.square().mean() / 3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.MaxPool2d(2)
    )
    return nn.Sequential(body, nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


def batches() -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.rand(size, 1, 8, 8), torch.randint(0, 4, (size,))) for size in SIZES]


def of_rank(data: list[Any], rank: int, size: int, given: Any) -> list[Any]:
    """What a rank passes: all of the data, or its own part."""
    if given != "sharded":
        return data
    first = sum(SHARDS[size][:rank])
    return data[first : first + SHARDS[size][rank]]


def results(rank: int, size: int, given: Any) -> dict[str, Any]:
    """What the functions return, or checksums of it; what takes longest is run once for two ranks and once for three."""
    ann, data = network(), of_rank(batches(), rank, size, given)
    found: dict[str, Any] = {}
    arguments: dict[str, dict[str, Any]] = {
        "max": {},
        "percentile": {"mode": "99%", "channel_wise": True},
        "sums, two passes": {"mode": "mean5"},
        "correction": {"corrections": "shift"},
        "integers": {"weights": "int8"},
        "part": {"convert_only": "0", "mode": "mean5"},
    }
    before = torch.get_rng_state()
    networks = {}
    for name, one in arguments.items():
        converter = Converter(data, plugins=[Plugin()], progress=False, distributed=given, **one)
        networks[name] = converter(ann)
        found[name] = digest(networks[name]), str(converter.report)
    found["normalized"] = digest(Converter(data, mode="99%", progress=False, distributed=given).normalize(ann))
    snn = networks["percentile"]
    for name, one in {
        "early exit": {"early_exit": 0.5},
        "ann": {"ann": ann, "metric": ["agreement", "mse"]},
        "metrics": {"metric": ["top1", mean_square, Accumulated()]},
    }.items():
        result = evaluate(snn, data, 6, progress=False, distributed=given, **one)
        found[name] = replace(result, seconds=0.0)
    few = batches()[:2] if given != "sharded" or rank == size - 1 else []
    found["fewer batches than ranks"] = replace(evaluate(snn, few, 3, progress=False, distributed=given), seconds=0.0)
    result = evaluate(networks["part"], data, 4, progress=False, distributed=given)
    found["evaluated part"] = replace(result, seconds=0.0)
    found["ANN"] = ann_values(ann, data, [mean_square, Accumulated()], distributed=given)
    if (size, given) in ((1, False), (2, True), (3, "sharded")):
        found |= searched(ann, snn, data, given)
    assert torch.equal(before, torch.get_rng_state()), "the random state changed"
    return found


def searched(ann: nn.Module, snn: nn.Module, data: list[Any], given: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    diagnosis = diagnose(ann, snn, data, 4, samples=20, metric=Accumulated(), progress=False, distributed=given)
    found["diagnosis"] = diagnosis.to_json()
    tuned = tune(ann, data, 20.0, T=3, samples=34, layers=False, mode="99%", progress=False, distributed=given)
    found["tuned"] = digest(tuned.network), tuned.to_json().split('"seconds"')[0], tuned.trials, tuned.frontier
    return found


def same_bits() -> dict[str, list[str]]:
    """For every way of sharing, what differs from one process."""
    wanted = results(0, 1, False)
    differing = {}
    for size in SHARDS:
        for given in (True, "sharded"):
            for rank, found in enumerate(forked(size, lambda rank, size, given=given: results(rank, size, given))):
                differing[f"rank {rank} of {size}, distributed={given}"] = (
                    [name for name, one in found.items() if wanted[name] != one]
                    if isinstance(found, dict)
                    else [str(found)]
                )
    return differing


# What goes wrong --------------------------------------------------------------------------------


class Failing:
    """Batches of which the second one fails in one rank: `fail` is called there."""

    def __init__(self, fail: Callable[[], None] | None) -> None:
        self.fail = fail

    def __iter__(self) -> Iterator[Any]:
        for index, batch in enumerate(batches()):
            if index == 1 and self.fail is not None:
                self.fail()
            yield batch


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def suspend() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def no_file() -> None:
    raise OSError("no such file")


SETTINGS = Distributed(timeout=TIMEOUT, wait=TIMEOUT)


def converting(broken: int, fail: Callable[[], None]) -> Work:
    def work(rank: int, size: int) -> Any:
        data = Failing(fail if rank == broken else None)
        return Converter(data, progress=False, distributed=SETTINGS)(network())

    return work


def evaluating(broken: int, fail: Callable[[], None]) -> Work:
    snn = Converter(batches(), progress=False)(network())

    def work(rank: int, size: int) -> Any:
        return evaluate(snn, Failing(fail if rank == broken else None), 4, progress=False, distributed=SETTINGS)

    return work


def other_data(rank: int, size: int) -> Any:
    return Converter(batches()[rank:], progress=False, distributed=True)(network())


def other_number(rank: int, size: int) -> Any:
    return Converter(batches()[: 4 + rank], progress=False, distributed=True)(network())


def other_network(rank: int, size: int) -> Any:
    ann = network()
    ann[2].bias.data += rank
    return Converter(batches(), progress=False, distributed=True)(ann)


def other_call(rank: int, size: int) -> Any:
    snn = Converter(batches(), progress=False)(network())
    return evaluate(snn, batches(), 4 + rank, progress=False, distributed=True)


def nobody_else(rank: int, size: int) -> Any:
    if rank:
        time.sleep(3 * TIMEOUT)
        return None
    return Converter(batches(), progress=False, distributed=SETTINGS)(network())


def unmergeable(rank: int, size: int) -> Any:
    return Converter(batches(), mode="unmergeable", plugins=[Plugin()], progress=False, distributed=True)(network())


def unpicklable(rank: int, size: int) -> Any:
    return Converter(batches(), mode="unpicklable", plugins=[Plugin()], progress=False, distributed=True)(network())


def goes_on(rank: int, size: int) -> Any:
    """After a call that failed, the next one works."""
    try:
        converting(1, no_file)(rank, size)
    except Exception as error:
        first = type(error).__name__
    return first, digest(Converter(batches(), progress=False, distributed=True)(network()))


FAILURES: dict[str, tuple[int, Work, bool]] = {
    "a loader fails in a conversion": (3, converting(1, no_file), True),
    "a loader fails in an evaluation": (3, evaluating(1, no_file), True),
    "killed in a conversion": (3, converting(1, kill), True),
    "killed in an evaluation": (3, evaluating(2, kill), True),
    "suspended in a conversion": (2, converting(1, suspend), True),
    "killed with the store": (3, converting(0, kill), False),
    "failed with the store": (3, converting(0, no_file), False),
    "other data": (2, other_data, True),
    "another number of batches": (2, other_number, True),
    "another network": (3, other_network, True),
    "another call": (2, other_call, True),
    "nobody else": (2, nobody_else, True),
    "unmergeable": (2, unmergeable, True),
    "unpicklable": (2, unpicklable, True),
    "goes on": (2, goes_on, False),
}
"""The number of ranks, what they do, and whether a file or a rank keeps the store."""


def failures() -> dict[str, list[Any]]:
    return {name: forked(size, work, by_file=by_file) for name, (size, work, by_file) in FAILURES.items()}


if __name__ == "__main__":
    _, scenario, out = sys.argv
    Path(out).write_bytes(pickle.dumps({"same_bits": same_bits, "failures": failures}[scenario]()))
