"""The choice among many conversions that were measured on the same few samples."""

from __future__ import annotations

import math

import pytest
import torch

from sj_ann2snn.tuning.candidates import Candidate
from sj_ann2snn.tuning.choosing import chosen, holds, spare_errors
from sj_ann2snn.tuning.measuring import Point, Record

ALLOWED = 1.0
STEPS = 10


def point(drop: float, error: float = 0.0, cost: float = 1.0, steps: int = 1, name: str = "a") -> Point:
    return Point(
        candidate=Candidate({"mode": name}),
        T=steps,
        drop=drop,
        cost=cost,
        spikes=cost,
        synops=0,
        samples=1,
        error=error,
    )


def record(*points: Point) -> Record:
    return Record(points[0].candidate, {one.T: one for one in points})


def test_more_is_to_spare_where_more_conversions_compete() -> None:
    assert spare_errors(0) == spare_errors(1) == pytest.approx(1)
    needed = [spare_errors(count) for count in range(1, 40)]
    assert needed == sorted(needed)
    assert needed[-1] < 2.1
    assert holds(point(0.4, 0.5), ALLOWED, 1)
    assert not holds(point(0.45, 0.5), ALLOWED, 4)
    assert holds(point(0.25, 0.5), ALLOWED, 4)


def test_the_cheapest_with_enough_to_spare_is_chosen() -> None:
    lucky, safe = record(point(0.45, 0.5, cost=1, name="lucky")), record(point(0.0, 0.3, cost=2, name="safe"))
    others = [record(point(3.0, 0.5, cost=0.5, name=f"{index}")) for index in range(4)]
    assert chosen([lucky], ALLOWED) == lucky.points[1]
    assert chosen([lucky, safe, *others], ALLOWED) == safe.points[1]
    # With nothing that safe, one standard error is enough, as for a single conversion.
    assert chosen([lucky, *others], ALLOWED) == lucky.points[1]
    # Then what is the likeliest to hold, and at last what loses least.
    near = record(point(0.9, 0.5, cost=1, name="near"), point(0.95, 0.2, cost=2, steps=2, name="near"))
    assert chosen([near, *others], ALLOWED) == near.points[2]
    assert chosen(others, ALLOWED) == others[0].points[1]
    assert chosen([Record(Candidate())], ALLOWED) is None


@pytest.mark.parametrize(
    ("drops", "error", "expected"),
    [
        ({1: 5.0, 2: 0.1, 3: 1.5, 4: 0.2}, 0.0, 4),
        # More steps need not have as much to spare: they are not the ones to choose.
        ({1: 5.0, 2: 0.2, 3: 0.9, 4: 0.8}, 0.5, 2),
        ({1: 5.0, 2: 0.2, 3: 1.1, 4: 0.1}, 0.5, 4),
    ],
)
def test_a_lucky_number_of_steps_is_not_enough(drops: dict[int, float], error: float, expected: int) -> None:
    found = chosen([record(*(point(drop, error, steps, steps) for steps, drop in drops.items()))], ALLOWED)
    assert found is not None
    assert expected == found.T


def one_error(records: list[Record]) -> Point:
    """The choice with one standard error to spare, however many conversions there are."""
    found = [first for one in records if (first := one.cheapest(ALLOWED)) is not None]
    if found:
        return min(found, key=lambda one: one.cost)
    points = [found for one in records for found in one.points.values()]
    enough = [found for found in points if found.drop <= ALLOWED]
    return min(enough or points, key=lambda one: one.drop + one.error)


def planted(samples: int, draw: torch.Generator) -> tuple[list[Record], dict[tuple[str, int], float]]:
    """Twelve conversions whose drops fall with T, measured with the noise of so many samples; and their true drops."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    steps = torch.arange(1, STEPS + 1, dtype=torch.float64)
    count = 12
    fast = 0.5 + 2 * torch.rand(count, 1, generator=draw, dtype=torch.float64)
    true = 12 * (-steps / fast).exp() + 0.4 * normal(count, 1).abs()
    # The share of answers that change, of which the drop is the difference.
    error = 100 * ((0.01 + true / 100) / samples).sqrt()
    # They are measured on the same samples, so that half of the noise is common.
    noise = math.sqrt(0.5) * normal(1, 1) + math.sqrt(0.25) * normal(count, 1) + math.sqrt(0.25) * normal(count, STEPS)
    measured = true + error * noise
    estimated = error * (normal(11, count, 1).square().mean(0)).sqrt()  # from twelve parts
    step_cost = 0.5 + torch.rand(count, 1, generator=draw, dtype=torch.float64)
    costs = step_cost * steps
    records, truth = [], {}
    for index in range(count):
        row = (measured[index].tolist(), estimated[index].tolist(), costs[index].tolist())
        found = [
            point(drop, uncertain, cost, step, f"{index}")
            for step, (drop, uncertain, cost) in enumerate(zip(*row, strict=True), 1)
        ]
        records.append(record(*found))
        truth |= {(f"{index}", step): value for step, value in enumerate(true[index].tolist(), 1)}
    return records, truth


@pytest.mark.parametrize(("samples", "dearer"), [(150, 1.4), (700, 1.3), (3000, 1.15)])
def test_less_is_lost_than_was_measured_by_luck(samples: int, dearer: float) -> None:
    draw = torch.Generator().manual_seed(0)
    excess, cost = {"one": 0.0, "rule": 0.0}, {"one": 0.0, "rule": 0.0}
    repeats = 400
    for _ in range(repeats):
        records, truth = planted(samples, draw)
        rule = chosen(records, ALLOWED)
        assert rule is not None
        for name, found in (("one", one_error(records)), ("rule", rule)):
            true = truth[str(found.candidate.arguments["mode"]), found.T]
            excess[name] += max(0.0, true - ALLOWED) / repeats
            cost[name] += found.cost / repeats
    assert excess["one"] > 0  # the noise misleads
    assert excess["rule"] < 0.5 * excess["one"]
    assert cost["rule"] < dearer * cost["one"]
