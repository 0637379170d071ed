"""What may change without changing a result: to the bit, or up to the order of summation.

Rows are what changes between two calls (`CHANGES`), columns are results (`RESULTS`) of two kinds of networks
(`NETWORKS`), cells are what docs/determinism.md promises (`PROMISES`). Every cell is measured against a plain call.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import CalibrationSite, Converter, Normalization, evaluate, simulate
from sj_ann2snn.builtin.normalizations import MaxObserver
from sj_ann2snn.evaluation.checkpoints.identity import checksum
from sj_ann2snn.simulation.engine import Collector, Simulator, tiling
from sj_ann2snn.simulation.engine.collectors import Call
from sj_ann2snn.simulation.engine.numbers.firing import is_spiking
from sj_ann2snn.support import compiled

from ..helpers.networks import GradedMaker, randomized, run_by_hand, using_threads

STEPS = 20
SAMPLES = 24
STORED = Path(__file__).with_name("determinism.json")
"""Checksums of the results of networks without any rounding, which are the same on every processor."""

BIT, ORDER, NOTHING = "same to the bit", "up to the order of summation", "–"

NETWORKS = {"exact": "exact sums", "other": "rounded sums"}
"""Binary spikes behind rounded weights, whose sums no order changes; graded spikes, whose sums torch rounds."""

RESULTS = {
    "network": "the converted network",
    "spikes": "spikes",
    "counts": "spikes and operations of `evaluate`",
    "answers": "outputs of `simulate`",
}

PROMISES = {
    "nothing": {"exact": (BIT, BIT, BIT, BIT), "other": (BIT, BIT, BIT, BIT)},
    "tiles": {"exact": (NOTHING, BIT, BIT, ORDER), "other": (NOTHING, ORDER, ORDER, ORDER)},
    "batches": {"exact": (ORDER, BIT, BIT, ORDER), "other": (ORDER, ORDER, ORDER, ORDER)},
    "threads": {"exact": (ORDER, BIT, BIT, ORDER), "other": (ORDER, ORDER, ORDER, ORDER)},
    "numba": {"exact": (BIT, BIT, BIT, ORDER), "other": (BIT, ORDER, ORDER, ORDER)},
    "line": {"exact": (BIT, BIT, BIT, BIT), "other": (BIT, BIT, BIT, BIT)},
}
"""What holds for every result, in the order of `RESULTS`."""


class Change(NamedTuple):
    """What is different in the second call.

    Attributes:
        words: For the page.
        during: A context in which it happens.
        batch: The size of the batches.
    """

    words: str
    during: Callable[[], AbstractContextManager[Any]] = nullcontext
    batch: int = SAMPLES


@contextmanager
def without_numba() -> Iterator[None]:
    compiled.compiled_loop.cache_clear()
    try:
        with mock.patch.dict(sys.modules, {"numba": None}):
            yield
    finally:
        compiled.compiled_loop.cache_clear()


@contextmanager
def several_threads() -> Iterator[None]:
    with small_tiles(), using_threads(3):
        yield


def small_tiles() -> AbstractContextManager[Any]:
    return mock.patch.dict(tiling.TILE_BYTES, {"cpu": 20_000})


CHANGES = {
    "nothing": Change("nothing: the same call again"),
    "tiles": Change("the size of tiles, which are smaller where memory runs short", small_tiles),
    "batches": Change("the size of batches", batch=5),
    "threads": Change("the number of threads", several_threads),
    "numba": Change("numba missing", without_numba),
}
LINE = "SpikingJelly 0.0.0.0.14 in place of 2.0"


class PowerOfTwo(Normalization):
    """λ is a power of two, so that no weight is rounded when it is scaled."""

    name = "power_of_two"

    def observer(self, site: CalibrationSite) -> MaxObserver:
        class Rounded(MaxObserver):
            def scale(self) -> Tensor:
                return super().scale().log2().ceil().exp2()

        return Rounded(site)


def made(kind: str) -> nn.Module:
    behind: list[nn.Module] = [nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()]
    first: list[nn.Module] = [nn.Conv2d(2, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)]
    if kind == "other":
        first = [nn.Linear(8, 8), nn.ReLU(), *first]
    return randomized(nn.Sequential(*first, *behind, nn.Linear(64, 6))).eval()


def dyadic(kind: str) -> nn.Module:
    """The same without BatchNorm, with weights that are multiples of 1/16."""
    ann = nn.Sequential(*(layer for layer in made(kind) if not isinstance(layer, nn.BatchNorm2d)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in ann.parameters():
            value.copy_(torch.randint(-8, 9, value.shape, generator=generator) / 16)
    return ann


def images() -> Tensor:
    return torch.randint(0, 17, (SAMPLES, 2, 8, 8), generator=torch.Generator().manual_seed(1)) / 16


class Spikes(Collector):
    """Everything that the neurons emit."""

    watches_spikes = False

    def __init__(self) -> None:
        self.seen: dict[str, list[Tensor]] = {}

    def watch(self, call: Call) -> None:
        if is_spiking(call.operation):
            self.seen.setdefault(call.name, []).append(call.result.clone())

    def add(self, outputs: Any) -> None: ...

    def result(self) -> dict[str, Tensor]:
        return {name: torch.cat(spikes) for name, spikes in self.seen.items()}


def converted(ann: nn.Module, kind: str, batch: int, mode: Any = "99.9%") -> Any:
    neuron = GradedMaker(levels=4) if kind == "other" else "if"
    return Converter(list(images().split(batch)), mode=mode, neuron=neuron, progress=False)(ann)


def results_of(snn: Any, batch: int) -> dict[str, Any]:
    """All results of a network but itself."""
    batches = images().split(batch)
    labels = torch.arange(SAMPLES) % 6
    counted = evaluate(snn, list(zip(batches, labels.split(batch), strict=True)), STEPS, progress=False)
    simulator = Simulator(snn, STEPS)
    tiles = [tile for part in batches for tile in simulator.run_all((part,), lambda _: Spikes())]
    return {
        "spikes": torch.cat([torch.cat([tile[name] for tile in tiles], 1).flatten() for name in tiles[0]]),
        "counts": torch.tensor(
            [
                *counted.spikes_over_time,
                *counted.synops_over_time,
                *(one.firing_rate for one in counted.layers),
                counted.emissions_per_sample,
            ],
            dtype=torch.float64,
        ),
        "answers": torch.cat([simulate(snn, part, STEPS) for part in batches]),
    }


@cache
def plain(kind: str) -> Any:
    torch.manual_seed(0)
    ann = made(kind)
    with using_threads(1):
        snn = converted(ann, kind, SAMPLES)
        return ann, snn, {"network": weights_of(snn), **results_of(snn, SAMPLES)}


def weights_of(snn: nn.Module) -> Tensor:
    return torch.cat([value.flatten().double() for value in snn.state_dict().values()])


def holds(promise: str, found: Tensor, wanted: Tensor) -> bool:
    if promise == BIT:
        return torch.equal(found, wanted)
    apart = (found - wanted).abs().double()
    # One spike in a thousand may move by a step, and with it the outputs of a sample.
    return found.shape == wanted.shape and float(apart.sum() / wanted.abs().double().sum()) < 1e-3


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("change", CHANGES)
def test_every_promise_is_kept(change: str, kind: str) -> None:
    ann, snn, wanted = plain(kind)
    promises = dict(zip(RESULTS, PROMISES[change][kind], strict=True))
    with ExitStack() as stack:
        stack.enter_context(using_threads(1))
        stack.enter_context(CHANGES[change].during())
        found = {
            "network": weights_of(converted(ann, kind, CHANGES[change].batch)),
            **results_of(snn, CHANGES[change].batch),
        }
    assert not {
        name: promise
        for name, promise in promises.items()
        if promise != NOTHING and not holds(promise, found[name], wanted[name])
    }


def of_both_lines() -> dict[str, dict[str, str]]:
    """Checksums of all results of the networks without rounding."""
    found = {}
    for kind in NETWORKS:
        snn = converted(dyadic(kind), kind, SAMPLES, PowerOfTwo())
        results = results_of(snn, SAMPLES)
        by_hand = run_by_hand(snn, images(), STEPS).sum(0) / STEPS
        assert torch.equal(results["answers"], by_hand)  # by SpikingJelly's own neurons, step by step
        results["network"] = weights_of(snn)
        found[kind] = {name: checksum(results[name]) for name in RESULTS}
    return found


def test_both_lines_of_spikingjelly_give_the_stored_results() -> None:
    """On either line; `python -m tests.matrices.test_determinism` writes the file."""
    assert of_both_lines() == json.loads(STORED.read_text(encoding="utf-8"))


def test_a_promise_can_be_broken() -> None:
    _, _, wanted = plain("exact")
    for name, value in wanted.items():
        assert holds(BIT, value.clone(), value)
        changed = value.clone()
        changed[tuple(0 for _ in value.shape)] += 1e-6 if name != "spikes" else 1
        assert not holds(BIT, changed, value), name
        assert not holds(ORDER, value.roll(1, 0), value), name


def table(kind: str) -> str:
    """The table of docs/determinism.md for a kind of networks."""
    words = {**{name: change.words for name, change in CHANGES.items()}, "line": LINE}
    rows = [("what changes", *RESULTS.values())]
    rows += [(words[name], *found[kind]) for name, found in PROMISES.items()]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


if __name__ == "__main__":
    STORED.write_text(json.dumps(of_both_lines(), indent=2) + "\n", encoding="utf-8")
