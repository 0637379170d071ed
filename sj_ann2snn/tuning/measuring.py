"""Converts candidates and measures them, on parts of the data."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..contracts.readout import Readout
from ..conversion.converter import Converter
from ..diagnosis.diagnose import diagnose
from ..diagnosis.result import Diagnosis
from ..distributed.ranks import ALONE, Ranks
from ..errors import Ann2SnnError, DistributedError, NoSpikesWarning, OptionError, QuietLayerWarning
from ..evaluation.costs.costs import costs
from ..evaluation.costs.energy import EnergyPerOperation, energy_per_operation
from ..evaluation.costs.result import Costs
from ..evaluation.evaluate import ann_values, evaluate
from ..evaluation.metrics.measures import measures_of
from ..evaluation.result import EvaluationResult
from ..hooks.choice import find
from ..hooks.kinds import READOUTS
from ..hooks.options import construct, declared_options
from ..hooks.registry import Registry, culprit
from .candidates import Candidate
from .figures import Figures

__all__ = ["BUDGETS", "NANO", "Measurements", "Point", "Record", "require_budget"]

BUDGETS = ("steps", "spikes", "synops", "energy")
"""What may be saved."""

NANO = 1000
"""pJ in a nJ."""


@dataclass(frozen=True, kw_only=True)
class Point(Figures):
    """A conversion after some number of steps.

    Attributes:
        candidate: The conversion.
    """

    candidate: Candidate


@dataclass
class Record:
    """What is known of a candidate on one part of the data.

    Attributes:
        points: By the number of steps.
        failure: Why it cannot be converted.
    """

    candidate: Candidate
    points: dict[int, Point] = field(default_factory=dict)
    failure: str = ""

    def cheapest(self, allowed: float, spare: float = 1.0) -> Point | None:
        """The cheapest point that loses at most `allowed`, with standard errors to spare; None if there is none.

        No point after more steps may lose more than `allowed`: its number of steps would be a lucky one.

        Args:
            allowed: Points that may be lost.
            spare: How many standard errors.
        """
        found = None
        for steps in sorted(self.points, reverse=True):
            point = self.points[steps]
            if point.drop > allowed:
                break
            if point.drop + spare * point.error <= allowed:
                found = point
        return found

    def rank(self, allowed: float, spare: float = 1.0) -> tuple[float, float, float]:
        """Lower is better: what loses too much comes last; arguments as for `cheapest`."""
        found = self.cheapest(allowed, spare)
        if found is not None:
            return (0, found.cost, found.spikes)
        return (1, min((point.drop for point in self.points.values()), default=float("inf")), 0)


class Measurements:
    """Everything that is measured in one search.

    Args:
        ann: The ANN.
        registry: What plugins contribute.
        budget: What costs are counted in.
        metric: As for `evaluate`.
        against_ann: The ANN's outputs replace the targets.
        given: Arguments of every conversion that are not searched: `device`, `plugins`, `prefer` and the like.
        readout: The readout that the caller has chosen.
        energy: The energy of single operations, as for `costs`.
        plugins: Plugin objects in addition to the installed ones.
    """

    def __init__(
        self,
        ann: nn.Module,
        registry: Registry,
        budget: str,
        *,
        metric: Any = None,
        against_ann: bool = False,
        given: Mapping[str, Any] | None = None,
        readout: str | Readout | None = None,
        energy: str | EnergyPerOperation | None = None,
        plugins: Sequence[Any] = (),
    ) -> None:
        self.ann, self.registry, self.budget, self.metric = ann, registry, budget, metric
        self.judge = ann if against_ann else None
        self.given, self.readout, self.plugins = dict(given or {}), readout, plugins
        self.per_operation = energy_per_operation(energy)
        self.trials = 0
        self._better = {
            one.name: getattr(one.metric, "higher_is_better", True) is not False
            for one in measures_of(metric, self.judge)
        }
        self._ann_values: dict[int, dict[str, float]] = {}
        self._factors: dict[Candidate, int] = {}
        self._divided: dict[tuple[int, int], list[list[Any]]] = {}

    def convert(self, candidate: Candidate, steps: int, calibration: Iterable[Any]) -> nn.Module:
        """The network of a candidate for `steps` steps."""
        arguments = self.arguments(candidate, steps)
        with _without(QuietLayerWarning):
            return Converter(calibration, progress=False, **self.given, **arguments)(self.ann)

    def arguments(self, candidate: Candidate, steps: int) -> dict[str, Any]:
        """The arguments of the conversion for `steps` steps, with T only if something depends on it."""
        factor = self.steps_factor(candidate)
        return {**candidate.arguments, **({"T": steps * factor} if factor else {})}

    def steps_factor(self, candidate: Candidate) -> int:
        """By what the number of steps is multiplied for the converter's T; 0 if nothing depends on T.

        Raises:
            Ann2SnnError: The arguments are not allowed.
        """
        if candidate not in self._factors:
            self._factors[candidate] = self._steps_factor(candidate)
        return self._factors[candidate]

    def depends_on_steps(self, candidate: Candidate) -> bool:
        """True if every number of steps takes a conversion; False for what cannot be converted at all."""
        try:
            return bool(self.steps_factor(candidate))
        except Ann2SnnError:
            return False

    def _steps_factor(self, candidate: Candidate) -> int:
        converter = Converter(progress=False, **self.given, **candidate.arguments)
        if "T" in candidate.arguments:
            return 0  # one network for every number of steps
        mode, neuron = converter.normalization, converter.neuron
        given = [value for value in candidate.arguments.values() if not isinstance(value, str)]
        corrections = [one for one in converter.corrections if "T" in declared_options(type(one)) and one not in given]
        takes = [one for one in (mode, neuron) if "T" in declared_options(type(one)) and one not in given]
        if corrections or neuron in takes:
            return 1
        if not takes:
            return 0
        # A mode that plans for T counts plans for what several spikes in a step can count to.
        return max(1, round(1 / float(neuron.unit(torch.ones(())))))

    def record(
        self,
        candidate: Candidate,
        counts: Sequence[int],
        calibration: Any,
        batches: list[Any],
        groups: int = 1,
        ranks: Ranks = ALONE,
    ) -> Record:
        """Measure a candidate after each of `counts` steps; a network that does not depend on T runs once.

        Args:
            candidate: The candidate.
            counts: Numbers of time steps.
            calibration: Calibration data.
            batches: The samples.
            groups: Into how many parts to divide the batches, to see how far the drop differs between them.
            ranks: The processes that share the parts.
        """
        found = Record(candidate)
        try:
            if self.steps_factor(candidate):
                for steps in counts:
                    found.points[steps] = self._run(candidate, steps, calibration, batches, groups, ranks)[steps]
            else:
                found.points = self._run(candidate, max(counts), calibration, batches, groups, ranks)
        except DistributedError:
            raise
        except Ann2SnnError as error:
            found.failure = str(error)
        return found

    def _run(
        self, candidate: Candidate, steps: int, calibration: Any, batches: list[Any], groups: int, ranks: Ranks
    ) -> dict[int, Point]:
        if candidate.readout is not None:
            self.readout_of(candidate.readout).check(steps)
        self.trials += 1
        network = self.convert(candidate, steps, calibration)
        parts = self._parts(batches, groups)
        results = ranks.outcomes(parts, lambda part: self.run(network, candidate, steps, part))
        samples = torch.tensor([float(result.samples) for result in results], dtype=torch.float64)
        shares = samples / samples.sum()

        def mean(values: Sequence[Sequence[float]]) -> list[float]:
            found: list[float] = (shares @ torch.tensor(values, dtype=torch.float64)).tolist()
            return found

        lost = [self.drops(result, part) for result, part in zip(results, parts, strict=True)]
        drops = mean(lost)
        errors = [0.0] * steps
        if len(parts) > 1:
            apart = torch.tensor(lost, dtype=torch.float64) - torch.tensor(drops, dtype=torch.float64)
            errors = ((shares @ apart.square()) / (len(parts) - 1)).sqrt().tolist()
        spikes = mean([result.spikes_over_time for result in results])
        synops = mean([result.synops_over_time for result in results])
        paid = self._costs(network, steps, batches, spikes, synops)
        return {
            step + 1: Point(
                candidate=candidate,
                T=step + 1,
                drop=drops[step],
                cost=paid[step],
                spikes=spikes[step],
                synops=synops[step],
                samples=int(samples.sum()),
                error=errors[step],
            )
            for step in range(steps)
        }

    def _costs(
        self,
        network: nn.Module,
        steps: int,
        batches: list[Any],
        spikes: list[float],
        synops: list[float],
    ) -> list[float]:
        """The costs after every step, by the budget.

        The energy of what is computed once is the same after every step, and the rest goes with the synaptic
        operations; the operations of one batch say how much of either there is.
        """
        if self.budget != "energy":
            return {"steps": [float(step) for step in range(1, steps + 1)], "spikes": spikes, "synops": synops}[
                self.budget
            ]
        found = self.energy(network, steps, batches[:1])
        once = sum(layer.energy for layer in found.layers if layer.runs == "once")
        rest = found.energy - once
        return [(once + rest * (count / synops[-1] if synops[-1] else 1.0)) / NANO for count in synops]

    def energy(self, network: nn.Module, steps: int, batches: list[Any]) -> Costs:
        """The operations and the energy of a candidate's network."""
        with _without(QuietLayerWarning):
            return costs(
                self.ann,
                network,
                batches,
                steps,
                samples=1 << 30,
                energy=self.per_operation,
                plugins=self.plugins,
                progress=False,
            )

    def _parts(self, batches: list[Any], groups: int) -> list[list[Any]]:
        """The batches in several parts, the same ones whenever they are asked for."""
        key = id(batches), groups
        if key not in self._divided:
            count = min(groups, len(batches))
            self._divided[key] = [batches] if count == 1 else [batches[start::count] for start in range(count)]
        return self._divided[key]

    def run(self, network: nn.Module, candidate: Candidate, steps: int, batches: list[Any]) -> EvaluationResult:
        """The network of a candidate over some batches."""
        readout = self.readout
        if candidate.readout is not None:
            readout = self.readout_of(candidate.readout)
        with _without(QuietLayerWarning, NoSpikesWarning):
            return evaluate(
                network,
                batches,
                steps,
                readout=readout,
                metric=self.metric,
                ann=self.judge,
                plugins=self.plugins,
                progress=False,
            )

    def diagnose(
        self, network: nn.Module, candidate: Candidate, steps: int, batches: list[Any], samples: int
    ) -> Diagnosis:
        """Why the network of a candidate loses the answer, by the metric of the search.

        Raises:
            Ann2SnnError: It cannot be diagnosed.
        """
        readout = self.readout
        if candidate.readout is not None:
            readout = self.readout_of(candidate.readout)
        return diagnose(
            self.ann,
            network,
            batches,
            steps,
            samples=samples,
            metric=self.metric,
            against_ann=self.judge is not None,
            readout=readout,
            plugins=self.plugins,
            progress=False,
        )

    def readout_of(self, named: tuple[str, Mapping[str, Any]]) -> Readout:
        """A readout by its name and options."""
        name, options = named
        found = find(self.registry, READOUTS, name)
        made: Readout = construct(found.cls, options, culprit(READOUTS, found.name, found.owner))
        return made

    def drops(self, result: EvaluationResult, batches: list[Any]) -> list[float]:
        """Points lost after every step: of several metrics, by the one that loses most."""
        reference = self.ann_values(batches)
        lost = []
        for name, values in result.values.items():
            sign = 100 if self._better.get(name, True) else -100
            lost.append([sign * (reference[name] - value) for value in values])
        return [max(one) for one in zip(*lost, strict=True)]

    def ann_values(self, batches: list[Any]) -> dict[str, float]:
        """What the metrics say of the ANN."""
        key = id(batches)
        if key not in self._ann_values:
            self._ann_values[key] = ann_values(self.ann, batches, self.metric, against=self.judge)
        return self._ann_values[key]


@contextmanager
def _without(*categories: type[Warning]) -> Iterator[None]:
    """Without these warnings: a search also tries networks whose layers hardly fire."""
    with warnings.catch_warnings():
        for category in categories:
            warnings.simplefilter("ignore", category)
        yield


def require_budget(budget: object) -> str:
    """Raises:
    OptionError: `budget` is not known.
    """
    if budget not in BUDGETS:
        raise OptionError(f"budget={budget!r:.300} is not known. Allowed are {', '.join(map(repr, BUDGETS))}.")
    return str(budget)
