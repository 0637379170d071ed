"""What a diagnosis found."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..conversion.report import ConversionReport
from ..errors import InputError
from ..evaluation.costs.result import Costs
from ..report.figures import figure_of
from ..report.page import html_report
from ..support.paths import AnyPath
from ..support.tables import html_table, plain_data
from ..support.wording import listed, shown
from .observed import Observed
from .split import TERMS
from .table import answer_lines, layer_table, verdict

__all__ = ["Advice", "Diagnosis", "LayerDiagnosis", "MetricFigures"]

STAYS = 0.7
"""A term that is still above this share after four times as many steps does not fall with T."""

SMALL = 0.005
"""Terms below this share of the activation are neither."""


@dataclass(frozen=True)
class LayerDiagnosis:
    """The error of one spiking layer, a − λ·r, and what it does to the answer.

    Norms are over all samples and neurons, relative to the norm of the ANN's activation a. The four terms add up to the
    error as numbers; their norms do not. `alone` and `all_but_this` compare the answer with that of the network without
    time, which is the ANN's unless the conversion itself changed it (`Diagnosis.mismatch`).

    Attributes:
        name: Qualified name; followed by ``_negative`` for the second neuron of an activation of both signs.
        kind: `"neuron"`, or the operation that only approximates the ANN's over time: `"MaxPool2d"`.
        error: The whole error.
        inherited: a − f(x̄): the mean current x̄ that arrives is not the ANN's, and f is the activation.
        clipping: f(x̄) − min(f(x̄), λ): the neuron cannot emit more than λ.
        rounding: min(f(x̄), λ) − Q_T(...): T steps make a staircase of the activation. None if it is not known.
        unevenness: Q_T(...) − λ·r: the currents arrive in another order than evenly. Of an operation, its own error.
        sqnr: Norm of the activation over that of the error, in dB.
        cosine: Between activation and λ·r.
        saturated: Share of the neurons and samples with f(x̄) > λ.
        silent: Share of the neurons and samples with a positive activation that emit nothing.
        unused: Share of the neurons that emit nothing for any sample.
        spikes, emissions: Per sample, over all steps.
        synops: Synaptic operations per sample that its spikes cause.
        neurons: Number of neurons.
        scale: λ, smallest and largest; None if it is not known.
        alone: Divergence of the answer if only this layer spikes.
        all_but_this: Divergence of the answer if every other layer spikes.
        alone_points, all_but_this_points: The same as a drop of the accuracy or of the first metric, in its `unit`:
            points of accuracy lost against the ANN; None without labels or metric.
        effect: The mean of what the layer adds to the divergence alone and among all others, where its mean output is
            corrected to f(x̄) while its spikes keep their times; with what the conversion itself changed in front of it.
        over_time: Error and terms after 1, 2, 4, ..., T steps.
        missing: Terms that are not known, with the reason.
        macs: Multiply-accumulates of the ANN's layers that its spikes reach, per sample.
        energy: What these layers take in the spiking network, in pJ per sample; see `Diagnosis.costs`.
        channels: Per channel, the norms relative to the activation of that channel, and shares.
        drops: For every metric, by name, the drop if this layer alone spikes (`"alone"`) and if every other layer does
            (`"all_but_this"`), in its `unit`.
    """

    name: str
    kind: str
    error: float
    inherited: float
    clipping: float
    rounding: float | None
    unevenness: float
    sqnr: float
    cosine: float
    saturated: float
    silent: float
    unused: float
    spikes: float
    emissions: float
    synops: float
    neurons: int
    scale: tuple[float, float] | None
    alone: float
    all_but_this: float
    alone_points: float | None
    all_but_this_points: float | None
    effect: float
    over_time: Mapping[int, Mapping[str, float]]
    missing: Mapping[str, str] = field(default_factory=dict)
    channels: Mapping[str, tuple[float, ...]] = field(default_factory=dict, repr=False)
    macs: float = 0.0
    energy: float = 0.0
    drops: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def own(self) -> dict[str, float]:
        """The terms that arise in this layer, without what it inherits, the largest first."""
        found = {name: getattr(self, name) or 0.0 for name in TERMS[1:]}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @property
    def shrinking(self) -> tuple[str, ...]:
        """The terms that fall as T grows."""
        return tuple(name for name in TERMS if self._falls(name) is True)

    @property
    def staying(self) -> tuple[str, ...]:
        """The terms that more steps do not mend."""
        return tuple(name for name in TERMS if self._falls(name) is False)

    def _falls(self, term: str) -> bool | None:
        steps = sorted(self.over_time)
        now = self.over_time[steps[-1]][term]
        earlier = [count for count in steps if count <= steps[-1] / 4]
        if not earlier or max(now, self.over_time[earlier[-1]][term]) < SMALL:
            return None
        return now < STAYS * self.over_time[earlier[-1]][term]

    def to_dict(self, *, channels: bool = False) -> dict[str, Any]:
        """Plain data, for JSON.

        Args:
            channels: Include the figures of every channel.
        """
        found = asdict(self)
        if not channels:
            del found["channels"]
        return {**plain_data(found), "shrinking": list(self.shrinking), "staying": list(self.staying)}


@dataclass(frozen=True)
class Advice:
    """What to change, and why.

    Attributes:
        layer: Qualified name of the layer; empty for the network as a whole.
        cause: `"clipping"`, `"rounding"`, `"unevenness"`, `"silence"`, `"maxpool"`, `"batchnorm"`, `"mismatch"` or
            `"readout"`.
        text: The reason in words.
        arguments: The arguments that carry it out, of `Converter` or, for T and the readout, of `evaluate`.
        call: The call to paste.
        gain: Divergence of the answer that goes back to the cause; 0 for a fault of the ANN itself.
    """

    layer: str
    cause: str
    text: str
    arguments: Mapping[str, Any]
    call: str
    gain: float

    def __str__(self) -> str:
        return f"{self.text}\n    {self.call}" if self.call else self.text


@dataclass(frozen=True)
class MetricFigures:
    """What a metric says of the whole network.

    >>> MetricFigures("mse", 0.5, 0.25, "", higher_is_better=False).drop
    0.25
    >>> MetricFigures("top1", 0.5, 0.75, "points", higher_is_better=True).drop
    25.0

    Attributes:
        name: Its name, as in `EvaluationResult.values`.
        value: Of the network after T steps.
        ann_value: Of the ANN.
        unit: Of drops: `"points"`, hundredths, for shares such as the accuracy; empty for the metric's own unit.
        higher_is_better: False for an error.
        over_time: Of the mean output after 1, 2, 4, ..., T steps.
    """

    name: str
    value: float
    ann_value: float
    unit: str
    higher_is_better: bool
    over_time: Mapping[int, float] = field(default_factory=dict)

    @property
    def drop(self) -> float:
        """What the network loses against the ANN, in `unit`: of an error, the rise. Negative for a gain."""
        return self.drop_from(self.value, self.ann_value)

    def drop_from(self, value: float, reference: float) -> float:
        """What another value loses against another reference, in the same unit."""
        lost = reference - value if self.higher_is_better else value - reference
        return 100 * lost if self.unit == "points" else lost


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; prints as a table and a verdict.

    Attributes:
        layers: The spiking layers, in order, and the operations that only approximate the ANN's over time.
        advice: What to change, the largest cause first.
        T: Number of steps.
        samples: Number of samples.
        readout: Name of the readout.
        divergence: Norm of the difference between the answer and the ANN's output, relative to the ANN's output.
        mismatch: The same for the network without time: what the conversion itself changed.
        accuracy, ann_accuracy: Shares of right answers, or the first metric; None without labels and metric.
        divergence_over_time: Divergence of the mean output after 1, 2, 4, ..., T steps.
        accuracy_over_time: Its accuracy, or the first metric of it; empty without labels and metric.
        spikes, synops: Per sample.
        not_counted: Operations that are missing among the synaptic operations.
        notes: What is not known about this network.
        metrics: The figures of every metric, by name: `"top1"` for the accuracy.
        costs: Operations and energy of every layer, as `costs` counts them.
        delay: The number of first steps without which the mean output is closest to the ANN's, at most three
            quarters of T: a `Delayed` readout starts there. 0 if all steps count. Of several converted parts, the
            largest.
        observed: What the pictures show besides: samples of rates and activations, some spikes, the graph.
    """

    layers: tuple[LayerDiagnosis, ...]
    advice: tuple[Advice, ...]
    T: int
    samples: int
    readout: str
    divergence: float
    mismatch: float
    accuracy: float | None
    ann_accuracy: float | None
    divergence_over_time: Mapping[int, float]
    accuracy_over_time: Mapping[int, float]
    spikes: float
    synops: float
    not_counted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    metrics: Mapping[str, MetricFigures] = field(default_factory=dict)
    costs: Costs | None = None
    delay: int = 0
    observed: Observed | None = field(default=None, repr=False)

    @property
    def worst(self) -> tuple[LayerDiagnosis, ...]:
        """The layers, ranked by what they do to the answer."""
        return tuple(sorted(self.layers, key=lambda layer: -layer.effect))

    @property
    def drop(self) -> float | None:
        """Points of accuracy lost against the ANN, or what the first metric loses; None without labels and metric."""
        first = next(iter(self.metrics.values()), None)
        return None if first is None else first.drop

    @property
    def verdict(self) -> str:
        """The result in a few words."""
        return verdict(self)

    def __iter__(self) -> Iterator[LayerDiagnosis]:
        return iter(self.layers)

    def __getitem__(self, name: str) -> LayerDiagnosis:
        """The layer called `name`."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"{shown(name)} is no layer of the diagnosis; it has {listed(one.name for one in self.layers)}")

    def to_dict(self, *, channels: bool = False, observed: bool = False) -> dict[str, Any]:
        """Plain data, for JSON; what is infinite is None.

        Args:
            channels: Include the figures of every channel.
            observed: Include what the pictures show besides, some hundred kilobytes: `html_report` makes a page of it.
        """
        apart = ("layers", "advice", "observed", "costs", "metrics")
        found = {name: value for name, value in self.__dict__.items() if name not in apart}
        if observed and self.observed is not None:
            found["observed"] = asdict(self.observed)
        return {
            **plain_data(found),
            "drop": plain_data(self.drop),
            "metrics": {name: plain_data({**asdict(one), "drop": one.drop}) for name, one in self.metrics.items()},
            "verdict": self.verdict,
            "worst": [layer.name for layer in self.worst],
            "layers": [layer.to_dict(channels=channels) for layer in self.layers],
            "advice": [plain_data(asdict(one)) for one in self.advice],
            "costs": None if self.costs is None else self.costs.to_dict(),
        }

    def to_json(self, *, channels: bool = False, observed: bool = False, indent: int | None = 2) -> str:
        """`to_dict` as text."""
        found = self.to_dict(channels=channels, observed=observed)
        return json.dumps(found, indent=indent, ensure_ascii=False, allow_nan=False)

    def to_html(
        self, path: AnyPath | None = None, *, title: str | None = None, conversion: ConversionReport | None = None
    ) -> str:
        """Show everything as one HTML page, which needs no network and runs no script.

        Args:
            path: The file to write as well.
            title: Heading of the page; by default it names the network.
            conversion: The report of the conversion, `converter.report`, to show what became of every call of the ANN.

        Returns:
            The page.

        Raises:
            InputError: `conversion` is no report of a conversion.
            OptionError: `title` is no text, or `path` no path.
            ExportError: The file cannot be written.
        """
        if conversion is None:
            return html_report(self, path, title=title)
        if not isinstance(conversion, ConversionReport):
            raise InputError(
                f"conversion={shown(conversion)} is not allowed: give the report of the conversion, converter.report."
            )
        data = {**self.to_dict(observed=True), "conversion": plain_data(conversion.as_dict())}
        return html_report(data, path, title=title)

    def figure(self, kind: str = "terms", layer: str | None = None) -> Any:
        """One picture as a `matplotlib.figure.Figure`.

        Args:
            kind: Of all layers `"terms"`, or `"answer"`: accuracy and difference over time steps. Of one layer
                `"over_time"` (its terms), `"scatter"` (rate against activation), `"raster"` or `"rates"` (spikes, and
                firing rates so far, of some neurons).
            layer: Name of the layer, for the pictures of one layer; by default the worst.

        Raises:
            InputError: There is no such layer, nothing was observed of it, or Matplotlib is not installed.
            OptionError: `kind` is unknown.
        """
        return figure_of(self.to_dict(observed=True), kind, layer)

    def to_pandas(self) -> Any:
        """The layers as a `pandas.DataFrame`, one row each, in order.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore]

        rows = [
            {name: value for name, value in layer.to_dict().items() if not isinstance(value, (dict, list))}
            for layer in self.layers
        ]
        return pandas.DataFrame(rows).set_index("name")

    def __str__(self) -> str:
        lines = [*layer_table(self), "", *answer_lines(self), self.verdict]
        lines += [f"{number}. {one}" for number, one in enumerate(self.advice, 1)]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        advice = "".join(
            f"<li>{html.escape(one.text)}{f'<pre>{html.escape(one.call)}</pre>' if one.call else ''}</li>"
            for one in self.advice
        )
        listed_advice = f"<ol>{advice}</ol>" if advice else ""
        return f"{html_table(layer_table(self, columns=True))}<p>{html.escape(self.verdict)}</p>{listed_advice}"
