"""Runs that are killed at random points and started again until they end; a program of its own.

Imports take seconds, so one process makes them and forks a child for every run. Every child writes the result of the
run; the parent kills it with SIGKILL after a random part of the time that the run takes at most.

    python -m tests.helpers.killed_runs evaluate FOLDER KILLS
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sj_ann2snn import Accuracy, Converter, evaluate, tune
from sj_ann2snn.evaluation.checkpoints import file as checkpoint_file

from .forking import leave_progress_to_parent

MOST_RUNS = 2000

FIXED: dict[str, Any] = {
    "neuron": "if",
    "channel_wise": False,
    "corrections": (),
    "readout": "mean",
    "layers": False,
}
"""Leaves a search with the modes, which takes about a second."""


def networks() -> tuple[nn.Module, list[Any]]:
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    images = torch.rand(240, 8) * 2 - 1
    labels = ann(images).argmax(1)
    return ann, list(zip(images.split(8), labels.split(8), strict=True))


def evaluation() -> Callable[[Path | None], Any]:
    ann, data = networks()
    snn = Converter([x for x, _ in data], mode="99%", progress=False)(ann)

    def distance(output: Any, target: Any) -> Any:
        return (output.softmax(1)[torch.arange(len(target)), target]).log()

    metrics = {"accuracy": "top1", "distance": distance, "top2": Accuracy(top=2)}

    def run(path: Path | None) -> Any:
        found = evaluate(snn, data, 24, metric=metrics, early_exit=6.0, progress=False, checkpoint=path)
        return {**dataclasses.asdict(found), "seconds": None}

    return run


def tuning() -> Callable[[Path | None], Any]:
    ann, data = networks()

    def run(path: Path | None) -> Any:
        found = tune(ann, data, 4.0, "spikes", 6, samples=100, **FIXED, progress=False, checkpoint=path)
        weights = [value.double().sum().item() for value in found.network.state_dict().values()]
        return {**found.to_dict(), "seconds": None, "weights": weights}

    return run


def in_child(run: Callable[[Path | None], Any], checkpoint: Path | None, output: Path) -> int:
    """Start a run, and return its process."""
    child = os.fork()
    if child:
        return child
    leave_progress_to_parent()
    status = 1
    try:
        output.write_text(json.dumps(run(checkpoint)), encoding="utf-8")
        status = 0
    finally:
        os._exit(status)


def ended(child: int) -> bool:
    """True if a child ended by itself, False if it was killed.

    Raises:
        RuntimeError: It failed.
    """
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    if os.WEXITSTATUS(status):
        raise RuntimeError("a run failed")
    return True


def main(kind: str, folder: Path, kills: int) -> None:
    torch.set_num_threads(1)
    run = {"evaluate": evaluation, "tune": tuning}[kind]()
    output = folder / "result.json"
    run(None)  # compiles, loads plugins
    begun = time.monotonic()
    ended(in_child(run, None, output))
    duration = time.monotonic() - begun
    expected, wrong, killed, rounds, most, chance = output.read_text(), 0, 0, 0, 0, random.Random(0)
    while killed < kills:
        # Half of the runs write as often as they can, so that many of the kills fall into a write.
        checkpoint_file.REST = rounds % 2
        checkpoint, output = folder / f"{rounds}.json", folder / f"result {rounds}.json"
        before = killed
        for _ in range(MOST_RUNS):
            child = in_child(run, checkpoint, output)
            time.sleep(chance.uniform(0, duration))
            if killed < kills:
                os.kill(child, signal.SIGKILL)
            if ended(child):
                break
            killed += 1
        wrong += output.read_text() != expected
        rounds, most = rounds + 1, max(most, killed - before)
    # A kill between giving the complete file a name and renaming it leaves it behind.
    left = sum(one.suffix == ".part" for one in folder.iterdir())
    print(json.dumps({"wrong": wrong, "killed": killed, "most": most, "left": left}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
