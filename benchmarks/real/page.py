"""The tables of docs/real-networks.md, from what was measured."""

from __future__ import annotations

from typing import Any

from low_latency import Store
from mnist_modes import markdown_table

from sj_ann2snn.compat import spikingjelly_version

from . import TASKS
from .ways import OURS, PEERS, REMEDIES

TIMED = ("99.9%, from θ/2", "differential", "differential, 16 sizes")
"""Ways whose networks have layers of their own; `low-latency` differs from the first in its thresholds only."""

NEAR = 0.01
"""What counts as the ANN's value."""


def tables(store: Store) -> str:
    """The tasks, the values of ours, those of SpikingJelly's recipes, and the times."""
    anns = {name: ann for name in TASKS if (ann := store.get(name, "ANN", 0)) is not None}
    if not anns:
        return "Nothing was measured: no package of a network is installed.\n"
    of_t = ", ".join(map(str, store.steps()))
    head = ("network", "package", "test data", "samples", "value", "ANN")
    cells = (
        (name, ann["package"], ann["data"], f"{ann['samples']:,}", ann["measures"], f"{ann['value']:.3f}")
        for name, ann in anns.items()
    )
    lines = markdown_table([head, *cells])
    lines += ["", f"Values at T = {of_t}; bold if at most {NEAR} below the ANN's, – where not measured:", ""]
    lines += table(store, anns, list(OURS))
    tried = {name for name in anns for way in REMEDIES for t in store.steps() if store.get(name, way, t) is not None}
    remedied = {name: ann for name, ann in anns.items() if name in tried}
    if remedied:
        lines += ["", f"With larger scales, at T = {of_t}:", ""]
        lines += table(store, remedied, list(REMEDIES))
    lines += ["", f"SpikingJelly {spikingjelly_version()}'s recipes, at T = {of_t}:", ""]
    lines += table(store, anns, list(PEERS))
    lines += ["", "Processor time of a simulation, as a multiple of the ANN's T passes (one thread, T = 32):", ""]
    times = ((name, *(ratio(store.get(name, f"time, {way}", 0)) for way in TIMED)) for name in anns)
    lines += markdown_table([("network", *TIMED), *times])
    first = next(iter(anns.values()))
    lines += ["", f"{first['processor']}, torch {first['torch']}.", ""]
    return "\n".join(lines)


def table(store: Store, anns: dict[str, dict[str, Any]], ways: list[str]) -> list[str]:
    rows = (
        (name, f"{ann['value']:.3f}", *(cell(store, name, way, ann["value"]) for way in ways))
        for name, ann in anns.items()
    )
    return markdown_table([("network", "ANN", *ways), *rows])


def cell(store: Store, name: str, way: str, ann: float) -> str:
    """The values at all numbers of steps, or why there are none."""
    found = [store.get(name, way, count) for count in store.steps()]
    refused = [one["refused"] for one in found if one is not None and "refused" in one]
    if refused:
        return str(refused[0]).replace("|", "\\|")
    return " / ".join("–" if one is None else shown(one["value"], ann) for one in found)


def shown(value: float, ann: float) -> str:
    return f"**{value:.3f}**" if value >= ann - NEAR else f"{value:.3f}"


def ratio(measured: dict[str, Any] | None) -> str:
    return "–" if measured is None else f"{measured['ratio']:.2f}"
