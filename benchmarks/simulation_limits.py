"""Memory of a long simulation, growth of its time with T and with the samples, and the cost of calibration.

    python benchmarks/simulation_limits.py [--shared DIR] [--networks mnist_cnn resnet20]

DIR as in `simulation_speed.py`. Memory is the largest resident set of a process that simulates `--images` images for
`--T` steps, less what it had once the network was converted and a single image simulated.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from reference_networks import VARIABLE
from simulation_speed import NETWORKS, network
from torch import Tensor, nn

GOAL_BYTES, GOAL_MAX, GOAL_PERCENTILE = 1 << 30, 1.3, 1.6
STEPS = (8, 16, 32, 64, 128, 256, 512, 1024)
SAMPLES = (25, 50, 100, 200, 400)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shared", type=Path, default=os.environ.get(VARIABLE), help=f"default: ${VARIABLE}")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["demo"])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--T", type=int, default=1024)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--worker", nargs=2, metavar=("PART", "NETWORK"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        part, name = args.worker
        print(json.dumps(PARTS[part](name, args)))
        return 0
    for name in args.networks:
        print(f"{name}, {torch.get_num_threads()} thread(s)")
        for part in args.only:
            # A process of its own, so that one part's memory is not another's.
            command = [sys.executable, "-W", "ignore", __file__, "--worker", part, name]
            command += ["--images", str(args.images), "--T", str(args.T)]
            command += ["--shared", str(args.shared)] if args.shared else []
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            for line in json.loads(found):
                print(f"  {line}", flush=True)
    return 0


def converted(name: str, args: argparse.Namespace) -> tuple[nn.Module, Tensor]:
    from sj_ann2snn import Converter, simulate

    ann = network(name, args.shared)
    x = torch.rand(max(args.images, 1000), *NETWORKS[name][0])
    snn = Converter([x[:100]], mode="99.9%", progress=False)(ann)
    simulate(snn, x[:1], 4)
    return snn, x


def memory(name: str, args: argparse.Namespace) -> list[str]:
    from sj_ann2snn import simulate

    snn, x = converted(name, args)
    before = peak()
    start = time.perf_counter()
    simulate(snn, x[: args.images], args.T)
    spent, grown = time.perf_counter() - start, peak() - before
    return [
        f"{args.images} images, T={args.T}: {grown / 2**20:.0f} MiB above the model (goal: below "
        f"{GOAL_BYTES / 2**20:.0f} MiB), {spent:.1f} s"
    ]


def peak() -> int:
    """Bytes of the largest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def growth(name: str, args: argparse.Namespace) -> list[str]:
    from sj_ann2snn import simulate

    snn, x = converted(name, args)
    lines = []
    for what, values, run in (
        ("20 images, T", STEPS, lambda value: simulate(snn, x[:20], value)),
        ("T=32, images", SAMPLES, lambda value: simulate(snn, x[:value], 32)),
    ):
        seconds = [median(lambda value=value, run=run: run(value), 3) for value in values]
        lines += [
            f"{what} = {value}: {spent:.3f} s, {spent / value * 1e3:.3f} ms each"
            for value, spent in zip(values, seconds, strict=True)
        ]
    return lines


def calibration(name: str, args: argparse.Namespace) -> list[str]:
    from sj_ann2snn import Converter

    ann = network(name, args.shared)
    batches = list(torch.rand(2000, *NETWORKS[name][0]).split(100))

    @torch.no_grad()
    def plain() -> None:
        for batch in batches:
            ann(batch)

    def convert(mode: str, **options: Any) -> Callable[[], Any]:
        return lambda: Converter(batches, mode=mode, progress=False, **options)(ann)

    ways: dict[str, tuple[Callable[[], Any], float | None]] = {
        "one plain pass of the ANN": (plain, None),
        "max": (convert("max"), GOAL_MAX),
        "99.9%": (convert("99.9%"), GOAL_PERCENTILE),
        "max per channel": (convert("max", channel_wise=True), None),
        "99.9% per channel": (convert("99.9%", channel_wise=True), None),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(6):
        for way, (run, _) in ways.items():
            seconds[way].append(timed(run))
    medians = {way: statistics.median(spent[1:]) for way, spent in seconds.items()}
    base = medians["one plain pass of the ANN"]
    return [
        f"conversion on 2,000 images, {way}: {medians[way]:.3f} s, {medians[way] / base:.2f} passes"
        + (f" (goal ≤ {goal})" if goal else "")
        for way, (_, goal) in ways.items()
    ]


def median(run: Callable[[], Any], repeats: int) -> float:
    run()
    return statistics.median(timed(run) for _ in range(repeats))


def timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


PARTS: dict[str, Callable[[str, argparse.Namespace], list[str]]] = {
    "calibration": calibration,
    "growth": growth,
    "memory": memory,
}


if __name__ == "__main__":
    sys.exit(main())
