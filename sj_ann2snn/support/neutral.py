"""A neutral state of torch inside every public function, whatever the state of its caller.

Torch has switches that change what the same call does: inference mode, autocast, gradients, modes that intercept
calls (a default device is one). They belong to a thread, so a public function puts them to their usual positions while
it runs. The default dtype and whether algorithms must be deterministic belong to the whole process and stay as they
are; code of the package names the dtype of every tensor that it makes.

What the caller provides and nothing but the caller knows of, the iterable of batches, still runs in the caller's state.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor, fx, nn, overrides
from torch._C import _get_function_stack_at
from torch._C import _len_torch_dispatch_stack as _operations
from torch._C import _len_torch_function_stack as _functions
from torch.utils import _python_dispatch as dispatch
from torch.utils._device import DeviceContext

from ..errors import TracingError
from .locks import exclusive

__all__ = ["as_caller", "neutral", "neutrally", "ordinary"]

Item = TypeVar("Item")
P = ParamSpec("P")
Result = TypeVar("Result")

AUTOCAST = tuple(
    device for device in ("cpu", "cuda", "mps", "xpu") if torch.amp.autocast_mode.is_autocast_available(device)
)
"""The device types on which torch may cast by itself."""


class _State(NamedTuple):
    """The switches of the current thread."""

    inference: bool = False
    gradients: bool = True
    autocast: tuple[str, ...] = ()
    functions: tuple[Any, ...] = ()
    """Modes that intercept torch's functions, the innermost last."""
    operations: tuple[Any, ...] = ()
    """Modes that intercept operations below autograd."""
    numpy: Mapping[str, Any] = MappingProxyType(
        {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
    )
    """What NumPy does about floating-point errors."""

    @staticmethod
    def now() -> _State:
        return _State(
            torch.is_inference_mode_enabled(),
            torch.is_grad_enabled(),
            tuple(device for device in AUTOCAST if torch.is_autocast_enabled(device)),
            tuple(_get_function_stack_at(i) for i in range(_functions())),
            tuple(dispatch._get_current_dispatch_mode_stack()) if _operations() else (),
            np.geterr(),
        )

    @contextmanager
    def entered(self, before: _State) -> Iterator[None]:
        """Switch from `before`, the present state, to this one; afterwards everything is as it was."""
        with ExitStack() as stack:
            if before.operations != self.operations:
                stack.enter_context(_modes(self.operations, _operations, dispatch._pop_mode, dispatch._push_mode))
            if before.functions != self.functions:
                stack.enter_context(_modes(self.functions, _functions, overrides._pop_mode, overrides._push_mode))
            if before.inference != self.inference:
                stack.enter_context(torch.inference_mode(self.inference))
            stack.enter_context(torch.set_grad_enabled(self.gradients))
            for device in {*before.autocast} ^ {*self.autocast}:
                stack.callback(torch.set_autocast_enabled, device, device in before.autocast)
                torch.set_autocast_enabled(device, device in self.autocast)
            stack.enter_context(np.errstate(**self.numpy))
            yield


@contextmanager
def _modes(wanted: tuple[Any, ...], count: Callable[[], int], pop: Any, push: Any) -> Iterator[None]:
    """Exchange the modes on a stack."""
    before = [pop() for _ in range(count())]
    try:
        for mode in wanted:
            push(mode)
        yield
    finally:
        for _ in range(count()):
            pop()
        for mode in reversed(before):
            push(mode)


NEUTRAL = _State()

_caller: ContextVar[_State | None] = ContextVar("sj_ann2snn_caller", default=None)
"""The state of whoever called the public function that is running."""


@contextmanager
def neutral(network: nn.Module | None = None) -> Iterator[None]:
    """While the context is open, torch's switches are in their usual positions.

    >>> with torch.inference_mode(), neutral():
    ...     torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    (False, True)

    Args:
        network: The network that will run. If it lies on a device that the caller made the default one, tensors that
            its forward makes still belong there.

    Raises:
        TracingError: The caller is being traced by torch.fx.
    """
    _require_no_tracing()
    _learn_number_of_threads()
    before = _State.now()
    token = _caller.set(before)
    try:
        if before == NEUTRAL:
            yield
        else:
            with _State(functions=_own_device(network, before.functions)).entered(before):
                yield
    finally:
        _caller.reset(token)


def neutrally(function: Callable[P, Result]) -> Callable[P, Result]:
    """Let `function` run in a neutral state; the network is its first argument that is one."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Result:
        network = next((value for value in (*args, *kwargs.values()) if isinstance(value, nn.Module)), None)
        with neutral(network):
            return function(*args, **kwargs)

    return run


def _own_device(network: nn.Module | None, modes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Those of `modes` that make the network's device the default one, unless it is the default anyway."""
    kinds = {tensor.device.type for tensor in (*network.parameters(), *network.buffers())} if network else set()
    return tuple(
        mode for mode in modes if isinstance(mode, DeviceContext) and {mode.device.type} == kinds and kinds != {"cpu"}
    )


_knowing = threading.local()


def _learn_number_of_threads() -> None:
    """A new thread takes over torch's number of threads at its first operation.

    This must not fall into the moment in which a simulation in another thread changes that number.
    """
    if not hasattr(_knowing, "threads"):
        with exclusive(torch.set_num_threads):
            _knowing.threads = torch.get_num_threads()


def as_caller(iterable: Iterable[Item]) -> Iterator[Item]:
    """The items of the caller's `iterable`, which makes each of them in the caller's own state.

    >>> with torch.no_grad(), neutral():
    ...     [torch.is_grad_enabled(), *as_caller(torch.is_grad_enabled() for _ in range(2))]
    [True, False, False]
    """
    state = _caller.get() or _State.now()
    with state.entered(_State.now()):
        iterator = iter(iterable)
    return _items(iterator, state)


def _items(iterator: Iterator[Item], state: _State) -> Iterator[Item]:
    while True:
        with state.entered(_State.now()):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def ordinary(value: Any) -> Any:
    """`value`; a tensor without its gradients, and copied if it was made in inference mode."""
    if not isinstance(value, Tensor):
        return value
    return value.clone() if value.is_inference() else value.detach()


def _require_no_tracing() -> None:
    """Raises:
    TracingError: torch.fx is tracing a function further up in this thread; other threads may trace.
    """
    if nn.Module.__call__ is _MODULE_CALL:
        return
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is fx.Tracer.trace.__code__:
            raise TracingError(
                "torch.fx is tracing the function that calls sj-ann2snn, and would record the modules that a network "
                "consists of instead of running them. Call sj-ann2snn outside of what is traced."
            )
        frame = frame.f_back  # type: ignore[assignment]


_MODULE_CALL = nn.Module.__call__
"""As long as torch.fx does not replace it, which it does while it traces."""
