"""The tables of docs/real-networks.md, from what was measured."""

from __future__ import annotations

from typing import Any

from sj_ann2snn.compat import spikingjelly_version

from . import TASKS
from .ways import OURS, PEERS

TIMED = ("99.9%, from θ/2", "differential", "differential, 16 sizes")
"""Ways whose networks have layers of their own; `low-latency` differs from the first in its thresholds only."""

NEAR = 0.01
"""What counts as the ANN's value."""


def tables(store: Any) -> str:
    """The tasks, the values of ours, those of SpikingJelly's recipes, and the times."""
    names = [name for name in TASKS if store.get(name, "ANN", 0)]
    if not names:
        return "Nothing was measured: no package of a network is installed.\n"
    steps = sorted({int(key) for name in names for way in OURS for key in found(store, name, way).get("values", {})})
    of_t = ", ".join(map(str, steps))
    lines = ["| network | package | test data | samples | value | ANN |", "|---|---|---|---|---|---|"]
    for name in names:
        ann = store.get(name, "ANN", 0)
        cells = (name, ann["package"], ann["data"], f"{ann['samples']:,}", ann["measures"], f"{ann['value']:.3f}")
        lines.append(row(cells))
    lines += ["", f"Values at T = {of_t}; bold within {NEAR:.0%} of the ANN's:", ""]
    lines += table(store, names, ["ANN", *OURS])
    lines += ["", f"SpikingJelly {spikingjelly_version()}'s recipes, at T = {of_t}:", ""]
    lines += table(store, names, list(PEERS))
    lines += ["", "Time of a simulation, as a multiple of the ANN's T passes (one thread, T = 32):", ""]
    lines += [row(("network", *TIMED)), "|---|" + "---|" * len(TIMED)]
    for name in names:
        times = [found(store, name, f"time, {way}") for way in TIMED]
        lines.append(row((name, *(f"{one['ratio']:.2f}" if "ratio" in one else "–" for one in times))))
    first = store.get(names[0], "ANN", 0)
    lines += ["", f"{first['processor']}, torch {first['torch']}.", ""]
    return "\n".join(lines)


def table(store: Any, names: list[str], ways: list[str]) -> list[str]:
    lines = [row(("network", *ways)), "|---|" + "---|" * len(ways)]
    for name in names:
        ann = store.get(name, "ANN", 0)["value"]
        lines.append(row((name, *(f"{ann:.3f}" if way == "ANN" else cell(store, name, way, ann) for way in ways))))
    return lines


def cell(store: Any, name: str, way: str, ann: float) -> str:
    measured = found(store, name, way)
    if "refused" in measured:
        return measured["refused"].replace("|", "\\|")
    values = sorted(measured.get("values", {}).items(), key=lambda item: int(item[0]))
    return " / ".join(f"**{one:.3f}**" if one >= ann - NEAR else f"{one:.3f}" for _, one in values) or "–"


def found(store: Any, name: str, way: str) -> dict[str, Any]:
    """What was measured of a way, whatever the number of steps."""
    for count in store.steps():
        measured = store.get(name, way, count)
        if measured is not None:
            return dict(measured)
    return {}


def row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
