"""The report of a conversion: what each operation became, which mapper decided, with which scale."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..support.wording import listed, shown
from .integer_report import IntegerReport, joined_integers

__all__ = ["ConversionCheck", "ConversionReport", "ReportEntry", "format_table", "joined_checks", "joined_reports"]


@dataclass(frozen=True)
class ReportEntry:
    """One call of the ANN and what became of it.

    Attributes:
        name: Qualified name of the layer.
        operation: The ANN's operation.
        becomes: What it became.
        mapper: The mapper that decided.
        owner: The distribution of that mapper.
        scale: λ of a spiking site: smallest and largest over its channels (equal if there is one scale per layer).
        exact: False if the mean over time only approximates the ANN's operation.
        source: File and line in the user's code.
        analog: True if it is computed on analog values, without spikes.
        rate: Expected firing rate of a spiking site, in spikes per neuron and step: its mean activation in the
            calibration data, in units of a spike.
        channels_unknown: True for a spiking site with one λ because the dimension of its channels is not known.
    """

    name: str
    operation: str
    becomes: str
    mapper: str
    owner: str
    scale: tuple[float, float] | None
    exact: bool
    source: str
    analog: bool = False
    rate: float | None = None
    channels_unknown: bool = False


@dataclass(frozen=True)
class ConversionReport:
    """The report of one conversion; prints as a table.

    Attributes:
        mode: The normalization mode, with its options.
        mode_owner: The distribution of the mode.
        neuron: Name of the neuron.
        neuron_owner: The distribution of the neuron.
        corrections: The corrections in the order of application, each with its distribution.
        entries: One per call of the ANN, in order of execution.
        scalers: Qualified names of the scalers that could not be folded into weights.
        notes: What the corrections say about this network, each behind the correction's name.
        settings: What else reproduces the conversion: `channel_wise`, T if it was given, and the options of the mode,
            the neuron, the corrections and the mappers that were given or suggested by the mode.
        integers: The widths of a network of integers, and what is not pure in it; None for floating point.
        tuned: The layers whose weights corrections changed, each with the fields `name`, `by` (these corrections) and
            `change`, the norm of the change relative to that of the ANN's weights.
    """

    mode: str
    mode_owner: str
    neuron: str
    neuron_owner: str
    corrections: tuple[str, ...]
    entries: tuple[ReportEntry, ...]
    scalers: tuple[str, ...]
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    integers: IntegerReport | None = None
    tuned: tuple[Any, ...] = ()

    def __iter__(self) -> Iterator[ReportEntry]:
        return iter(self.entries)

    def __getitem__(self, name: str) -> ReportEntry:
        """The entry of the layer called `name`."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(f"{shown(name)} is not in the report; it has {listed(entry.name for entry in self.entries)}")

    @property
    def scales(self) -> dict[str, tuple[float, float]]:
        """λ of every spiking site, smallest and largest over its channels."""
        return {entry.name: entry.scale for entry in self.entries if entry.scale is not None}

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        head = ("layer", "operation", "becomes", "λ", "mapper", "by")
        rows = [
            (
                entry.name,
                entry.operation,
                entry.becomes + ("" if entry.exact else " (approximate)"),
                _scale_text(entry.scale),
                entry.mapper,
                entry.owner,
            )
            for entry in self.entries
        ]
        lines = [
            ", ".join(
                [
                    f"mode {self.mode} ({self.mode_owner}), neuron {self.neuron} ({self.neuron_owner})",
                    *(f"{name}={value!r}" for name, value in self.settings.items()),
                ]
            ),
            *self.corrections,
            *format_table([head, *rows]),
        ]
        if self.scalers:
            lines.append(f"scalers that no weights absorb: {', '.join(self.scalers)}")
        lines += _spikeless(self.entries)
        unknown = [entry.name for entry in self.entries if entry.channels_unknown]
        if unknown:
            lines.append(f"one λ for all channels, whose dimension is not known: {', '.join(unknown)}")
        lines += self._tuned_weights()
        if self.integers is not None:
            lines += self.integers.lines()
        return "\n".join([*lines, *self.notes])

    def _tuned_weights(self) -> Iterator[str]:
        """A line per list of corrections, with the layers whose weights they changed."""
        if not self.tuned and str(self.settings.get("weights", "")).startswith("tuned"):
            yield "no weights were changed, because no correction in use changes any; see corrections="
        for by in dict.fromkeys(one.by for one in self.tuned):
            layers = ", ".join(f"{one.name} ({one.change:.2g})" for one in self.tuned if one.by == by)
            yield f"weights changed by {' and '.join(by)}, each by this share of their norm: {layers}"


@dataclass(frozen=True)
class ConversionCheck:
    """What every layer of a network would become, and what prevents a conversion; prints as a table.

    Attributes:
        entries: One per call of the ANN, in order of execution, without scales.
        problems: The operations that have no exact spiking counterpart, each with the fields `name`, `operation`,
            `source`, `why` and `help`.
    """

    entries: tuple[ReportEntry, ...]
    problems: tuple[Any, ...]

    @property
    def convertible(self) -> bool:
        """True if the network can be converted."""
        return not self.problems and any(entry.analog or _spikes(entry) for entry in self.entries)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {"convertible": self.convertible, **asdict(self)}

    def __str__(self) -> str:
        refused = {problem.name: problem for problem in self.problems}
        rows: list[tuple[str, ...]] = [("layer", "operation", "becomes", "mapper", "source")]
        for entry in self.entries:
            becomes = "refused" if refused.pop(entry.name, None) else entry.becomes
            rows.append((entry.name, entry.operation, becomes, entry.mapper, _short(entry.source)))
        rows += [(one.name, one.operation, "refused", "", _short(one.source)) for one in refused.values()]
        return "\n".join([*format_table(rows), "", *_spikeless(self.entries), self._verdict, *self._reasons()])

    @property
    def _verdict(self) -> str:
        count = len(self.problems)
        if count:
            return f"not convertible: {count} operation{'' if count == 1 else 's'} refused"
        return "convertible" if self.convertible else "not convertible: no activation becomes a spiking neuron"

    def _reasons(self) -> Iterator[str]:
        """One line for each pair of operation and reason, however often it occurs."""
        counts = Counter((one.operation, one.why, one.help) for one in self.problems)
        for (operation, why, help_), count in counts.items():
            times = f" ({count} times)" if count > 1 else ""
            yield f"  - {operation}{times}: {why}. {help_}".rstrip()


def joined_reports(reports: Sequence[ConversionReport]) -> ConversionReport:
    """One report for the parts of a network, in the order of their conversion."""
    return replace(
        reports[0],
        entries=tuple(entry for report in reports for entry in report.entries),
        scalers=tuple(name for report in reports for name in report.scalers),
        notes=tuple(dict.fromkeys(note for report in reports for note in report.notes)),
        integers=joined_integers([report.integers for report in reports]),
        tuned=tuple(layer for report in reports for layer in report.tuned),
    )


def joined_checks(checks: Sequence[ConversionCheck]) -> ConversionCheck:
    """One check for the parts of a network."""
    return ConversionCheck(
        tuple(entry for check in checks for entry in check.entries),
        tuple(problem for check in checks for problem in check.problems),
    )


def _spikes(entry: ReportEntry) -> bool:
    return entry.becomes.endswith(("neuron", "neurons"))


def _spikeless(entries: Sequence[ReportEntry]) -> Iterator[str]:
    """A line that lists the analog operations, if there are any."""
    analog = [entry.name for entry in entries if entry.analog]
    if analog:
        nothing = "" if any(_spikes(entry) for entry in entries) else "; no layer spikes"
        yield f"computed on analog values, without spikes: {', '.join(analog)}{nothing}"


def _short(source: str) -> str:
    """A file and line, relative to the import path or the current folder if it lies there."""
    known = [Path(place).resolve() for place in (".", *sys.path)]
    path = Path(source)
    shorter = [str(path.relative_to(place)) for place in known if source and path.is_relative_to(place)]
    return min(shorter, key=len, default=source)


def _scale_text(scale: tuple[float, float] | None) -> str:
    if scale is None:
        return ""
    low, high = scale
    return f"{low:.4g}" if low == high else f"{low:.3g} to {high:.3g}"


def format_table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines with aligned columns; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines
