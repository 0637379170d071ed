"""Tiles that run side by side give what one after the other gives, and leave nothing behind."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, fx, nn

from sj_ann2snn import InputError, evaluate, simulate
from sj_ann2snn.simulation.engine import Call, OverTime, Simulator, tiling

from ...helpers.networks import convert, relative_error, run_by_hand, using_threads, watched

STEPS = 12


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.one(x))
        return self.head(torch.relu(self.two(h) + h).flatten(1))


class Unlike(nn.Module):
    """A layer of a user's own, which may keep what it likes."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def images(count: int = 30) -> Tensor:
    return torch.randn(count, 1, 8, 8, dtype=torch.float64)


@pytest.fixture
def snn() -> Any:
    return convert(Net().double(), images())


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiling.TILE_BYTES, "cpu", 20_000)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with using_threads(3):
        yield
        assert torch.get_num_threads() == 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sj-ann2snn")]


class Callers:
    """Notes which threads show layers, and does something at one of the calls."""

    def __init__(self, at: int = -1, act: Any = None) -> None:
        self.names: list[str] = []
        self.threads: set[int] = set()
        self.cores: set[int] = set()
        self._at, self._act = at, act

    def __call__(self, call: Call) -> None:
        thread = threading.current_thread()
        if thread is threading.main_thread():
            return
        self.names.append(thread.name)
        self.threads.add(thread.ident or 0)
        self.cores.add(torch.get_num_threads())
        if len(self.names) == self._at:
            self._act()


def run_all(snn: Any, x: Tensor, watch: Any) -> None:
    """Simulate with `watch` shown every layer of every tile."""

    def collector(samples: slice) -> OverTime:
        outputs = OverTime()
        outputs.watch = watch
        return outputs

    Simulator(snn, STEPS).run_all((x,), collector)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_any_number_of_threads_gives_the_same(snn: Any, count: int) -> None:
    x = images()
    wanted = run_by_hand(snn, x, STEPS).mean(0)
    with using_threads(count):
        assert relative_error(simulate(snn, x, T=STEPS), wanted) < 1e-12
        assert torch.get_num_threads() == count


def test_every_tile_runs_on_one_core(snn: Any) -> None:
    callers = Callers()
    run_all(snn, images(), callers)
    assert all(name.startswith("sj-ann2snn") for name in callers.names)
    assert callers.names
    assert callers.cores == {1}


def test_several_threads_take_tiles(snn: Any) -> None:
    # Whoever is first waits for another: it would wait for ever if one thread took all tiles.
    meeting = threading.Barrier(3, timeout=60)
    seen = set()

    def meet(call: Call) -> None:
        thread = threading.current_thread()
        if thread is not threading.main_thread() and thread.ident not in seen and len(seen) < 3:
            seen.add(thread.ident)
            meeting.wait()

    run_all(snn, images(), meet)
    assert len(seen) == 3


def test_activity_counted_in_threads_is_that_of_one(snn: Any) -> None:
    x = images()
    batches = [(x, torch.zeros(len(x), dtype=torch.int64))]
    side_by_side = evaluate(snn, batches, T=STEPS, progress=False)
    with using_threads(1):
        alone = evaluate(snn, batches, T=STEPS, progress=False)
    assert side_by_side.layers == alone.layers
    assert side_by_side.synops_per_sample == alone.synops_per_sample
    assert side_by_side.accuracy == alone.accuracy


def test_an_error_in_a_thread_is_raised_and_the_network_left_in_order(snn: Any) -> None:
    def fail() -> None:
        raise RuntimeError("in the middle of a tile")

    with pytest.raises(InputError, match="in the middle of a tile"):
        run_all(snn, images(), Callers(5, fail))
    assert {(module.v, module.step_mode) for module in snn.modules() if hasattr(module, "v")} == {(0.0, "s")}
    x = images()
    assert relative_error(simulate(snn, x, T=STEPS), run_by_hand(snn, x, STEPS).mean(0)) < 1e-12


@pytest.mark.usefixtures("listens_to_ctrl_c")
def test_ctrl_c_stops_the_threads_and_leaves_the_network_in_order(snn: Any) -> None:
    main, calls = threading.get_ident(), []

    def interrupt(call: Call) -> None:
        if threading.get_ident() != main:
            calls.append(call.name)
            if len(calls) == 5:
                signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.005)

    with pytest.raises(KeyboardInterrupt):
        run_all(snn, images(600), interrupt)
    assert len(calls) < 2000  # of 4,000 and more
    assert {(module.v, module.step_mode) for module in snn.modules() if hasattr(module, "v")} == {(0.0, "s")}


def test_hooks_see_one_tile_at_a_time(snn: Any) -> None:
    callers = Callers()
    with watched(snn, neuron.BaseNode):
        run_all(snn, images(), callers)
    assert not callers.names


def test_layers_of_a_users_own_run_one_tile_at_a_time() -> None:
    ann = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), Unlike(), nn.Conv2d(2, 2, 3), nn.ReLU()).double()
    snn = convert(ann, images(), leaf_modules="2")
    callers = Callers()
    run_all(snn, images(), callers)
    assert not callers.names


def test_a_module_called_before_and_behind_the_first_neuron_keeps_a_step_mode_in_every_thread() -> None:
    graph = fx.Graph()
    pooled = graph.call_module("pool", (graph.placeholder("x"),))
    graph.output(graph.call_module("pool", (graph.call_module("fire", (pooled,)),)))
    snn = fx.GraphModule({"pool": layer.AvgPool2d(2), "fire": neuron.IFNode(v_reset=None)}, graph)
    x = images(200)
    callers = Callers()
    run_all(snn, x, callers)
    assert callers.names
    assert relative_error(simulate(snn, x, T=STEPS), run_by_hand(snn, x, STEPS).mean(0)) < 1e-12
