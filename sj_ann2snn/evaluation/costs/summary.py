"""Turns counts into the costs of every layer."""

from __future__ import annotations

from .dense import DensePasses
from .energy import EnergyPerOperation
from .layers import Layers
from .operations import Totals
from .result import Costs, LayerCosts

__all__ = ["summed_up"]


def summed_up(
    layers: Layers,
    dense: DensePasses,
    totals: Totals,
    figures: EnergyPerOperation,
    steps: int,
    samples: int,
    spikes: float,
) -> Costs:
    """The costs per sample.

    Args:
        layers: The layers of the network.
        dense: MACs of the ANN, and of one step.
        totals: What was counted over time.
        figures: Energies of single operations.
        steps: T.
        samples: Number of samples.
        spikes: Per sample.
    """
    rows, missing = _rows(layers, dense, totals, samples, figures)
    return Costs(
        layers=tuple(rows),
        T=steps,
        steps=totals.steps / samples,
        samples=samples,
        ann_macs=dense.ann,
        spikes=spikes,
        synops=sum(totals.events.values()) / samples,
        energy_per_operation=figures,
        not_counted=tuple(missing),
    )


def _rows(
    layers: Layers, dense: DensePasses, totals: Totals, samples: int, figures: EnergyPerOperation
) -> tuple[list[LayerCosts], dict[str, None]]:
    """The costs of every layer, and what is not counted."""
    of_pass: dict[str, float] = {}
    for name, macs in dense.layers.items():
        of_pass[layers.row(name)] = of_pass.get(layers.row(name), 0.0) + macs
    counts = {
        kind: _by_row(layers, getattr(totals, kind), samples)
        for kind in ("events", "spikes", "sums", "products", "updates")
    }
    skipped: dict[str, list[str]] = {}
    for name, what in totals.skipped.items():
        skipped.setdefault(layers.row(name), []).append(what)
    missing = dict(dense.not_counted)
    rows = []
    for name in dict.fromkeys((*layers.once, *of_pass, *map(layers.row, totals.seen))):
        macs = of_pass.get(name, 0.0)
        events, spikes = counts["events"].get(name, 0.0), counts["spikes"].get(name, 0.0)
        if layers.is_once(name):
            runs, products, added = "once", macs, 0.0
        elif name in skipped and macs and not events:
            runs, products, added = "every step", macs * totals.steps / samples, 0.0
        else:
            runs, products, added = "events", events - spikes, spikes
            missing.update(dict.fromkeys(skipped.get(name, ())))
        added += 0.0 if layers.is_once(name) else counts["sums"].get(name, 0.0)
        single, updates = counts["products"].get(name, 0.0), counts["updates"].get(name, 0.0)
        if not (macs or products or added or single or updates):
            continue
        energy = figures.of(macs=products, accumulates=added, multiplications=single, updates=updates)
        rows.append(
            LayerCosts(
                name=name,
                kind=layers.kind(name),
                runs=runs,
                ann_macs=macs,
                accumulates=added,
                macs=products,
                multiplications=single,
                updates=updates,
                ann_energy=figures.of(macs=macs),
                energy=energy,
            )
        )
    return rows, missing


def _by_row(layers: Layers, counts: dict[str, float], samples: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, count in counts.items():
        row = layers.row(name)
        found[row] = found.get(row, 0.0) + count / samples
    return found
