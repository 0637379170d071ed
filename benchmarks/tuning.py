"""What `tune` finds in three minutes, beside the best of the table that `low_latency.py` made of the same network.

    python benchmarks/tuning.py --shared DIR [--networks resnet20 vgg_max vgg7] [--budgets steps spikes] [--neuron if]
        [--samples 1000]

DIR is the folder of `low_latency.py`, whose file results/low_latency/low_latency.json must hold the networks. The first
1,024 training images calibrate. `tune` chooses by the last 1,000 of the 5,000 test images, by all of which the table's
best is chosen; what it found is measured on the others. Install the plugins that the table used. It writes
results/tuning.md and tuning.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from low_latency import BATCH, CALIBRATION, WAYS, Store, images, network
from processor import processor_name
from reference_networks import VARIABLE

from sj_ann2snn import evaluate, tune
from sj_ann2snn.compat import spikingjelly_version
from sj_ann2snn.evaluation.evaluate import accuracy_of

LOST = 1.0
"""Points that may be lost."""

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shared", type=Path, default=os.environ.get(VARIABLE), help=f"default: ${VARIABLE}")
    parser.add_argument("--networks", nargs="+", default=["resnet20", "vgg_max", "vgg7"])
    parser.add_argument("--budgets", nargs="+", choices=["steps", "spikes"], default=["steps", "spikes"])
    parser.add_argument("--neuron", help="search among this neuron's conversions only, and compare with the table's")
    parser.add_argument("--samples", type=int, default=1000, help="test images that tune sees (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=165, help="that tune may take (default: %(default)s)")
    args = parser.parse_args()
    if args.shared is None:
        parser.error(f"name the folder with the data and the networks: --shared DIR, or set {VARIABLE}")
    file = RESULTS / "tuning.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    for name in args.networks:
        for budget in args.budgets:
            found = measured(args.shared, name, budget, args.seconds, args.neuron, args.samples)
            key = ("network", "budget", "neuron", "samples")
            rows = [row for row in rows if any(row[one] != found[one] for one in key)] + [found]
            file.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            (RESULTS / "tuning.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))
    return 0


def measured(shared: Path, name: str, budget: str, seconds: float, neuron: str | None, samples: int) -> dict[str, Any]:
    """What tune finds for one network and budget, and the table's best."""
    ann = network(shared, name)
    calibration = list(images(shared, "train", CALIBRATION)[0].split(BATCH))
    x, labels = images(shared, "test", 5000)
    tested, chosen = (
        list(zip(x[part].split(250), labels[part].split(250), strict=True))
        for part in (slice(-samples), slice(-samples, None))
    )
    fixed = {"neuron": neuron} if neuron else {}
    start = time.perf_counter()
    found = tune(ann, chosen, LOST, budget, calibration=calibration, seconds=seconds, progress=False, **fixed)
    taken = time.perf_counter() - start
    result = evaluate(found.network, tested, found.T, progress=False)
    cost = {"steps": found.T, "spikes": result.spikes_per_sample}[budget]
    best, way = best_of_table(name, budget, neuron)
    print(name, budget, neuron, f"{cost:.0f} for {best:.0f} ({way}) in {taken:.0f} s", file=sys.stderr, flush=True)
    return {
        "network": name,
        "budget": budget,
        "neuron": neuron,
        "samples": samples,
        "cost": cost,
        "T": found.T,
        "call": found.call,
        "drop": found.drop,
        "held_out_drop": found.held_out_drop,
        "tested_drop": 100 * (accuracy_of(ann, tested) - result.accuracy[-1]),
        "table": best,
        "way": way,
        "seconds": taken,
        "processor": processor_name(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "spikingjelly": spikingjelly_version(),
    }


def best_of_table(name: str, budget: str, neuron: str | None) -> tuple[float, str]:
    """The least cost of a way of ours that loses at most `LOST` points on the test images."""
    store = Store(RESULTS / "low_latency" / "low_latency.json")
    ann = store.get(name, "ANN", 0)
    assert ann is not None, f"run low_latency.py --networks {name} first"
    groups = ("binary",) if neuron == "if" else ("binary", "graded")
    fit = [
        (steps if budget == "steps" else one["spikes"], f"{way}, T={steps}")
        for way, described in WAYS.items()
        if described.group in groups and not (neuron == "if" and way == "signed")
        for steps in store.steps()
        if (one := store.get(name, way, steps)) and 100 * (ann["accuracy"] - one["accuracy"]) <= LOST
    ]
    return min(fit)


def table(rows: list[dict[str, Any]]) -> str:
    """All that was measured."""
    first = rows[0]
    lines = [
        f"SpikingJelly {first['spikingjelly']}, torch {first['torch']}, {first['processor']}. At most {LOST:g} "
        "point may be lost. Points lost: on the images that tune chose by, on those that it held out, on the others.",
        "",
        "| network | budget | images | tune | best of the table | ratio | points lost | tune took | found |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lost = ", ".join(f"{row[kind]:.1f}" for kind in ("drop", "held_out_drop", "tested_drop"))
        among = f", neuron {row['neuron']!r}" if row["neuron"] else ""
        lines.append(
            f"| {row['network']} | {row['budget']}{among} | {row['samples']:,} | {row['cost']:,.0f} | "
            f"{row['table']:,.0f} ({row['way']}) | {row['cost'] / row['table']:.2f} | {lost} | "
            f"{row['seconds']:.0f} s | `{row['call']}`, T={row['T']} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
