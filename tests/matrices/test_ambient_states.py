"""Every public function gives the same in any state of torch around it, and leaves that state as it found it.

Rows are states (`AMBIENT`), columns are public functions (`ENTRY_POINTS`) in every mode (`MODES`). In each cell, the
result is that of the same call in the usual state, bit for bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

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
    Converter,
    InputError,
    Observer,
    TracingError,
    evaluate,
    export,
    load_network,
    simulate,
)
from sj_ann2snn.evaluation.evaluate import accuracy_of
from sj_ann2snn.support.neutral import neutral

STEPS = 6


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
    "saved tensors": lambda: torch.autograd.graph.saved_tensors_hooks(fail, fail),
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

READOUTS = ("mean", "delayed", "exponential", "last", "potential")


def fail(*args: Any) -> Any:
    raise AssertionError("nothing is saved for a backward pass of the caller's")


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
        for rule, readout in ((None, "mean"), (0.5, None), (None, "delayed"))
    ]
    return [(one.accuracy, one.layers, one.synops_per_sample, one.steps_per_sample) for one in outcomes]


def exported(case: Case) -> Any:
    found = []
    for suffix in (".zip", ".pt"):
        path = case.folder / f"again{suffix}"
        export(case.snn, path)
        found.append(path)
    return [contents(load_network(path)) for path in found]


ENTRY_POINTS: dict[str, Callable[[Case], Any]] = {
    "convert": convert,
    "check": lambda case: str(case.converter().check(case.ann)),
    "normalize": lambda case: contents(case.converter().normalize(case.ann)),
    "simulate": lambda case: [simulate(case.snn, case.x, STEPS, readout=readout) for readout in READOUTS],
    "simulate in bfloat16": lambda case: simulate(case.snn, case.x, STEPS, precision="bfloat16"),
    "evaluate": evaluated,
    "accuracy of the ANN": lambda case: accuracy_of(case.ann, case.batches),
    "export": exported,
    "load": lambda case: contents(load_network(case.file)),
}
"""The public functions, each as a function of a case."""


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
    return {name: call(case) for name, call in ENTRY_POINTS.items()}


@pytest.mark.parametrize("ambient", AMBIENT)
def test_every_function_gives_the_same(ambient: str, case: Case, undisturbed: dict[str, Any]) -> None:
    weights = {name: value.clone() for name, value in case.ann.state_dict().items()}
    for name, call in ENTRY_POINTS.items():
        with AMBIENT[ambient]():
            before = switches()
            found = call(case)
            assert switches() == before, name
        assert same(found, undisturbed[name]), name
    assert same(dict(case.ann.state_dict()), weights)


@pytest.mark.parametrize("ambient", AMBIENT)
def test_the_state_is_back_after_an_error(ambient: str, case: Case) -> None:
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
