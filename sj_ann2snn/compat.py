"""Everything that the package knows about the differences between SpikingJelly 0.0.0.0.14 and 2.0.

No other module checks which line is installed.
"""

from __future__ import annotations

import copy
import importlib.metadata
import inspect
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy
import torch
from torch import nn

with warnings.catch_warnings():
    # The 0.0.0.0.14 line applies torch.jit.script at import, which current torch deprecates. Users cannot fix that.
    warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.*is deprecated")
    from spikingjelly.activation_based import base, functional, layer, neuron

from .errors import BackendError, BackendWarning, VersionError

__all__ = [
    "NEURONS_TAKE_BACKEND",
    "MemoryModule",
    "StepModule",
    "backend_is_open",
    "cupy_backend",
    "cupy_works",
    "fresh_memories",
    "if_neuron_from",
    "if_neuron_options",
    "is_neuron",
    "is_plain_if",
    "layer",
    "make_if_neuron",
    "memories",
    "own_ann2snn",
    "recipe_base",
    "reset_memories",
    "reset_net",
    "set_step_mode",
    "spikingjelly_figure",
    "spikingjelly_version",
    "starting_potential",
    "step_modes",
]

StepModule = base.StepModule
MemoryModule = base.MemoryModule
reset_net = functional.reset_net
set_step_mode = functional.set_step_mode


def reset_memories(network: nn.Module) -> None:
    """Reset a network whose modules are still exchanged: `reset_net` of SpikingJelly 2.0 keeps a list of them."""
    for module in network.modules():
        if isinstance(module, MemoryModule):
            module.reset()


NEURONS_TAKE_BACKEND = "backend" in inspect.signature(neuron.IFNode.__init__).parameters
"""True on the 0.0.0.0.14 line, whose neurons take `backend="torch"` or `"cupy"`."""

_BACKEND_NAMED = "backend_named"
"""Attribute that marks neurons whose backend the caller has named."""


def spikingjelly_version() -> str:
    """The version of the installed SpikingJelly, or ``"unknown"`` if it has no metadata."""
    try:
        return importlib.metadata.version("spikingjelly")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def is_neuron(module: nn.Module) -> bool:
    """True for SpikingJelly's spiking neurons and their subclasses."""
    return isinstance(module, neuron.BaseNode)


def is_plain_if(module: nn.Module) -> bool:
    """True for SpikingJelly's own IF neuron with soft reset, on its plain PyTorch path, that records nothing."""
    return (
        type(module) is neuron.IFNode
        and module.v_reset is None
        and not module.store_v_seq
        and getattr(module, "backend", "torch") == "torch"
        and getattr(module, "_neuron_precision", None) is None
    )


def make_if_neuron(*, initial_potential: float = 0.0, backend: str | None = None) -> nn.Module:
    """SpikingJelly's IF neuron with threshold 1 and soft reset.

    Args:
        initial_potential: Membrane potential after a reset, as a fraction of the threshold.
        backend: `None` leaves the choice to the simulator, which uses CuPy on a CUDA device if it is installed.
            `"torch"` and `"cupy"` apply to the neurons of the 0.0.0.0.14 line. The neurons of 2.0 choose Triton or
            native CUDA by themselves; naming a backend there warns.

    Raises:
        BackendError: `backend` is unknown, or CuPy or CUDA is missing.
    """
    node: nn.Module = _new_if(backend)
    if backend is not None:
        setattr(node, _BACKEND_NAMED, True)
    if initial_potential:
        node.v = float(initial_potential)  # type: ignore[assignment]
        node.set_reset_value("v", float(initial_potential))  # type: ignore[operator]
    return node


def if_neuron_options(module: Any) -> dict[str, Any] | None:
    """The options with which `if_neuron_from` rebuilds SpikingJelly's own IF neuron; None for any other module.

    The backend is not among them, because it depends on the machine.
    """
    if type(module) is not neuron.IFNode:
        return None
    return {
        "v_threshold": float(module.v_threshold),
        "v_reset": None if module.v_reset is None else float(module.v_reset),
        "initial_potential": float(module._memories_rv["v"]),
    }


def if_neuron_from(*, v_threshold: float, v_reset: float | None, initial_potential: float) -> nn.Module:
    """The IF neuron with the options from `if_neuron_options`."""
    node = make_if_neuron(initial_potential=initial_potential)
    node.v_threshold, node.v_reset = v_threshold, v_reset  # type: ignore[assignment]
    return node


def _new_if(backend: str | None) -> neuron.IFNode:
    if backend is None:
        return neuron.IFNode(v_threshold=1.0, v_reset=None)
    if backend not in ("torch", "cupy"):
        raise BackendError(f"backend={backend!r:.300} is not known. Allowed are None, 'torch' and 'cupy'.")
    if not NEURONS_TAKE_BACKEND:
        warnings.warn(
            f"backend={backend!r:.300} has no effect on SpikingJelly {spikingjelly_version()}: its neurons "
            "choose Triton or native CUDA by themselves. Leave the argument out.",
            BackendWarning,
            stacklevel=2,
        )
        return neuron.IFNode(v_threshold=1.0, v_reset=None)
    if backend == "cupy":
        _require_cupy()
    # The neuron checks the backend against its step mode, and CuPy is multi-step only.
    node = neuron.IFNode(v_threshold=1.0, v_reset=None, step_mode="m", backend=backend)
    node.step_mode = "s"
    return node


def _require_cupy() -> None:
    try:
        import cupy  # noqa: F401
    except ImportError as error:
        raise BackendError(
            "backend='cupy' needs the package CuPy, which cannot be imported here "
            f"({error}). Install cupy-cuda12x or cupy-cuda13x, or leave the argument out."
        ) from error
    if not torch.cuda.is_available():
        raise BackendError("backend='cupy' needs a CUDA device; torch sees none here.")
    _give_cupy_kernels_np_int()


def _give_cupy_kernels_np_int() -> None:
    """Let the 0.0.0.0.14 line's CuPy kernels run beside NumPy 1.24 or newer.

    They compare types with ``np.int``, which NumPy removed, so every launch ends in an AttributeError. Only their
    module sees a NumPy that has it.
    """
    from spikingjelly.activation_based.auto_cuda import base as kernels

    if not hasattr(kernels.np, "int"):
        kernels.np = _NumpyWithInt("numpy")


class _NumpyWithInt(ModuleType):
    """NumPy with the alias ``int`` that it had before 1.24."""

    int = int

    def __getattr__(self, name: str) -> Any:
        return getattr(numpy, name)


def backend_is_open(node: nn.Module) -> bool:
    """True for a neuron of the 0.0.0.0.14 line whose backend the caller has not named."""
    return NEURONS_TAKE_BACKEND and not getattr(node, _BACKEND_NAMED, False)


def cupy_works() -> bool:
    """True if the CuPy neurons of the 0.0.0.0.14 line can run here."""
    if not NEURONS_TAKE_BACKEND:
        return False
    try:
        _require_cupy()
    except BackendError:
        return False
    return True


def starting_potential(neuron: nn.Module) -> float:
    """The membrane potential of a neuron after a reset; zero if the neuron does not declare one."""
    value: Any = getattr(neuron, "initial_potential", None)
    if value is None:
        value = getattr(neuron, "_memories_rv", {}).get("v")
    return float(value) if isinstance(value, (int, float)) else 0.0


@contextmanager
def cupy_backend(modules: Iterable[nn.Module], others: Sequence[nn.Module] = ()) -> Iterator[None]:
    """While the context is open, run `others` and those neurons in `modules` whose backend is CuPy on CuPy.

    The 0.0.0.0.14 line uses CuPy only for neurons in training mode and in step mode "m"; training mode changes nothing
    else about a soft-reset IF neuron.
    """
    given = [m for m in modules if is_neuron(m) and getattr(m, "backend", None) == "cupy" and not m.training]
    before = [(module, module.training) for module in (*given, *others)]
    try:
        for module in others:
            module.step_mode = "m"  # type: ignore[assignment]
            module.backend = "cupy"  # type: ignore[assignment]
        for module, _ in before:
            module.training = True
        yield
    finally:
        for module, training in before:
            module.training = training
        for module in others:
            module.backend = "torch"  # type: ignore[assignment]


def memories(module: nn.Module) -> dict[str, Any]:
    """The current memory of a module, by attribute name."""
    return dict(module._memories)  # type: ignore[arg-type]


def fresh_memories(module: nn.Module) -> dict[str, Any]:
    """The memory of a module after a reset, by attribute name; the module itself is left as it is."""
    values: Any = module._memories_rv
    return {name: copy.deepcopy(values[name]) for name in memories(module)}


def step_modes(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """Every step-mode-aware module of `network` with its current step mode, to restore it later."""
    return [(module, str(module.step_mode)) for module in network.modules() if hasattr(module, "step_mode")]


def own_ann2snn() -> ModuleType:
    """SpikingJelly's own conversion package, imported on demand because no conversion needs it."""
    from spikingjelly.activation_based import ann2snn

    module: ModuleType = ann2snn
    return module


def recipe_base() -> type:
    """The base class of the recipes that SpikingJelly 2.0's own `Converter` takes.

    Raises:
        VersionError: The installed SpikingJelly has no recipes.
    """
    found: type | None = getattr(own_ann2snn(), "FXConversionRecipe", None)
    if found is None:
        raise VersionError(
            f"SpikingJelly {spikingjelly_version()} has no recipes; they came with 2.0. Convert with "
            "sj_ann2snn.Converter(dataloader=..., mode=...)(ann), which takes the same modes and options, or install "
            "spikingjelly>=2.0."
        )
    return found


def spikingjelly_figure(function: str, *args: Any, **kwargs: Any) -> Any:
    """The Matplotlib figure that a function of `spikingjelly.visualizing` draws, taken out of pyplot's hands.

    The module is imported on demand because it needs Matplotlib. The 0.0.0.0.14 line returns the figure, 2.0 the figure
    and its axes.
    """
    from matplotlib import pyplot
    from spikingjelly import visualizing

    drawn = getattr(visualizing, function)(*args, **kwargs)
    figure = drawn[0] if isinstance(drawn, tuple) else drawn
    pyplot.close(figure)
    return figure
