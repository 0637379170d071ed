"""Tries every class of the installed plugins on a small network, one at a time."""

from __future__ import annotations

import math
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..contracts.exporter import Exporter
from ..contracts.neuron_maker import NeuronSite
from ..contracts.normalization import CalibrationSite, Normalization
from ..conversion.converter import Converter
from ..conversion.memory_growth import kept_values
from ..conversion.neuron_rates import require_steady
from ..errors import CalibrationError, ExportError, PluginError, UnsupportedError
from ..evaluation.evaluate import evaluate
from ..hooks.discovery import using
from ..hooks.kinds import NEURONS
from ..hooks.registry import BUILTIN, Registered, Registry, culprit
from ..interchange.files import export, load_network
from ..simulation.simulate import simulate
from ..support.wording import LONGEST, described, is_fault, shown

__all__ = ["STEPS", "WORKS", "try_plugins"]

STEPS = 4
WORKS = "works"
SAMPLES = 32

ARGUMENTS: tuple[tuple[int, ...], ...] = ((), (2,), (4,), (2, 4), (4, 4))
"""Arguments to call or construct a claimed operation with; the first that work are used."""


def try_plugins(registry: Registry) -> list[dict[str, str]]:
    """Every third-party class with its hook, name and origin; its `status` is `WORKS` or what went wrong.

    Each class is tried as if no other distribution were installed, and its errors affect no other class.
    """
    found = []
    for hook, attempt in ATTEMPTS.items():
        for one in registry.classes[hook]:
            if one.owner.distribution != BUILTIN:
                owner = one.owner
                place = {
                    "distribution": owner.distribution,
                    "version": owner.version,
                    "entry_point": owner.entry_point,
                    "hook": hook,
                    "name": one.name,
                }
                found.append({**place, "status": _status(attempt, one, registry.alone(owner.distribution))})
    return sorted(found, key=lambda row: (row["distribution"], row["entry_point"], row["hook"], row["name"]))


def _status(attempt: Callable[[Registered], None], one: Registered, registry: Registry) -> str:
    with using(registry), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        try:
            attempt(one)
        except BaseException as error:
            if not is_fault(error):
                raise
            return described(error, 10 * LONGEST)
    return WORKS


def _network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, 3)
    ).eval()


def _images() -> Tensor:
    return torch.rand(SAMPLES, 1, 8, 8)


def _convert(ann: nn.Module, x: Tensor, **arguments: Any) -> tuple[Converter, nn.Module]:
    converter = Converter([x[: SAMPLES // 2], x[SAMPLES // 2 :]], T=STEPS, progress=False, **arguments)
    return converter, converter(ann)


def _require_answer(answer: Any, samples: int) -> None:
    if not isinstance(answer, Tensor) or len(answer) != samples or not bool(answer.isfinite().all()):
        given = "values that are not finite" if isinstance(answer, Tensor) else shown(answer)
        raise PluginError(f"The network answers {given} for {samples} samples.")


def _converts(**arguments: Any) -> Converter:
    x = _images()
    converter, snn = _convert(_network(), x, **arguments)
    _require_answer(simulate(snn, x, STEPS), SAMPLES)
    return converter


def _try_normalization(one: Registered) -> None:
    converter = _converts(mode=one.cls.example or one.name)
    _require_constant_memory(converter.normalization)


def _require_constant_memory(mode: Normalization) -> None:
    """Calibration sets are large: an observer that keeps its data runs out of memory."""
    observer = mode.observer(CalibrationSite("relu"))
    held, sizes, shown = [], [], 0
    for _ in range(9):
        x = torch.rand(1024, 8)
        shown = x.numel()
        held.append(weakref.ref(x))
        observer.observe(x)
        del x
        sizes.append(kept_values(observer))
    grown = sizes[-1] - sizes[0]
    if any(one() is not None for one in held) or grown >= 4 * shown:
        raise PluginError(
            f"Its observer keeps the activations that it is shown: it grew by {grown} values while it was shown "
            f"{8 * shown}. Keep a statistic instead, such as a sum, a maximum or a QuantileSketch."
        )


def _try_neuron(one: Registered) -> None:
    converter = _converts(neuron=one.name)
    maker = converter.neuron
    scale = torch.tensor(2.5)
    site = NeuronSite("relu", (8,), scale, torch.float32)
    # More steps than a conversion takes the time for, to notice a weak leak.
    require_steady(
        maker, maker.make(site), site, maker.unit(scale), culprit(NEURONS, one.name, one.owner), few=512, many=2048
    )


def _try_correction(one: Registered) -> None:
    _converts(corrections=one.name)


def _try_readout(one: Registered) -> None:
    x = _images()
    _, snn = _convert(_network(), x)
    _require_answer(simulate(snn, x, STEPS, readout=one.name), SAMPLES)


def _try_exit_rule(one: Registered) -> None:
    x, ann = _images(), _network()
    _, snn = _convert(ann, x)
    result = evaluate(snn, [(x, ann(x).argmax(1))], STEPS, early_exit=one.name, progress=False)
    if not math.isfinite(result.steps_per_sample):
        raise PluginError(f"Samples stop after {result.steps_per_sample} steps on average.")


def _try_exporter(one: Registered) -> None:
    x = _images()
    _, snn = _convert(_network(), x)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"network{(*one.cls.suffixes, '')[0]}"
        try:
            export(snn, path, one.name)
        except ExportError:
            return  # a refusal is a valid answer: a format need not hold convolutions
        if not path.exists():
            raise PluginError("It wrote no file.")
        if one.cls.load is not Exporter.load:
            loaded = load_network(path, one.name)
            if not torch.equal(simulate(loaded, x, STEPS), simulate(snn, x, STEPS)):
                raise PluginError("After reading the network back, its answers differ.")


def _try_mapper(one: Registered) -> None:
    _converts()
    for claim in one.cls.claims:
        case = next(_with_operation(claim), None)
        if case is None:
            continue
        ann, x = case
        try:
            _, snn = _convert(ann, x)
        except (UnsupportedError, CalibrationError):
            continue  # a refusal is a valid answer, and these few values may never make the operation fire
        _require_answer(simulate(snn, x, STEPS), SAMPLES)


class _Calling(nn.Module):
    """A spiking layer, and a function or method applied to its spikes."""

    def __init__(self, first: nn.Module, operation: Callable[..., Any] | str, arguments: tuple[int, ...]) -> None:
        super().__init__()
        self.first, self.operation, self.arguments = first, operation, arguments

    def forward(self, x: Tensor) -> Any:
        x = torch.relu(self.first(x))
        if isinstance(self.operation, str):
            return getattr(x, self.operation)(*self.arguments)
        return self.operation(x, *self.arguments)


def _with_operation(claim: type[nn.Module] | Callable[..., Any] | str) -> Iterator[tuple[nn.Module, Tensor]]:
    """Networks with a claimed operation behind a neuron, if it runs with one of `ARGUMENTS`."""
    inputs: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
        (lambda: nn.Conv2d(1, 4, 3), (1, 8, 8)),
        (lambda: nn.Linear(6, 4), (6,)),
        (lambda: nn.Conv1d(1, 4, 3), (1, 8)),
        (lambda: nn.Conv3d(1, 4, 3), (1, 5, 5, 5)),
    ]
    for first, shape in inputs:
        for arguments in ARGUMENTS:
            x = torch.rand(SAMPLES, *shape)
            try:
                if isinstance(claim, type):
                    ann: nn.Module = nn.Sequential(first(), nn.ReLU(), claim(*arguments))
                else:
                    ann = _Calling(first(), claim, arguments)
                ann.eval()
                answer, again = ann(x), ann(x)
            except Exception:
                continue  # not with these arguments, or not on an input of this shape
            if _is_usable(answer) and torch.equal(answer, again):
                yield ann, x


def _is_usable(answer: Any) -> bool:
    """False for infinite answers, such as the logarithm of zero, which are rightly refused."""
    return (
        isinstance(answer, Tensor)
        and answer.shape[:1] == (SAMPLES,)
        and answer.is_floating_point()
        and bool(answer.isfinite().all())
    )


ATTEMPTS: dict[str, Callable[[Registered], None]] = {
    "ann2snn_normalizations": _try_normalization,
    "ann2snn_layer_mappers": _try_mapper,
    "ann2snn_neurons": _try_neuron,
    "ann2snn_corrections": _try_correction,
    "ann2snn_exit_rules": _try_exit_rule,
    "ann2snn_readouts": _try_readout,
    "ann2snn_exporters": _try_exporter,
}
"""The function that tries the classes of each hook."""
