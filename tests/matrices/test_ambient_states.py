"""Every public function gives the same in any state of torch around it, and leaves that state as it found it.

Rows are states (`AMBIENT`), columns are public functions (`ENTRY_POINTS`) in every mode (`MODES`). In each cell, the
result is that of the same call in the usual state, bit for bit.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from sj_ann2snn import (
    CalibrationSite,
    ConversionError,
    Converter,
    Correction,
    Normalization,
    Observer,
    TracingError,
    Trial,
    evaluate,
    export,
    load_network,
    simulate,
)
from sj_ann2snn.evaluation.evaluate import accuracy_of
from sj_ann2snn.support.locks import exclusive

from ..helpers.networks import relative_error, spikes_apart

STEPS = 5


class Doubling(TorchFunctionMode):
    """Spoils every result."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return result * 2 if isinstance(result, Tensor) and result.is_floating_point() else result


class Forbidding(TorchDispatchMode):
    """Allows no operation."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} reached the caller's mode")


@contextmanager
def switched(switch: Callable[[Any], Any], value: Any, before: Any) -> Iterator[None]:
    """A switch of the whole process."""
    switch(value)
    try:
        yield
    finally:
        switch(before)


@contextmanager
def anomaly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = torch.autograd.detect_anomaly()
    with context:
        yield


@contextmanager
def warnings_as_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@contextmanager
def all_at_once() -> Iterator[None]:
    with ExitStack() as stack:
        for name in ("inference_mode", "autocast bfloat16", "default dtype float64", "default device meta", "numpy"):
            stack.enter_context(AMBIENT[name]())
        yield


AMBIENT: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "enable_grad in inference_mode": lambda: both(torch.inference_mode(), torch.enable_grad()),
    "autocast bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast float16": lambda: torch.autocast("cpu", torch.float16),
    "default dtype float64": lambda: switched(torch.set_default_dtype, torch.float64, torch.float32),
    "default dtype bfloat16": lambda: switched(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "default dtype float16": lambda: switched(torch.set_default_dtype, torch.float16, torch.float32),
    "default device meta": lambda: torch.device("meta"),
    "set_default_device": lambda: switched(torch.set_default_device, "meta", None),
    "detect_anomaly": anomaly,
    "deterministic algorithms": lambda: switched(torch.use_deterministic_algorithms, True, False),
    "function mode": Doubling,
    "dispatch mode": Forbidding,
    "fake tensors": FakeTensorMode,
    "flop counter": lambda: FlopCounterMode(display=False),
    "tensors saved elsewhere": torch.autograd.graph.save_on_cpu,
    "warnings as errors": warnings_as_errors,
    "numpy": lambda: np.errstate(all="raise"),
    "swapped tensors": lambda: switched(torch.__future__.set_swap_module_params_on_conversion, True, False),
    "several at once": all_at_once,
}
"""The states of the caller."""

MODES: dict[str, dict[str, Any]] = {
    "max": {"mode": "max"},
    "max per channel": {"mode": "max", "channel_wise": True},
    "99.9%": {"mode": "99.9%"},
    "99.9% per channel": {"mode": "99.9%", "channel_wise": True},
    "0.5": {"mode": 0.5},
    "0.5 per channel": {"mode": 0.5, "channel_wise": True},
}
"""The arguments of a conversion."""

READOUTS = ("mean", "delayed", "recent", "exponential", "last", "potential")


@contextmanager
def both(*contexts: AbstractContextManager[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


class Net(nn.Module):
    """Convolution, BatchNorm, a pool, a leaky activation, a residual sum and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.two, self.pool = nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2)
        self.leaky, self.head = nn.LeakyReLU(0.1), nn.Linear(4 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.one(x)))
        h = self.pool(torch.relu(self.two(h) + h))
        return self.head(self.leaky(h - 0.5).flatten(1))


class Case:
    """An ANN, its data, and what a mode makes of it in the usual state."""

    def __init__(self, arguments: dict[str, Any], folder: Path) -> None:
        torch.manual_seed(0)
        self.ann, self.x = Net().eval(), torch.randn(12, 1, 6, 6)
        self.batches = [(self.x, torch.arange(12) % 3)]
        self.arguments, self.folder = arguments, folder
        self.snn = self.converter()(self.ann)
        self.file = folder / "written.zip"
        export(self.snn, self.file)

    def converter(self) -> Converter:
        return Converter(self.batches, progress=False, **self.arguments)


def contents(module: nn.Module) -> dict[str, Any]:
    return dict(module.state_dict(keep_vars=True))


def convert(case: Case) -> Any:
    converter = case.converter()
    snn = converter(case.ann)
    return contents(snn), str(converter.report)


def evaluated(case: Case) -> Any:
    outcomes = [
        evaluate(case.snn, case.batches, STEPS, progress=False, early_exit=rule, readout=readout)
        for rule, readout in ((None, "delayed"), (0.5, None))
    ]
    return [(one.accuracy, one.layers, one.synops_per_sample, one.steps_per_sample) for one in outcomes]


def export_both(case: Case) -> Any:
    """The files that were written, read back later."""
    paths = [case.folder / f"again{suffix}" for suffix in (".zip", ".pt")]
    for path in paths:
        export(case.snn, path)
    return paths


ENTRY_POINTS: dict[str, Callable[[Case], Any]] = {
    "convert": convert,
    "check": lambda case: str(case.converter().check(case.ann)),
    "normalize": lambda case: contents(case.converter().normalize(case.ann)),
    "simulate": lambda case: [simulate(case.snn, case.x, STEPS, readout=readout) for readout in READOUTS],
    "simulate in bfloat16": lambda case: simulate(case.snn, case.x, STEPS, precision="bfloat16"),
    "evaluate": evaluated,
    "accuracy of the ANN": lambda case: accuracy_of(case.ann, case.batches),
    "export": export_both,
    "load": lambda case: contents(load_network(case.file)),
}
"""The public functions, each as a function of a case."""


def settled(found: Any) -> Any:
    """What a call returned, with the contents of the files that it wrote."""
    if isinstance(found, list) and isinstance(found[0], Path):
        return [contents(load_network(path)) for path in found]
    return found


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        kinds = [(x.dtype, x.device, x.is_inference(), x.requires_grad, type(x)) for x in (one, other)]
        return kinds[0] == kinds[1] and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def switches() -> Any:
    """Everything that a caller may have set."""
    modes = torch.overrides._get_current_function_mode_stack()
    return (
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_anomaly_enabled(),
        torch.get_num_threads(),
        np.geterr(),
        [id(mode) for mode in modes],
        torch._C._len_torch_dispatch_stack(),
        list(warnings.filters),
    )


@pytest.fixture(scope="module", params=MODES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(MODES[request.param], tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def undisturbed(case: Case) -> dict[str, Any]:
    return {name: settled(call(case)) for name, call in ENTRY_POINTS.items()}


@pytest.mark.parametrize("ambient", AMBIENT)
def test_every_function_gives_the_same(ambient: str, case: Case, undisturbed: dict[str, Any]) -> None:
    weights = {name: value.clone() for name, value in case.ann.state_dict().items()}
    for name, call in ENTRY_POINTS.items():
        with AMBIENT[ambient]():
            before = switches()
            found = call(case)
            assert switches() == before, name
        assert same(settled(found), undisturbed[name]), name
    assert same(dict(case.ann.state_dict()), weights)


@pytest.fixture(scope="module")
def one_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case({"mode": "99.9%"}, tmp_path_factory.mktemp("network"))


@pytest.mark.parametrize("ambient", AMBIENT)
def test_the_state_is_back_after_an_error(ambient: str, one_case: Case) -> None:
    case = one_case
    with AMBIENT[ambient]():
        before = switches()
        for wrong in (
            lambda: simulate(case.snn, case.x, 0),
            lambda: case.converter()("no network"),
            lambda: evaluate(case.snn, [], STEPS, progress=False),
            lambda: load_network(case.folder / "missing.zip"),
        ):
            with pytest.raises(Exception, match=r"\w"):
                wrong()
            assert switches() == before


def test_the_number_of_cells_is_known() -> None:
    assert len(AMBIENT) * len(ENTRY_POINTS) * len(MODES) == 23 * 9 * 6


class Watched:
    """Batches that note the state in which they are made."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.seen: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        for batch in self.case.batches:
            self.seen.append((torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"), np.geterr()["over"]))
            yield batch


def test_the_callers_batches_are_made_in_the_callers_state(one_case: Case) -> None:
    batches = Watched(one_case)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), np.errstate(over="raise"):
        evaluate(one_case.snn, batches, STEPS, progress=False)
        Converter(batches, progress=False)(one_case.ann)
        Converter(batches, progress=False, convert_only="two")(nn.Sequential(OrderedDict(two=one_case.ann)))
        accuracy_of(one_case.ann, batches)
    assert set(batches.seen) == {(True, True, "raise")}
    assert len(batches.seen) >= 4


class Observing(Observer):
    """Notes the state in which it is shown activations."""

    seen: ClassVar[set[Any]] = set()

    def observe(self, x: Tensor) -> None:
        modes = len(torch.overrides._get_current_function_mode_stack())
        self.seen.add((torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"), modes, x.is_inference()))

    def merge(self, other: Self) -> None:
        raise AssertionError("nothing is merged here")

    def scale(self) -> Tensor:
        return torch.ones((), dtype=torch.float32, device="cpu")


class ObservingMode(Normalization):
    name = "observing"

    def observer(self, site: CalibrationSite) -> Observing:
        return Observing(site)


class Learning(Correction):
    """Asks for the gradient of the network on trial."""

    name = "learning"

    def correct(self, trial: Trial) -> None:
        bias = torch.zeros_like(trial.sites[0].bias).requires_grad_()
        answer = trial.run(trial.inputs(), 2, lambda site, x: torch.sigmoid(x + site.along_channels(bias)[None, None]))
        (gradient,) = torch.autograd.grad(answer.sum(), [bias])
        assert gradient.isfinite().all()


@pytest.mark.parametrize("ambient", AMBIENT)
def test_plugins_see_the_usual_state(ambient: str, one_case: Case) -> None:
    Observing.seen.clear()
    ann = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 3))
    with AMBIENT[ambient]():
        Converter(one_case.batches, mode=ObservingMode(), corrections=Learning(), progress=False)(ann)
    assert Observing.seen == {(False, False, 0, False)}


def test_inputs_made_in_inference_mode_or_with_gradients(case: Case, undisturbed: dict[str, Any]) -> None:
    with torch.inference_mode():
        inference = case.x.clone()
    for x in (inference, case.x.clone().requires_grad_(), case.x.clone().requires_grad_() * 1.0):
        assert same([simulate(case.snn, x, STEPS, readout=name) for name in READOUTS], undisturbed["simulate"])
        other = Case.__new__(Case)
        other.__dict__.update(case.__dict__, x=x, batches=[(x, case.batches[0][1])])
        for name in ("convert", "normalize", "evaluate", "accuracy of the ANN"):
            assert same(ENTRY_POINTS[name](other), undisturbed[name]), name
    assert not simulate(case.snn, inference, STEPS).is_inference()


def test_a_network_that_writes_to_its_input_takes_inference_tensors() -> None:
    ann = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3), nn.ReLU(inplace=True))
    with torch.inference_mode():
        x = torch.randn(8, 4)
    before = x.clone()
    snn = Converter([x], progress=False)(ann)
    assert simulate(snn, x, STEPS).shape == (8, 3)
    assert torch.equal(x, before)


def test_a_network_built_in_inference_mode(case: Case, undisturbed: dict[str, Any]) -> None:
    with torch.inference_mode():
        torch.manual_seed(0)
        ann = Net().eval()
        other = Case.__new__(Case)
        other.__dict__.update(case.__dict__, ann=ann)
    for name in ("convert", "check", "normalize"):
        assert same(ENTRY_POINTS[name](other), undisturbed[name]), name


def test_a_network_on_the_meta_device_is_refused(one_case: Case) -> None:
    with torch.device("meta"):
        ann = Net()
    for device in (None, "cpu"):
        with pytest.raises(ConversionError, match="meta"):
            Converter(one_case.batches, device, progress=False)(ann)


def test_another_threads_state_does_not_matter(case: Case, undisturbed: dict[str, Any]) -> None:
    """A new thread has the usual state, but torch's defaults may be those of another one."""
    with torch.inference_mode(), torch.device("meta"), ThreadPoolExecutor(1) as pool:
        found = {name: pool.submit(call, case).result() for name, call in ENTRY_POINTS.items()}
    for name, value in found.items():
        assert same(settled(value), undisturbed[name]), name


class Tracing(nn.Module):
    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        self.call()
        return x


@pytest.mark.parametrize("name", [name for name in ENTRY_POINTS if name != "load"])
def test_a_function_that_is_traced_is_refused(name: str, one_case: Case) -> None:
    with pytest.raises(TracingError, match="torch.fx is tracing"):
        torch.fx.symbolic_trace(Tracing(lambda: ENTRY_POINTS[name](one_case)))
    assert torch.fx.symbolic_trace(nn.ReLU())(torch.ones(1)) == 1


class Simulated(Dataset[Tensor]):
    """Simulates in the process of whoever asks for an item."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Tensor:
        Converter(self.case.batches, progress=False)(self.case.ann)
        answer: Tensor = simulate(self.case.snn, self.case.x, STEPS)
        return answer


def test_inside_a_worker_of_a_dataloader(one_case: Case) -> None:
    wanted = simulate(one_case.snn, one_case.x, STEPS)
    holding = threading.Event(), threading.Event()

    def hold() -> None:
        with exclusive(torch.fx.Tracer, torch.set_num_threads):
            holding[0].set()
            holding[1].wait(60)

    # What another thread locks while the process forks would stay locked in the worker.
    with ThreadPoolExecutor(1) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, about forks beside threads
        pool.submit(hold)
        assert holding[0].wait(60)
        try:
            found = list(DataLoader(Simulated(one_case), batch_size=None, num_workers=1, timeout=60))
        finally:
            holding[1].set()
    assert all(relative_error(one, wanted) < spikes_apart(STEPS) for one in found)
