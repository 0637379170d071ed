"""What `costs` found."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ...support.tables import html_table, plain_data, text_table
from ...support.wording import listed, shown
from .energy import EnergyPerOperation

__all__ = ["Costs", "LayerCosts"]

UNITS = ((1e12, "J"), (1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ"), (1.0, "pJ"))
HEAD = ("layer", "", "ANN MACs", "accumulates", "MACs", "products", "updates", "ANN energy", "energy")


@dataclass(frozen=True)
class LayerCosts:
    """What one layer costs per sample: in the ANN once, in the spiking network over all steps.

    Attributes:
        name: Qualified name in the converted network; empty for functions that the network itself calls.
        kind: ``Conv2d``, ``IFNode``, ``matmul``.
        runs: `"events"` (each nonzero input costs its connections), `"once"` (the input is constant over time) or
            `"every step"` (all products, at every step).
        ann_macs: The ANN's multiply-accumulates.
        accumulates: Additions of a weight, one for every spike and connection.
        macs: Multiply-accumulates: of a value that is not 1 or −1, or of a layer that runs `"once"` or `"every step"`.
        multiplications: Products of single elements with a factor, such as those of average pools.
        updates: Steps of a neuron.
        ann_energy, energy: In pJ.
    """

    name: str
    kind: str
    runs: str
    ann_macs: float
    accumulates: float
    macs: float
    multiplications: float
    updates: float
    ann_energy: float
    energy: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        found: dict[str, Any] = plain_data(asdict(self))
        return found


@dataclass(frozen=True)
class Costs:
    """What one inference costs; prints as a table.

    All counts are per sample, energies are in pJ.

    Attributes:
        layers: The layers of the converted network, in order.
        T: Number of steps.
        steps: Mean number of steps that were simulated: T without an early exit.
        samples: Number of samples.
        ann_macs: Multiply-accumulates of the ANN.
        spikes, synops: Of the spiking network, as `evaluate` counts them.
        energy_per_operation: The energies of single operations.
        not_counted: Operations that multiply and whose number is not known.
    """

    layers: tuple[LayerCosts, ...]
    T: int
    steps: float
    samples: int
    ann_macs: float
    spikes: float
    synops: float
    energy_per_operation: EnergyPerOperation
    not_counted: tuple[str, ...] = ()

    @property
    def accumulates(self) -> float:
        """Of all layers."""
        return sum(layer.accumulates for layer in self.layers)

    @property
    def macs(self) -> float:
        """Of the spiking network, all layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def multiplications(self) -> float:
        """Of all layers."""
        return sum(layer.multiplications for layer in self.layers)

    @property
    def updates(self) -> float:
        """Of all neurons."""
        return sum(layer.updates for layer in self.layers)

    @property
    def ann_energy(self) -> float:
        """Of the ANN, in pJ."""
        return self.energy_per_operation.of(macs=self.ann_macs)

    @property
    def energy(self) -> float:
        """Of the spiking network, in pJ."""
        return self.energy_per_operation.of(
            macs=self.macs,
            accumulates=self.accumulates,
            multiplications=self.multiplications,
            updates=self.updates,
        )

    @property
    def energy_if_recomputed(self) -> float:
        """The same if the layers with a constant input were computed again at every step."""
        once = sum(layer.macs for layer in self.layers if layer.runs == "once")
        return self.energy + self.energy_per_operation.of(macs=once * (self.steps - 1))

    @property
    def ratio(self) -> float | None:
        """Energy of the spiking network as a multiple of the ANN's; None if the ANN's is zero."""
        return self.energy / self.ann_energy if self.ann_energy else None

    @property
    def rest(self) -> float:
        """MACs of the ANN that no layer of the converted network stands for."""
        return self.ann_macs - sum(layer.ann_macs for layer in self.layers)

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        per_layer = f"{energy_text(self.energy)} per inference at T={self.T}, the ANN {energy_text(self.ann_energy)}"
        if self.ratio is None:
            return f"The spiking network takes {per_layer}."
        times = f"{self.ratio:.3g} times as much" if self.ratio >= 1 else f"{100 * self.ratio:.3g} % of it"
        return f"The spiking network takes {per_layer}: {times}."

    def __iter__(self) -> Iterator[LayerCosts]:
        return iter(self.layers)

    def __getitem__(self, name: str) -> LayerCosts:
        """The layer called `name`."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"{shown(name)} is no layer of these costs; they have {listed(one.name for one in self.layers)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        found = {name: value for name, value in self.__dict__.items() if name not in ("layers", "energy_per_operation")}
        totals = (
            "accumulates",
            "macs",
            "multiplications",
            "updates",
            "ann_energy",
            "energy",
            "energy_if_recomputed",
            "ratio",
            "rest",
            "verdict",
        )
        plain: dict[str, Any] = plain_data(
            {
                **found,
                **{name: getattr(self, name) for name in totals},
                "energy_per_operation": asdict(self.energy_per_operation),
                "layers": [layer.to_dict() for layer in self.layers],
            }
        )
        return plain

    def to_json(self, *, indent: int | None = 2) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def to_pandas(self) -> Any:
        """The layers as a `pandas.DataFrame`, one row each, in order.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore]

        return pandas.DataFrame([layer.to_dict() for layer in self.layers]).set_index("name")

    def __str__(self) -> str:
        return "\n".join([*text_table(self._rows()), "", *self._notes()])

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self._notes())
        return f"{html_table(self._rows())}{notes}"

    def _rows(self) -> list[tuple[str, ...]]:
        # Neurons whose updates cost nothing appear in the total only.
        rows = [HEAD, *(_row(layer) for layer in self.layers if layer.ann_macs or layer.energy)]
        if abs(self.rest) >= 0.5:
            energy = energy_text(self.energy_per_operation.of(macs=self.rest)) if self.rest > 0 else ""
            rows.append(("rest of the ANN", "", _number(self.rest), "", "", "", "", energy, ""))
        numbers = (self.ann_macs, self.accumulates, self.macs, self.multiplications, self.updates)
        energies = (energy_text(self.ann_energy), energy_text(self.energy))
        return [*rows, ("total", "", *map(_number, numbers), *energies)]

    def _notes(self) -> list[str]:
        found = [self.verdict]
        once = [layer.name or layer.kind for layer in self.layers if layer.runs == "once" and layer.macs]
        if once:
            found.append(
                f"Computed once, because the input is constant: {listed(once)}; if computed at every step, "
                f"{energy_text(self.energy_if_recomputed)} in all."
            )
        early = f", {self.steps:.4g} of {self.T} steps" if self.steps < self.T else ""
        found.append(f"{self.samples} samples{early}; {self.energy_per_operation}.")
        if self.not_counted:
            found.append(f"Not counted: {listed(self.not_counted)}.")
        return found


def energy_text(picojoule: float) -> str:
    """An energy with its unit.

    >>> energy_text(0.9), energy_text(12345.0)
    ('0.9 pJ', '12.3 nJ')
    """
    size, unit = next((pair for pair in UNITS if abs(picojoule) >= pair[0]), UNITS[-1])
    return f"{picojoule / size:.3g} {unit}"


def _row(layer: LayerCosts) -> tuple[str, ...]:
    numbers = (layer.ann_macs, layer.accumulates, layer.macs, layer.multiplications, layer.updates)
    energies = (layer.ann_energy, layer.energy)
    return (
        f"{layer.name} ({layer.kind})" if layer.name else f"({layer.kind})",
        "" if layer.runs == "events" else layer.runs,
        *(_number(one) if one else "" for one in numbers),
        *(energy_text(one) if one else "" for one in energies),
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"
