"""Steps at which nothing changes are computed once: the same results as step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from sj_ann2snn import Converter, MemoryLayer, simulate
from sj_ann2snn.layers import CumulativeMaxPool
from sj_ann2snn.simulation.engine import runner
from sj_ann2snn.simulation.engine.packed.repeated import Repeated, starts_of_all
from sj_ann2snn.simulation.engine.stretch import Stretch
from sj_ann2snn.testing.running import tiled

from ...helpers.networks import relative_error
from .agreement import require_the_same_in_numbers
from .networks import dilated, grouped, lines, rearranging, two_sided
from .valued import Maker, exactly

pytest.importorskip("numba", reason="numba is not installed")

STEPS = 24


def repeated(starts: tuple[int, ...], *shape: int) -> Repeated:
    return Repeated(torch.rand(len(starts), *shape), starts, 7)


def test_numbers_that_repeat() -> None:
    x = repeated((0, 2, 3), 2, 4, 3)
    whole = x.unpacked()
    assert whole.shape == x.shape == (7, 2, 4, 3)
    assert x.rows() == [0, 0, 1, 2, 2, 2, 2]
    assert torch.equal(whole, x.distinct[x.rows()])
    assert x.at((0, 2, 3)) is x.distinct
    assert torch.equal(x.at((0, 1, 3, 6)), whole[[0, 1, 3, 6]])
    weights = torch.tensor([1, 2, 3])
    assert x.active_per_step(weights).tolist() == ((whole != 0).sum(2) * weights).flatten(1).sum(1).tolist()
    assert starts_of_all([x, repeated((0, 1, 3), 1)]) == (0, 1, 2, 3)


def test_copies_are_laid_out_alike() -> None:
    images = torch.rand(2, 3, 8, 5, 5).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    x = Repeated(images.unflatten(0, (2, 3)), (0, 4), 6)
    assert x.unpacked().flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("make", [rearranging, two_sided, grouped, lines, dilated])
def test_a_network_does_the_same(make: Any, short: Tensor, in_numbers: Any) -> None:
    snn = exactly(Converter([short], neuron=Maker(), mode="max", progress=False)(make()))
    require_the_same_in_numbers(snn, short, STEPS, in_numbers, within=1e-5)


def test_layers_of_numbers_see_few_steps(short: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among them those that read parts, sizes and coordinates, a pool of currents, and whatever is behind them."""
    seen: dict[str, int] = {}
    original = runner.Runner._compute

    def noted(self: Any, node: Any, stretch: Any) -> None:
        original(self, node, stretch)
        value = stretch.values[node]
        if isinstance(value, tuple):
            value = value[0]
        if isinstance(value, Repeated):
            seen[node.name] = len(value.starts)

    monkeypatch.setattr(runner.Runner, "_compute", noted)
    monkeypatch.setattr(runner.Tiling, "steps", lambda self, samples, **_: STEPS)
    snn = exactly(Converter([short], neuron=Maker(), mode="max", progress=False)(rearranging()))
    with tiled(1 << 26, 1):
        simulate(snn, short[:2], STEPS)
    layers = {"grouped", "chunk", "cat", "pool", "cat_2", "beside", "getitem_3", "add", "interpolate", "larger", "view"}
    assert layers <= set(seen)
    assert max(seen.values()) < STEPS


def test_what_comes_from_sizes() -> None:
    """Coordinates have as many rows as there are steps and samples, or a number that does not depend on them. What
    tells steps apart does not count as such."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    size = graph.call_method("size", (x, 0))
    makers: list[Any] = [
        lambda rows: torch.eye(3).repeat(rows, 1),
        lambda rows: torch.arange(6.0),
        lambda rows: torch.arange(rows),
        lambda rows: torch.full((3,), rows),
    ]
    nodes = [graph.call_function(make, (size,)) for make in makers]

    def call(node: fx.Node, read: Any) -> Any:
        return read(x).shape[0] * read(x).shape[1] if node is size else node.target(read(size))  # type: ignore[operator]

    stretch = Stretch(6, lambda node: None, lambda node, steps: None, call)
    values, constant = repeated((0, 3), 2, 4), Repeated(torch.ones(1, 2, 4), (0,), 6)
    values.shape = (6, 2, 4)
    stretch.values = {x: values, size: 12}
    assert stretch.repeating([x, size]) == (0, 3)
    for node, make in zip(nodes, makers, strict=True):
        stretch.values[node] = make(12)
        assert not stretch.tell_time([size])
        stretch.note_sized(node, stretch.values[node])
    read = stretch.at((0, 3))
    assert read(size) == 4
    assert [stretch.repeating([x, node]) for node in nodes] == [(0, 3), (0, 3), None, None]
    assert [stretch.tell_time([node]) for node in nodes] == [False, False, True, True]
    assert [torch.equal(read(node), make(4)) for node, make in zip(nodes[:2], makers, strict=False)] == [True, True]
    stretch.forget(x)
    assert stretch.at((0, 3))(size) == 4
    stretch.values[x] = (values, constant)
    assert stretch.repeating([x]) == (0, 3)
    stretch.values[x] = (values, constant.unpacked())
    assert stretch.repeating([x]) is None


def settling(runs: tuple[int, ...], *shape: int) -> Tensor:
    """What values become at some steps, as neurons that represent them send it: a run of several steps is the mean."""
    values, before, rows = torch.zeros(shape), 0, []
    for run in runs:
        new = values if run > 1 else torch.randint(0, 64, shape) / 64
        rows.append(values + (before + 1) * (new - values))
        values, before = new, before + run
    return torch.stack(rows)


@pytest.mark.parametrize("window", [(2, None, 0), (3, 2, 1)])
def test_cumulative_pools_of_runs(window: Any) -> None:
    torch.manual_seed(0)
    runs = (3, 1, 1, 6, 1, 20)
    rows = settling(runs, 2, 4, 6, 6)
    pool, reference = CumulativeMaxPool(2, *window), CumulativeMaxPool(2, *window)
    reference.step_mode = "m"
    for _ in range(2):
        found = pool.runs_forward(runs, rows).repeat_interleave(torch.tensor(runs), 0)
        assert torch.equal(found, reference(rows.repeat_interleave(torch.tensor(runs), 0)))
        for name in ("cumulative", "emitted"):
            assert torch.equal(getattr(pool, name), getattr(reference, name))
        rows, runs = rows[-1:], (5,)


def sized_ones(h: Tensor) -> Tensor:
    return (torch.ones(h.size(1), h.size(1)) @ h).sum(1)


def sized_sum(h: Tensor) -> Tensor:
    return h + torch.zeros(h.size(1), h.size(2))


def sizes_of_sized(h: Tensor) -> Tensor:
    return h * torch.ones(h.size(1), 3).numel()


def places(h: Tensor) -> Tensor:
    return h.reshape(h.size(0), torch.arange(h.size(1)).size(0), -1)


def grids(h: Tensor) -> Tensor:
    down, across = torch.meshgrid(torch.arange(h.size(1)), torch.arange(h.size(2)), indexing="ij")
    return h + (down / 16 + across / 64 * down.size(0))


def rows_of_ones(h: Tensor) -> Tensor:
    return h * torch.ones(h.size(0), 1, 1).repeat(1, h.size(1), 1)


class Sized(nn.Module):
    """Uses what sizes make of the values of neurons."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.first, self.function = nn.Linear(6, 12), function
        self.second = nn.Linear(12, 9)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        return self.second(self.function(self.function(h) if h.dim() == self.function(h).dim() else h))  # type: ignore[no-any-return]


@pytest.mark.parametrize("function", [sized_ones, sized_sum, sizes_of_sized, places, grids, rows_of_ones])
@pytest.mark.parametrize("steps", [9, 13, 17])
def test_what_sizes_make_is_no_sequence(function: Any, steps: int, in_numbers: Any) -> None:
    """Not even where it is as long as there are steps."""
    torch.manual_seed(0)
    x = torch.rand(3, 9, 6)
    snn = exactly(Converter([x], neuron=Maker(), mode="max", progress=False)(Sized(function).eval()))
    wanted = in_numbers(lambda: simulate(snn, x, steps))
    assert relative_error(simulate(snn, x, steps), wanted) < 1e-6


class Trace(MemoryLayer):
    """Knows nothing of runs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_memory("trace", 0.0)

    def single_step_forward(self, x: Tensor) -> Tensor:
        self.trace = (self.trace + x) / 2
        return self.trace


def test_layers_that_know_nothing_of_runs_see_all_steps(short: Tensor, in_numbers: Any) -> None:
    snn = Converter([short], neuron=Maker(), mode="max", progress=False)(rearranging())
    snn.set_submodule("pool", Trace())
    exactly(snn)
    wanted = in_numbers(lambda: simulate(snn, short, STEPS))
    assert Trace().runs_forward((STEPS,), short[None]) is None
    assert relative_error(simulate(snn, short, STEPS), wanted) < 1e-5
