"""What a search found."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torch import nn

from ..conversion.report import format_table
from ..support.plotting import COLOURS, DARK, figure_of_size, require_matplotlib
from ..support.tables import html_table, plain_data
from .figures import Figures
from .measuring import Point

__all__ = ["TunedPoint", "Tuning"]


@dataclass(frozen=True, kw_only=True)
class TunedPoint(Figures):
    """One conversion of the frontier: no other that was tried loses as little at so low a cost.

    Attributes:
        call: The conversion.
    """

    call: str

    @classmethod
    def of(cls, point: Figures, call: str) -> TunedPoint:
        """A point that was measured, with its conversion as text."""
        return cls(call=call, **{one.name: getattr(point, one.name) for one in fields(Figures)})


@dataclass(frozen=True)
class Tuning:
    """What `tune` found.

    Attributes:
        network: The converted network.
        T: The number of time steps to run it for.
        call: The conversion as text: with `calibration` it makes the same network again, bit for bit.
        evaluate_call: How to run it: with T and the readout.
        arguments: The arguments of the conversion.
        readout: The readout, a name and options; None for the network's own.
        drop: Points lost against the ANN, on the samples that the search chose by.
        drop_error: Its standard error, from the differences between parts of the samples.
        held_out_drop: The same on samples that it did not choose by; None without any.
        cost: Per sample, in units of the budget.
        budget: `"steps"`, `"spikes"`, `"synops"` or `"energy"` (in nJ).
        max_drop: Points that may be lost.
        reached: False if everything that was tried loses more; the result is then what loses least.
        frontier: Accuracy over cost: what was tried and is not beaten in both.
        ann_values: What the metrics say of the ANN, on the samples that the search chose by.
        samples, held_out_samples: Numbers of samples.
        trials: Number of conversions.
        seconds: Duration.
        failures: What could not be converted, with the reason.
        calibration: The batches that `call` calibrates with.
    """

    network: nn.Module
    T: int
    call: str
    evaluate_call: str
    arguments: Mapping[str, Any]
    readout: tuple[str, Mapping[str, Any]] | None
    drop: float
    drop_error: float
    held_out_drop: float | None
    cost: float
    budget: str
    max_drop: float
    reached: bool
    frontier: tuple[TunedPoint, ...]
    ann_values: Mapping[str, float]
    samples: int
    held_out_samples: int
    trials: int
    seconds: float
    failures: Mapping[str, str] = field(default_factory=dict)
    calibration: Any = field(default=None, repr=False)

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        held = "" if self.held_out_drop is None else f", {self.held_out_drop:.2f} on {self.held_out_samples} held out"
        lost = f"{self.drop:.2f} ± {self.drop_error:.2f} points lost on {self.samples} samples{held}"
        cost = "" if self.budget == "steps" else f", {self.cost:.4g} {UNITS[self.budget]} per sample"
        if self.reached:
            return f"T={self.T}{cost}: {lost}."
        return (
            f"Nothing that was tried loses at most {self.max_drop:g} points. The best, T={self.T}{cost}: {lost}. Allow "
            "more steps (T=) or a larger max_drop, or install plugins with other neurons."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; without the network and the calibration data."""
        found = {name: value for name, value in self.__dict__.items() if name not in ("network", "calibration")}
        found["arguments"] = {name: _plain(value) for name, value in self.arguments.items()}
        found["readout"] = None if self.readout is None else {"name": self.readout[0], **self.readout[1]}
        found["frontier"] = [asdict(point) for point in self.frontier]
        return {**plain_data(found), "verdict": self.verdict}

    def to_json(self, *, indent: int | None = 2) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def to_pandas(self) -> Any:
        """The frontier as a `pandas.DataFrame`, the cheapest first.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore]

        return pandas.DataFrame([asdict(point) for point in self.frontier])

    def figure(self) -> Any:
        """Points lost over the cost, as a `matplotlib.figure.Figure`.

        Raises:
            InputError: Matplotlib is not installed.
        """
        require_matplotlib()
        costs, drops = [point.cost for point in self.frontier], [point.drop for point in self.frontier]
        with figure_of_size(6.0, 3.8) as figure:
            axes = figure.subplots()
            axes.step(costs, drops, where="post", color=COLOURS[0], marker="o", markersize=4)
            axes.plot([self.cost], [self.drop], marker="o", markersize=9, color=COLOURS[3], ls="", label="chosen")
            axes.axhline(self.max_drop, color=DARK, linewidth=1, linestyle="--", label=f"at most {self.max_drop:g}")
            axes.set_xlabel(f"{UNITS[self.budget]} per sample")
            axes.set_ylabel("points lost against the ANN")
            axes.legend(frameon=False)
            figure.tight_layout()
        return figure

    def __str__(self) -> str:
        lines = [self.verdict, "", f"snn = {self.call}", self.evaluate_call, "", *format_table(self._rows())]
        if self.failures:
            lines += ["", f"{len(self.failures)} could not be converted, such as {next(iter(self.failures))}"]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        calls = html.escape(f"snn = {self.call}\n{self.evaluate_call}")
        return f"<p>{html.escape(self.verdict)}</p><pre>{calls}</pre>{html_table(self._rows())}"

    def _some(self) -> list[TunedPoint]:
        """At most `ROWS` points of the frontier, evenly spread, the chosen one among them."""
        every = list(self.frontier)
        chosen = next((place for place, point in enumerate(every) if (point.T, point.drop) == (self.T, self.drop)), 0)
        places = {round(row * (len(every) - 1) / max(1, ROWS - 2)) for row in range(ROWS - 1)} | {chosen}
        return [every[place] for place in sorted(places) if place < len(every)]

    def _rows(self) -> list[tuple[str, ...]]:
        units = [] if self.budget in ("steps", "spikes", "synops") else [UNITS[self.budget]]
        rows = [("points lost", "T", *units, "spikes", "synops", "samples", "conversion")]
        for point in self._some():
            cost = [f"{point.cost:.4g}"] if units else []
            spikes, synops = f"{point.spikes:.4g}", f"{point.synops:.4g}"
            rows.append((f"{point.drop:.2f}", str(point.T), *cost, spikes, synops, str(point.samples), point.call))
        return rows


ROWS = 12
"""Points of the frontier to print at most."""

UNITS = {"steps": "time steps", "spikes": "spikes", "synops": "synaptic operations", "energy": "nJ"}
"""What a cost is counted in."""


def frontier(points: list[Point]) -> list[Point]:
    """The points that no other beats in both, the cheapest first.

    Points that were measured on few samples count less: where two conversions are the same, the one on more is taken.
    """
    most: dict[tuple[Any, int], Point] = {}
    for point in points:
        key = point.candidate, point.T
        if key not in most or most[key].samples < point.samples:
            most[key] = point
    largest = max((point.samples for point in most.values()), default=0)
    trusted = [point for point in most.values() if point.samples == largest]
    found: list[Point] = []
    for point in sorted(trusted, key=lambda one: (one.cost, one.drop, one.spikes)):
        if not found or point.drop < found[-1].drop:
            found.append(point)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return value if isinstance(value, (bool, int, float, str, type(None))) else repr(value)
