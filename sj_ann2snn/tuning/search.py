"""The search: many candidates on few samples, fewer on more, and the last ones on all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..diagnosis.result import Diagnosis, LayerDiagnosis
from ..distributed.ranks import ALONE, Ranks
from ..errors import Ann2SnnError
from ..support.names import NEGATIVE
from .candidates import Candidate
from .choosing import chosen, holds
from .data import Samples
from .journal import Journal
from .measuring import Measurements, Point, Record
from .space import Space

__all__ = ["Search", "grid"]

FIRST = 64
"""Samples in the first round."""

CALIBRATION = (128, 256)
"""Samples to calibrate with before the last round."""

ENDS = (0.55, 0.75, 1.0)
"""Shares of the time after which the rounds end."""

GROUPS = 12
"""Parts of the data in the last round, whose differences show how exact a drop is."""

SLOW = 5.0
"""Seconds from which on a conversion is slow: fewer numbers of steps are then tried with it."""

NEURONS, CANDIDATES, LAYERS, ROUNDS = 3, 4, 3, 2
"""How many neurons, candidates and layers a round takes on, and how often the best are varied."""

NOTHING = 0.0
"""Points that the safe candidates lose."""

FINALISTS = 3 * CANDIDATES
"""Candidates to measure on all samples at most, if none of the first ones loses little enough."""


def grid(steps: int, factors: Sequence[int] = (2, 3)) -> list[int]:
    """Numbers of time steps to try, where every one takes a conversion.

    >>> grid(20), grid(20, [2])
    ([1, 2, 3, 4, 6, 8, 12, 16, 20], [1, 2, 4, 8, 16, 20])
    """
    found = sorted({1, *(factor * 2**power for power in range(steps.bit_length()) for factor in factors)})
    return [*(count for count in found if count < steps), steps]


NOBODY = Candidate()
"""Stands for a candidate whose arguments need not be sent to other processes."""


@dataclass
class _Attempt:
    """What a process found for a candidate.

    Attributes:
        limit: The number of steps that it was to be measured up to.
        trials: How many networks were run.
        seconds: What the last conversion took, if every number of steps takes one.
        failure: Why it cannot be converted.
        points: By the number of steps.
    """

    limit: int
    trials: int
    seconds: float | None
    failure: str
    points: dict[int, Point] = field(default_factory=dict)


class Search:
    """One search.

    Args:
        measurements: Converts and measures.
        space: What may be tried.
        samples: The data.
        calibration: Batches to calibrate with in the last round; None to take those to choose by.
        steps: The largest number of steps.
        max_drop: Points that may be lost.
        layers: Search settings of single layers, too.
        seconds: Stop after about that time.
        journal: Keeps what was measured, and the time; by default, a new one that is not kept.
        tell: Called after every measurement with the number of candidates and the best point so far.
        ranks: The processes that share the candidates, or the last ones' samples.
    """

    def __init__(
        self,
        measurements: Measurements,
        space: Space,
        samples: Samples,
        *,
        calibration: Iterable[Any] | None,
        steps: int,
        max_drop: float,
        layers: bool,
        seconds: float | None,
        journal: Journal | None = None,
        tell: Callable[[int, Point | None], None],
        ranks: Ranks = ALONE,
    ) -> None:
        self.measurements, self.space, self.samples = measurements, space, samples
        self.steps, self.max_drop, self.layers, self.tell = steps, max_drop, layers, tell
        self.ranks, self.seconds, self.journal = ranks, seconds, journal or Journal()
        self._started, self._started_here = ranks.now(), ALONE.now()
        total = samples.count(samples.search)
        sizes = sorted({min(FIRST, total), min(total, max(FIRST, total // 3)), total})
        self.rounds = [samples.part(size) for size in sizes]
        whole = samples.search if calibration is None else calibration
        parts = [
            samples.part(count) if calibration is None else _first(calibration, count, samples) for count in CALIBRATION
        ]
        self.calibration = [*parts[: len(sizes) - 1], whole]
        self.records: list[dict[Candidate, Record]] = [{} for _ in sizes]
        self.failures: dict[str, Candidate] = {}
        self._durations: dict[str, float] = {}

    def stopped(self, number: int, candidate: Candidate | None = None, ranks: Ranks | None = None) -> bool:
        """True if the time for a round is up, or the candidate's conversion is known to take longer than is left."""
        if self.seconds is None:
            return False
        needed = 0.0 if candidate is None else self._durations.get(_kind(candidate), 0.0)
        ends = self.seconds * ENDS[number + len(ENDS) - len(self.rounds)]
        return self.passed(ranks) + (needed if needed > SLOW else 0.0) > ends

    def passed(self, ranks: Ranks | None = None) -> float:
        """Seconds since the search began: for several processes, by their common clock, or by this one's own."""
        if not self.ranks.several:
            return self.journal.seconds
        clock = ranks or self.ranks
        return clock.now() - (self._started if clock is self.ranks else self._started_here)

    def run(self) -> None:
        """Search; an interrupt leaves everything that was found."""
        last = len(self.rounds) - 1
        self._measure(self.space.starts(), 0)
        for like in self.space.suggested():
            self._measure(self.space.anytime(like, self._limit(like, 0)), 0)
        self._measure([one for like in self._neurons() for one in self.space.modes(like)], 0)
        for _ in range(ROUNDS):
            self._measure([one for like in self._best(0, 2) for one in self.space.neighbours(like)], 0)
        self._correct()
        self._measure([one for like in self._uncorrected()[:1] for one in self.space.read_otherwise(like)], 0)
        middle = 1 if last > 1 else 0
        if middle:
            self._measure(self._promising(0, CANDIDATES), middle)
        self._by_diagnosis(middle)
        self._decide(middle, last)

    def _decide(self, before: int, last: int) -> None:
        """Measure candidates on all samples, the cheapest first, until some of them lose little enough."""
        for tried, candidate in enumerate(self._promising(before, FINALISTS)):
            if tried >= CANDIDATES and self._reached(last):
                return
            if tried and self.stopped(last, candidate):
                break
            self._measure([candidate], last)
        best = self.best(last)
        if best is None or self._reached(last):
            return
        if not self.stopped(last, best.candidate):
            # Some steps more than were thought to be enough, and be it all of them.
            del self.records[last][best.candidate]
            self._measure_up_to(self.steps, best.candidate, last)
        elif before != last and best.drop > self.max_drop:
            # There was time for those only that look cheap on few samples, where some do by luck.
            for candidate in self._safest(last)[:1]:
                self._measure_up_to(self._expected(candidate, last), candidate, last)

    def _reached(self, number: int) -> bool:
        """True if the best point of a round loses little enough, with what must be to spare."""
        best, measured = self.best(number), sum(bool(record.points) for record in self.records[number].values())
        return best is not None and holds(best, self.max_drop, measured)

    def best(self, number: int | None = None) -> Point | None:
        """The point of a round to choose, by default of the last round with any."""
        for index in range(len(self.records) - 1, -1, -1) if number is None else [number]:
            found = chosen(self.records[index].values(), self.max_drop)
            if found is not None:
                return found
        return None

    def _slack(self, number: int) -> float:
        """Points that one sample makes up, before the last round: so few samples do not say more."""
        if number == len(self.rounds) - 1:
            return self.max_drop
        return self.max_drop + 100 / self.samples.count(self.rounds[number])

    def _best(self, number: int, count: int) -> list[Candidate]:
        return self._ranked(number, self._slack(number))[:count]

    def _ranked(self, number: int, allowed: float) -> list[Candidate]:
        """The candidates of a round, the cheapest first of those that lose at most `allowed`."""
        records = [record for record in self.records[number].values() if record.points]
        ranked = sorted(records, key=lambda one: one.rank(allowed))
        return [record.candidate for record in _different(ranked, allowed)]

    def _promising(self, number: int, count: int) -> list[Candidate]:
        """The best candidates of a round, in turns with the cheapest of those that lose nothing there.

        Many compete on few samples, so the cheapest of those that lose little is often a lucky one.
        """
        pairs = zip(self._best(number, count), self._ranked(number, NOTHING), strict=False)
        return list(dict.fromkeys(candidate for pair in pairs for candidate in pair))[:count]

    def _safest(self, last: int) -> list[Candidate]:
        """Candidates that the last round has not measured: the cheapest first of those that lose nothing, on as many
        samples as they were measured on."""
        found = [one for number in range(last - 1, -1, -1) for one in self._ranked(number, NOTHING)]
        return [one for one in dict.fromkeys(found) if one not in self.records[last]]

    def _neurons(self) -> list[Candidate]:
        """The best candidate of each of the best neurons."""
        return self._of_every_neuron(self._best(0, len(self.records[0])))[:NEURONS]

    def _uncorrected(self) -> list[Candidate]:
        """The best candidate of each neuron without corrections: these adjust a network for one readout, as it is."""
        found = self._best(0, len(self.records[0]))
        return self._of_every_neuron(one for one in found if not self.space.corrections(one))

    def _of_every_neuron(self, ranked: Iterable[Candidate]) -> list[Candidate]:
        found: dict[str, Candidate] = {}
        for candidate in ranked:
            found.setdefault(str(self.space.neuron(candidate)), candidate)
        return list(found.values())

    def _correct(self) -> None:
        """Measure every correction with the best neuron that it takes."""
        refused: set[str] | None = None
        for like in self._uncorrected():
            corrected = [
                one for one in self.space.corrected(like) if refused is None or one.arguments["corrections"] in refused
            ]
            self._measure(corrected, 0)
            failed = [one for one in corrected if one in self.records[0] and self.records[0][one].failure]
            refused = {one.arguments["corrections"] for one in failed}
            if not refused:
                return

    def _measure(self, candidates: Iterable[Candidate], number: int) -> None:
        """Measure candidates, one after the other.

        Of several processes, each measures one in advance, up to the number of steps that is worth it so far. If one
        before it changes that number, it is measured anew: the search takes the way that it takes in one process.
        """
        waiting = [one for one in candidates if one not in self.records[number]]
        for start in range(0, len(waiting), self.ranks.size):
            block = waiting[start : start + self.ranks.size]
            ahead = self._ahead(block, number) if len(block) > 1 else {}
            for candidate in block:
                if candidate in self.records[number] or (self.stopped(number, candidate) and self.records[number]):
                    continue
                self._measure_up_to(self._limit(candidate, number), candidate, number, ahead.get(candidate))

    def _ahead(self, block: Sequence[Candidate], number: int) -> dict[Candidate, _Attempt]:
        """What the processes find for one candidate each."""
        limits = [self._limit(one, number) for one in block]

        def attempt(index: int) -> _Attempt:
            return self._attempt(block[index], number, limits[index], ALONE)

        return dict(zip(block, self.ranks.outcomes(range(len(block)), attempt), strict=True))

    def _attempt(self, candidate: Candidate, number: int, limit: int, ranks: Ranks) -> _Attempt:
        """Measure a candidate, and leave it to the caller to count that."""
        measurements, kind = self.measurements, _kind(candidate)
        trials, seconds = measurements.trials, self._durations.get(kind)
        record = self._record(candidate, number, limit, ranks) if limit else Record(candidate)
        found = _Attempt(limit, measurements.trials - trials, self._durations.get(kind), record.failure)
        found.points.update({steps: replace(point, candidate=NOBODY) for steps, point in record.points.items()})
        measurements.trials = trials
        if seconds is None:
            self._durations.pop(kind, None)
        else:
            self._durations[kind] = seconds
        return found

    def _measure_up_to(self, limit: int, candidate: Candidate, number: int, found: _Attempt | None = None) -> None:
        if found is None or found.limit != limit:
            found = self._attempt(candidate, number, limit, self.ranks)
        points = {steps: replace(point, candidate=candidate) for steps, point in found.points.items()}
        record = Record(candidate, points, found.failure)
        self.measurements.trials += found.trials
        if found.seconds is not None:
            self._durations[_kind(candidate)] = found.seconds
        self.records[number][candidate] = record
        if record.failure:
            self.failures.setdefault(record.failure, candidate)
        self.tell(self.measurements.trials, self.best(number))

    def _limit(self, candidate: Candidate, number: int) -> int:
        """The number of steps with which the candidate may still become the cheapest; 0 if it cannot.

        Where every number of steps takes a conversion, a step is taken to cost what it costs others with that neuron.
        """
        best = self.best(number)
        if best is None or best.drop > self._slack(number):
            return self._expected(candidate, number)
        if self.measurements.budget == "steps":
            # On few samples the best may have been lucky.
            return min(self.steps, best.T if number == len(self.rounds) - 1 else 2 * best.T + 2)
        if not self.measurements.depends_on_steps(candidate):
            return self.steps
        neuron = self.space.neuron(candidate)
        rates = [
            point.cost / point.T
            for record in self.records[number].values()
            if self.space.neuron(record.candidate) == neuron
            for point in record.points.values()
        ]
        rate = min((one for one in rates if one > 0), default=0.0)
        return min(self.steps, int(best.cost / rate)) if rate else self.steps

    def _expected(self, candidate: Candidate, number: int) -> int:
        """The number of steps to run in a round in which nothing has lost little enough yet.

        Some more than were enough in the round before.
        """
        before = next((known for known in range(number - 1, -1, -1) if candidate in self.records[known]), None)
        found = None if before is None else self.records[before][candidate].cheapest(self._slack(before))
        return self.steps if found is None else min(self.steps, 2 * found.T + 2)

    def _record(self, candidate: Candidate, number: int, limit: int, ranks: Ranks) -> Record:
        batches, calibration = self.rounds[number], self.calibration[number]

        def measure(counts: Sequence[int]) -> Record:
            groups = GROUPS if number == len(self.rounds) - 1 else 1
            if self.ranks.several:
                return self.measurements.record(candidate, counts, calibration, batches, groups, ranks)
            return self.journal.record(
                candidate,
                f"in round {number} after {counts} steps",
                self.measurements,
                lambda: self.measurements.record(candidate, counts, calibration, batches, groups),
            )

        if not self.measurements.depends_on_steps(candidate):
            return measure([limit])
        record = Record(candidate)
        slow = self._durations.get(_kind(candidate), 0.0) > SLOW
        counts, low = grid(limit, [2] if slow else [2, 3]), 0
        high = len(counts) - 1
        place = high
        while low <= high and not (record.points and self.stopped(number, candidate, ranks)):
            before = self.passed(ranks)
            found = measure([counts[place]])
            self._durations[_kind(candidate)] = self.passed(ranks) - before
            record.points.update(found.points)
            if found.failure and not record.points:
                if counts[place] < self.steps:  # does it refuse these few steps, or any number?
                    found = measure([self.steps])
                    record.points.update(found.points)
                record.failure = found.failure
                break
            if found.failure:
                low = place + 1  # it is not meant for so few steps
            elif found.points[counts[place]].drop <= self._slack(number):
                high = place - 1
            elif place == len(counts) - 1:
                break  # with fewer steps it loses more
            else:
                low = place + 1
            place = (low + high) // 2
        return record

    def _by_diagnosis(self, number: int) -> None:
        """Vary the best candidate where a diagnosis says that it loses the answer."""
        for _ in range(ROUNDS):
            best = self.best(number)
            if best is None or self.stopped(number):
                return
            found = self._variations(best, number)
            self._measure(found, number)
            after = self.best(number)
            if after is None or after.candidate == best.candidate:
                return

    def _variations(self, best: Point, number: int) -> list[Candidate]:
        candidate, steps = best.candidate, max(1, best.T - max(1, best.T // 4))

        def diagnosed() -> dict[str, Any] | None:
            try:
                network = self.measurements.convert(candidate, steps, self.calibration[number])
                diagnosis = self.measurements.diagnose(network, candidate, steps, self.rounds[0], FIRST)
            except Ann2SnnError:
                return None  # a network that cannot be diagnosed is good enough to be simulated
            return {
                "advice": tuple(dict(advice.arguments) for advice in diagnosis.advice),
                "delay": diagnosis.delay,
                "layers": tuple(layers_that_matter(diagnosis)),
            }

        diagnosis = self.journal.entry(f"diagnosis of {candidate.key} after {steps} steps", diagnosed)
        if diagnosis is None:
            return []
        found = [one for arguments in diagnosis["advice"] for one in self.space.advised(candidate, arguments)]
        found += self.space.read_late(candidate, diagnosis["delay"])
        if self.layers:
            for name in diagnosis["layers"][:LAYERS]:
                found += self.space.layer_modes(candidate, name)
        return list(dict.fromkeys(found))


def layers_that_matter(diagnosis: Diagnosis) -> list[str]:
    """The spiking layers, ranked by what they do to the answer; those that no metric notices come last.

    A network may have outputs that are not measured.
    """

    def unnoticed(layer: LayerDiagnosis) -> bool:
        return all(
            not lost["alone"] and math.isclose(lost["all_but_this"], diagnosis.metrics[name].drop, abs_tol=1e-5)
            for name, lost in layer.drops.items()
        )

    ranked = sorted(diagnosis.worst, key=unnoticed)
    return list(dict.fromkeys(one.name.removesuffix(NEGATIVE) for one in ranked if one.kind == "neuron"))


def _different(ranked: Iterable[Record], allowed: float) -> Iterator[Record]:
    """The records without those that only read the same networks in another way, to the same effect."""
    seen = set()
    for record in ranked:
        found = record.cheapest(allowed)
        effect = found and (Candidate(record.candidate.arguments), found.T, found.drop)
        if effect is None or effect not in seen:
            yield record
        seen.add(effect)


def _kind(candidate: Candidate) -> str:
    """The same for candidates whose conversions take a similar time."""
    return repr([candidate.arguments.get(name) for name in ("mode", "corrections")])


def _first(batches: Iterable[Any], count: int, samples: Samples) -> list[Any]:
    """The first batches, with at least so many samples if there are as many."""
    found: list[Any] = []
    for batch in batches:
        found.append(batch)
        if samples.count(found) >= count:
            break
    return found
