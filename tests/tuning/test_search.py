"""What a search with too little time decides, with planted figures instead of networks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from sj_ann2snn.errors import ConversionError
from sj_ann2snn.tuning.candidates import Candidate
from sj_ann2snn.tuning.data import read_samples
from sj_ann2snn.tuning.measuring import Point, Record
from sj_ann2snn.tuning.search import Search

LUCKY, SAFE = 6, Candidate({"mode": "safe"})
"""Cheap conversions that lose little on few samples and much on many, and one that never loses anything."""

FEW, SEARCHED = 50, 750
"""Samples of the first round, and of the last one."""


class Clock:
    """Ten seconds for every conversion."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Planted:
    """Figures as measured, for the search."""

    budget = "spikes"

    def __init__(self, clock: Clock) -> None:
        self.clock, self.trials = clock, 0
        self.measured: list[tuple[Candidate, int]] = []

    def depends_on_steps(self, candidate: Candidate) -> bool:
        return False

    def convert(self, *anything: Any) -> nn.Module:
        raise ConversionError("Nothing to diagnose.")

    def record(
        self, candidate: Candidate, counts: Sequence[int], calibration: Any, batches: list[Any], groups: int
    ) -> Record:
        self.clock.now += 10
        self.trials += 1
        samples = sum(len(batch) for batch in batches)
        self.measured.append((candidate, samples))
        lost = 0.0 if candidate == SAFE else 0.9 if samples == FEW else 5.0
        cost = 9.0 if candidate == SAFE else 1.0
        error = 0.1 if groups > 1 else 0.0
        points = {
            steps: Point(
                candidate=candidate,
                T=steps,
                drop=lost,
                cost=cost * steps,
                spikes=cost,
                synops=0,
                samples=samples,
                error=error,
            )
            for steps in range(1, counts[-1] + 1)
        }
        return Record(candidate, points)


class Few:
    """A space of the planted conversions, the safe one last."""

    def starts(self) -> list[Candidate]:
        return [*(Candidate({"mode": f"lucky {index}"}) for index in range(LUCKY)), SAFE]

    def __getattr__(self, name: str) -> Any:
        return lambda *given: []


def search(seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> tuple[Search, Planted]:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    planted: Any = Planted(clock)
    samples = read_samples(nn.Linear(1, 1), [torch.zeros(FEW, 1) for _ in range(20)], 1000, 0.25)
    space: Any = Few()
    made = Search(
        planted,
        space,
        samples,
        calibration=None,
        steps=4,
        max_drop=1.0,
        layers=False,
        seconds=seconds,
        tell=lambda trials, best: None,
    )
    made.run()
    return made, planted


@pytest.mark.parametrize("seconds", [None, 1000, 150, 130, 100, 80, 20])
def test_the_safe_conversion_is_found_however_little_time_there_is(
    seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, planted = search(seconds, monkeypatch)
    if seconds is not None and seconds < 110:  # no time to see it at all
        assert (SAFE, FEW) not in planted.measured
        return
    best = made.best()
    assert best is not None
    assert (best.candidate, best.T, best.samples) == (SAFE, 1, SEARCHED)
