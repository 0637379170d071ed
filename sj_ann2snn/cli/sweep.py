"""Converts one network in several modes and measures each, for `demo` and `compare`."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._version import __version__
from ..compat import spikingjelly_version
from ..contracts.readout import Readout
from ..conversion.converter import Converter
from ..conversion.report import format_table
from ..evaluation.evaluate import ann_values, evaluate
from ..evaluation.result import EvaluationResult, short
from ..hooks.discovery import load_plugins
from ..hooks.kinds import LAYER_MAPPERS, NEURONS
from ..hooks.modes import find_mode
from ..hooks.options import declared_options
from ..support.wording import listed
from .processes import is_first
from .streams import tell

__all__ = ["ModeRun", "Sweep", "check_modes", "metric_title", "options_of_mode", "run_modes", "shown_steps"]


@dataclass(frozen=True)
class ModeRun:
    """One mode: as written, as understood, and its results."""

    mode: str
    normalization: str
    owner: str
    scales: dict[str, tuple[float, float]]
    result: EvaluationResult
    snn: nn.Module


@dataclass(frozen=True)
class Sweep:
    """Several modes and the ANN that they were converted from.

    Attributes:
        ann_values: What every metric says of the ANN, by its name.
        steps: Number of time steps.
        runs: One for each mode.
    """

    ann_values: Mapping[str, float]
    steps: int
    runs: tuple[ModeRun, ...]

    def __str__(self) -> str:
        samples = self.runs[0].result.samples
        ann = ", ".join(f"{metric_title(name)} {short(value)}" for name, value in self.ann_values.items())
        tables = [
            line
            for name in self.ann_values
            for line in (
                f"{metric_title(name)} after t steps; spikes and synaptic operations per sample over T={self.steps} "
                "steps",
                "",
                *format_table(self._value_rows(name)),
                "",
            )
        ]
        return "\n".join(
            [
                f"ANN {ann} on {samples} samples",
                "",
                *tables[:-1],
                *self._not_counted(),
                "",
                "scale λ of every spiking layer",
                "",
                *format_table(self._scale_rows()),
            ]
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "versions": {
                "sj_ann2snn": __version__,
                "spikingjelly": spikingjelly_version(),
                "torch": str(torch.__version__),
                "python": platform.python_version(),
            },
            "T": self.steps,
            "samples": self.runs[0].result.samples,
            **({"ann_accuracy": self.ann_values["top1"]} if "top1" in self.ann_values else {}),
            "ann": dict(self.ann_values),
            "modes": [_run_as_dict(run) for run in self.runs],
        }

    def _value_rows(self, metric: str) -> list[tuple[str, ...]]:
        shown = shown_steps(self.steps)
        rows = [("mode", *(f"t={t}" for t in shown), "spikes", "synops", "seconds")]
        for run in self.runs:
            result = run.result
            values = (short(result.values[metric][t - 1]) for t in shown)
            counts = (f"{result.spikes_per_sample:,.0f}", f"{result.synops_per_sample:,.0f}")
            rows.append((run.mode, *values, *counts, f"{result.seconds:.1f}"))
        return _right_aligned(rows)

    def _not_counted(self) -> list[str]:
        missing = dict.fromkeys(name for run in self.runs for name in run.result.not_counted)
        return [f"synaptic operations not counted: {listed(missing)}"] if missing else []

    def _scale_rows(self) -> list[tuple[str, ...]]:
        rows = [("layer", *(run.mode for run in self.runs))]
        for name in self.runs[0].scales:
            rows.append((name, *(_scale_text(run.scales.get(name)) for run in self.runs)))
        return _right_aligned(rows)


def run_modes(
    ann: nn.Module,
    modes: Sequence[str],
    calibration: Iterable[Any],
    test: Iterable[Any],
    steps: int,
    *,
    device: torch.device | None = None,
    channel_wise: bool = False,
    options: Mapping[str, Any] | None = None,
    readout: str | Readout | None = None,
    metric: Any = None,
    against_ann: bool = False,
    checkpoint: Path | None = None,
    distributed: bool = False,
) -> Sweep:
    """Convert `ann` in every mode, and simulate each for `steps` steps on the test data.

    An option that only some of the modes take is passed to these modes only. `metric` is that of `evaluate`; with
    `against_ann`, the ANN's outputs take the place of the targets. A `checkpoint` gets the mode into its name. With
    `distributed`, the processes of a group share the data.

    Raises:
        Ann2SnnError: A mode is unknown, the network cannot be converted, or the data does not fit it.
    """
    options = dict(options or {})
    bars = sys.stderr.isatty()
    if device is not None:
        ann = ann.to(device)
    judge = ann if against_ann else None
    values = ann_values(ann, test, metric, against=judge, distributed=distributed)
    runs = []
    for mode in dict.fromkeys(modes):
        if is_first():
            tell(f"mode {mode}: converting and simulating {steps} steps")
        converter = Converter(
            calibration,
            device,
            mode,
            channel_wise=channel_wise or None,  # a mode may suggest it
            T=steps,
            progress=bars,
            distributed=distributed,
            **options_of_mode(mode, modes, options),
        )
        snn = converter(ann)
        result = evaluate(
            snn,
            test,
            steps,
            readout=readout,
            metric=metric,
            ann=judge,
            progress=bars,
            checkpoint=None if checkpoint is None else checkpoint_of(checkpoint, mode),
            distributed=distributed,
        )
        report = converter.report
        runs.append(ModeRun(mode, report.mode, report.mode_owner, report.scales, result, snn))
    return Sweep(values, steps, tuple(runs))


def check_modes(modes: Sequence[str], options: Mapping[str, Any]) -> None:
    """Check modes and options before a network is trained or data is read.

    Raises:
        ModeError: A mode is unknown or out of range.
        OptionError: An option is unknown, or its value is not allowed.
        ConflictError: Several plugins claim the same thing.
    """
    for mode in modes:
        Converter(mode=mode, **options_of_mode(mode, modes, options))


def options_of_mode(mode: str, modes: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options for `mode`: all of `options` except those that only other modes in `modes` declare.

    An option that no mode declares is kept, so that the converter's error names it.
    """
    registry = load_plugins()

    def declared(one: str) -> set[str]:
        return set(declared_options(find_mode(registry, one, options, _preferred(options))[1].cls))

    shared = {
        name
        for one in (*registry.registered(LAYER_MAPPERS), *registry.registered(NEURONS))
        for name in declared_options(one.cls)
    }
    foreign = {name for other in modes for name in declared(other)} - declared(mode) - shared
    return {name: value for name, value in options.items() if name not in foreign}


def checkpoint_of(path: Path, mode: str) -> Path:
    """The file of a mode.

    >>> checkpoint_of(Path("run.json"), "99.9%").name, checkpoint_of(Path("run.json"), "1/2").name
    ('run.99.9%.json', 'run.1_2.json')
    """
    name = re.sub(r"[^\w.%+-]", "_", mode)
    return path.with_name(f"{path.stem}.{name}{path.suffix}")


def metric_title(name: str) -> str:
    """A metric's name for people.

    >>> metric_title("top1"), metric_title("mse")
    ('accuracy', 'mse')
    """
    return "accuracy" if name == "top1" else name


def shown_steps(steps: int) -> list[int]:
    """1, 2, 5, 10, ... up to `steps`, which always comes last.

    >>> shown_steps(50)
    [1, 2, 5, 10, 20, 50]
    >>> shown_steps(64)
    [1, 2, 5, 10, 20, 50, 64]
    """
    shown, power = [], 1
    while power < steps:
        shown += [power * factor for factor in (1, 2, 5) if power * factor < steps]
        power *= 10
    return [*shown, steps]


def _preferred(options: Mapping[str, Any]) -> tuple[str, ...]:
    prefer = options.get("prefer", ())
    return (prefer,) if isinstance(prefer, str) else tuple(prefer)


def _run_as_dict(run: ModeRun) -> dict[str, Any]:
    result = run.result
    return {
        "mode": run.mode,
        "normalization": run.normalization,
        "owner": run.owner,
        **({"accuracy": list(result.accuracy)} if "top1" in result.values else {}),
        "values": {name: list(values) for name, values in result.values.items()},
        "spikes_per_sample": result.spikes_per_sample,
        "emissions_per_sample": result.emissions_per_sample,
        "synops_per_sample": result.synops_per_sample,
        "synops_not_counted": list(result.not_counted),
        "seconds": result.seconds,
        "lambdas": {name: {"min": low, "max": high} for name, (low, high) in run.scales.items()},
        "layers": [asdict(layer) for layer in result.layers],
    }


def _scale_text(scale: tuple[float, float] | None) -> str:
    if scale is None:
        return ""
    low, high = scale
    return f"{low:.4g}" if low == high else f"{low:.3g} to {high:.3g}"


def _right_aligned(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Right-align numbers: pad every column but the first on the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [(row[0], *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))) for row in rows]
