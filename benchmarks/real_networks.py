"""Trained networks that nobody here trained, on data whose truth is known: what becomes of their task.

    python benchmarks/real_networks.py [--networks PESTO "MTCNN RNet"] [--ways differential] [--quick] [--out DIR]

The networks come with packages on the Python index (`docs/real-networks.md` says how to install them); one whose
package is missing is skipped with that reason. The plugins are those of the checkout. The script goes on where it was
stopped, and writes into --out

    real_networks.json   every measurement
    real_networks.md     the tables of docs/real-networks.md

`--quick` takes a few samples and steps, to see that everything runs.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from low_latency import Store
from processor import processor_name
from real import TASKS, load
from real.page import TIMED, tables
from real.task import Task
from real.ways import OURS, PEERS, REMEDIES, Values, ours, peer, reason, timed, value

SAMPLES = {"calibration": 128, "test": 128}
FEWER: dict[str, dict[str, Any]] = {
    "CREPE full": {"calibration": 32, "test": 16},
    "FCPE": {"calibration": 32, "test": 8},
    "BatDetect2": {"calibration": 12, "test": 6},
    "Basic Pitch": {"calibration": 8, "test": 4},
    "open_nsfw": {"calibration": 16, "test": 8},
    "deepCR mask": {"calibration": 64, "test": 24},
    "deepCR inpainting": {"calibration": 64, "test": 24},
    "MTCNN PNet": {"calibration": 256, "test": 400},
    "MTCNN RNet": {"calibration": 256, "test": 200},
    "MTCNN ONet": {"calibration": 128, "test": 64},
}
"""Samples of the networks for which `SAMPLES` are too many, or too few."""

OPTIONS = OURS | REMEDIES
QUICK = {"calibration": 4, "test": 2}
TIMED_STEPS, ROUNDS = 32, 3


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=TASKS, default=list(TASKS), metavar="NAME")
    parser.add_argument("--ways", nargs="+", choices=[*OPTIONS, *PEERS], default=[*OURS, *PEERS], metavar="WAY")
    parser.add_argument("--steps", nargs="+", type=int, default=[8, 32, 128], metavar="T")
    parser.add_argument("--quick", action="store_true", help="few samples, T = 2, 4")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "real_networks")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    store = Store(args.out / "real_networks.json")
    steps = (2, 4) if args.quick else args.steps
    for name in args.networks:
        samples = QUICK if args.quick else FEWER.get(name, SAMPLES)
        try:
            task = load(name, **samples)
        except ImportError as problem:
            print(f"{name} is skipped: {problem}", file=sys.stderr)
            continue
        measure(store, name, task, args.ways, steps, quick=args.quick)
    written = tables(store)
    (args.out / "real_networks.md").write_text(written, encoding="utf-8")
    print(written)
    return 0


def measure(store: Store, name: str, task: Task, ways: list[str], steps: Sequence[int], *, quick: bool) -> None:
    """Everything about one network that is not stored yet."""
    store.keep((name, "ANN", 0), partial(about, task))
    for way in ways:
        missing = [count for count in steps if store.get(name, way, count) is None]
        timing = way in TIMED and store.get(name, f"time, {way}", 0) is None
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # layers that need more steps than these: the values show it
            for count, found in values(task, way, missing).items():
                store.keep((name, way, count), partial(dict, found))
            if timing:
                store.keep((name, f"time, {way}", 0), partial(seconds, task, way, quick=quick))
        if missing or timing:
            print(f"{name}, {way}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def values(task: Task, way: str, steps: Sequence[int]) -> Values:
    """By step; or why there are none, of another converter or of this one."""
    if not steps:
        return {}
    try:
        return ours(task, OPTIONS[way], steps) if way in OPTIONS else peer(task, way, steps)
    except Exception as problem:
        return {count: {"refused": reason(problem)} for count in steps}


def about(task: Task) -> dict[str, Any]:
    with torch.no_grad():
        found = value(task, task.network(task.inputs))
    return {
        "value": found,
        "package": task.package,
        "data": task.data,
        "measures": task.measures,
        "samples": len(task.inputs),
        "calibration": sum(map(len, task.calibration)),
        "processor": processor_name(),
        "torch": torch.__version__,
    }


def seconds(task: Task, way: str, *, quick: bool) -> dict[str, Any]:
    """On a quarter of the test samples."""
    steps, samples, rounds = (2, 1, 1) if quick else (TIMED_STEPS, min(64, len(task.inputs) // 4), ROUNDS)
    return timed(task, OPTIONS[way], steps, samples, rounds)


if __name__ == "__main__":
    sys.exit(main())
