"""Ctrl-C at any stage comes out as such, at once, and leaves everything in order.

Rows are stages (`STAGES`): where in the user's, a plugin's or a simulation's code Ctrl-C arrives. Columns are what must
hold afterwards: the ANN, the network, the files and torch's switches are as before, and the next call works.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    CalibrationSite,
    Converter,
    Correction,
    EvaluationInterrupted,
    ExitRule,
    Exporter,
    NetworkDescription,
    NeuronMaker,
    NeuronSite,
    Normalization,
    Observer,
    Readout,
    Trial,
    evaluate,
    export,
    make_if_neuron,
    simulate,
)
from sj_ann2snn.evaluation.evaluate import accuracy_of
from sj_ann2snn.simulation.engine import Collector, OverTime, Simulator, tiling

from ..helpers.networks import convert, using_threads

MAIN = threading.main_thread().ident or 0
STEPS = 8

pytestmark = pytest.mark.usefixtures("listens_to_ctrl_c")


def ctrl_c() -> None:
    """What a terminal does; Python raises KeyboardInterrupt in the main thread, whichever thread calls this."""
    signal.pthread_kill(MAIN, signal.SIGINT)


class Batches:
    """Labelled batches, of which one brings Ctrl-C."""

    def __init__(self, x: Tensor, at: int | None = None) -> None:
        self.x, self.at = x, at

    def __iter__(self) -> Iterator[Any]:
        for index, part in enumerate(self.x.split(10)):
            if index == self.at:
                ctrl_c()
            yield part, torch.zeros(len(part), dtype=torch.int64)


class InterruptedObserver(Observer):
    shown = 0

    def observe(self, x: Tensor) -> None:
        self.shown += 1
        if self.shown == 2:
            ctrl_c()

    def merge(self, other: Self) -> None: ...

    def scale(self) -> Tensor:
        return torch.ones((), dtype=torch.float32)


class InterruptedMode(Normalization):
    name = "interrupted"

    def observer(self, site: CalibrationSite) -> Observer:
        return InterruptedObserver(site)


class InterruptedCorrection(Correction):
    name = "interrupted"

    def correct(self, trial: Trial) -> None:
        trial.adjust(trial.sites[0].name, scale=torch.full_like(trial.sites[0].scale, 0.5))
        trial.run(trial.inputs(), 2)
        ctrl_c()


class InterruptedMaker(NeuronMaker):
    name = "interrupted"

    def make(self, site: NeuronSite) -> nn.Module:
        ctrl_c()
        return make_if_neuron()


class InterruptedReadout(Readout):
    """Interrupts the main thread from whichever thread asks for the fourth answer."""

    name = "interrupted"
    asked = 0

    def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
        type(self).asked += 1
        if self.asked == 4:
            ctrl_c()
        return outputs.cumsum(0), None


class InterruptedRule(ExitRule):
    """Interrupts once, whichever of several threads asks first."""

    name = "interrupted"

    def __init__(self) -> None:
        super().__init__()
        self._first = threading.Lock()

    def settled(self, answers: Tensor, step: int) -> Tensor:
        if self._first.acquire(blocking=False):
            ctrl_c()
        return torch.zeros(len(answers), dtype=torch.bool)


class InterruptedExporter(Exporter):
    name = "interrupted"
    suffixes = (".interrupted",)

    def export(self, network: NetworkDescription, path: Path) -> None:
        ctrl_c()

    def load(self, path: Path) -> NetworkDescription:
        raise AssertionError("nothing was written")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.dropout, self.head = nn.Dropout(0.5), nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.one(x)))
        return self.head(self.dropout(torch.relu(self.two(h) + h).flatten(1)))


class Scene:
    """An ANN in training mode with a hook, its data, its spiking network and a folder."""

    def __init__(self, folder: Path) -> None:
        self.ann, self.x, self.folder = Net().train(), torch.randn(40, 1, 6, 6), folder
        self.calls: list[str] = []
        self.ann.one.register_forward_hook(lambda module, args, output: None)
        self.snn = convert(self.ann, self.x)
        self.file = folder / "network.zip"
        export(self.snn, self.file)
        self.answer = simulate(self.snn, self.x, STEPS)

    def convert(self, data: Any = None, **arguments: Any) -> Any:
        loader = Batches(self.x) if data is None else data
        return Converter(loader, progress=False, **arguments)(self.ann)

    def convert_part(self, data: Any) -> Any:
        return Converter(data, progress=False, convert_only="0")(nn.Sequential(self.ann, nn.ReLU()))

    def evaluate(self, data: Any = None, **arguments: Any) -> Any:
        return evaluate(self.snn, Batches(self.x) if data is None else data, STEPS, progress=False, **arguments)

    def while_a_layer_runs(self) -> None:
        seen: list[str] = []

        def watch(*args: Any) -> None:
            seen.append("")
            if len(seen) == 7:
                ctrl_c()

        handle = self.snn.get_submodule("two").register_forward_hook(watch)
        try:
            simulate(self.snn, self.x, 60)
        finally:
            handle.remove()

    def state(self) -> Any:
        modules = [(name, one.training, len(one._forward_hooks)) for name, one in self.ann.named_modules()]
        tensors = {name: value.clone() for name, value in self.ann.state_dict().items()}
        modes = [(name, getattr(one, "step_mode", None), one.training) for name, one in self.snn.named_modules()]
        switches = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_num_threads()
        files = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        running = _running()
        deadline = time.perf_counter() + 5
        while running and time.perf_counter() < deadline:  # a thread ends after the layer that it is at
            time.sleep(0.01)
            running = _running()
        calls = nn.Module.__call__, nn.Module.__getattr__
        return modules, modes, switches, files, running, calls, tensors


def _running() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("sj-ann2snn")]


STAGES: dict[str, Callable[[Scene], Any]] = {
    "first calibration batch": lambda scene: scene.convert(Batches(scene.x, at=0)),
    "later calibration batch": lambda scene: scene.convert(Batches(scene.x, at=2)),
    "batch of a part's network": lambda scene: scene.convert_part(Batches(scene.x, at=2)),
    "check": lambda scene: Converter(Batches(scene.x, at=0), progress=False).check(scene.ann),
    "normalize": lambda scene: Converter(Batches(scene.x, at=1), progress=False).normalize(scene.ann),
    "observer": lambda scene: scene.convert(mode=InterruptedMode()),
    "correction": lambda scene: scene.convert(corrections=InterruptedCorrection()),
    "neuron": lambda scene: scene.convert(neuron=InterruptedMaker()),
    "layer of a simulation": Scene.while_a_layer_runs,
    "readout of a simulation": lambda scene: simulate(scene.snn, scene.x, STEPS, readout=InterruptedReadout()),
    "first batch of an evaluation": lambda scene: scene.evaluate(Batches(scene.x, at=0)),
    "later batch of an evaluation": lambda scene: scene.evaluate(Batches(scene.x, at=2)),
    "readout of an evaluation": lambda scene: scene.evaluate(readout=InterruptedReadout()),
    "exit rule": lambda scene: scene.evaluate(early_exit=InterruptedRule()),
    "accuracy of the ANN": lambda scene: accuracy_of(scene.ann, Batches(scene.x, at=2)),
    "exporter": lambda scene: export(scene.snn, scene.folder / "other.interrupted", InterruptedExporter()),
}
"""Where Ctrl-C arrives."""


def same(one: Any, other: Any) -> bool:
    return one[:-1] == other[:-1] and all(torch.equal(value, other[-1][name]) for name, value in one[-1].items())


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setitem(tiling.TILE_BYTES, "cpu", 20_000)
    InterruptedReadout.asked = 0
    with using_threads(2):
        yield Scene(tmp_path)


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupt_leaves_everything_in_order(stage: str, scene: Scene) -> None:
    before = scene.state()
    with pytest.raises(KeyboardInterrupt) as caught:
        STAGES[stage](scene)
    if stage == "later batch of an evaluation":
        assert isinstance(caught.value, EvaluationInterrupted)
    assert same(scene.state(), before)
    assert torch.equal(simulate(scene.snn, scene.x, STEPS), scene.answer)
    assert torch.equal(simulate(scene.convert([scene.x]), scene.x, STEPS), scene.answer)


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(lambda scene: scene.convert(mode="99.9%"), id="convert"),
        pytest.param(lambda scene: simulate(scene.snn, scene.x, 200), id="simulate"),
        pytest.param(lambda scene: scene.evaluate(), id="evaluate"),
        pytest.param(lambda scene: export(scene.snn, scene.file), id="export"),
    ],
)
# An interrupt between opening a file and the `with` that closes it leaves that to Python.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_time(action: Callable[[Scene], Any], scene: Scene) -> None:
    action(scene)
    before = scene.state()
    start = time.perf_counter()
    action(scene)
    duration = time.perf_counter() - start
    for share in (0.1, 0.35, 0.6, 0.85):
        timer = threading.Timer(share * duration, ctrl_c)
        try:
            timer.start()
            action(scene)
            timer.join()
            time.sleep(0.01)
        except KeyboardInterrupt:
            pass
        assert same(scene.state(), before)
    assert torch.equal(simulate(scene.snn, scene.x, STEPS), scene.answer)


class Slow(OverTime):
    """Watches the layers of a tile, interrupts once and takes its time."""

    calls: list[float]

    def watch(self, *args: Any) -> None:  # type: ignore[override]
        if threading.get_ident() != MAIN:
            self.calls.append(time.perf_counter())
            if len(self.calls) == 5:
                ctrl_c()
            time.sleep(0.002)


def test_a_tile_ends_between_two_layers(scene: Scene) -> None:
    """Not at its end, which is more than 2,000 calls away."""
    calls: list[float] = []

    def collector(samples: slice) -> Collector:
        slow = Slow()
        slow.calls = calls
        return slow

    with pytest.raises(KeyboardInterrupt):
        Simulator(scene.snn, 2000).run_all((scene.x,), collector)
    assert 5 <= len(calls) < 200
    assert torch.equal(simulate(scene.snn, scene.x, STEPS), scene.answer)


def test_an_error_in_one_thread_stops_the_others_at_once(scene: Scene) -> None:
    calls: list[str] = []

    def collector(samples: slice) -> Collector:
        found = OverTime()

        def watch(*args: Any) -> None:
            if threading.get_ident() == MAIN:
                return
            calls.append("")
            if len(calls) == 5:
                raise OSError("in the middle of a tile")
            time.sleep(0.002)

        found.watch = watch
        return found

    with pytest.raises(OSError, match="in the middle"):
        Simulator(scene.snn, 2000).run_all((scene.x,), collector)
    assert len(calls) < 20
