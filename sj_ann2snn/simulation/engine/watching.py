"""Shows a collector what a network calls that is not a graph: its modules, and torch's functions."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...support.trees import tensors
from .collectors import Call

__all__ = ["watched"]


@contextmanager
def watched(snn: nn.Module, inputs: tuple[Any, ...], watch: Callable[[Call], None]) -> Iterator[None]:
    """While the context is open, show `watch` every call of a module of `snn` and of a function of torch.

    A function's call comes with the name of the innermost module that is running.

    Args:
        snn: The network.
        inputs: What it will be called with.
        watch: See `Collector.watch`.
    """
    running: list[str] = []
    dependent = _Tensors()
    dependent.add(inputs)

    def enter(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        running.append(name)

    def leave(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        running.pop()
        show(name, module, args, kwargs, result)

    def show(name: str, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        varying = tuple(position for position, x in enumerate(tensors((args, kwargs))) if x in dependent)
        if varying:
            dependent.add(result)
            watch(Call(name, operation, args, kwargs, result, varying, over_time=False))

    class Functions(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            show(running[-1] if running else "", func, args, kwargs or {}, result)
            return result

    handles = [
        handle
        for name, module in snn.named_modules()
        for handle in (
            module.register_forward_pre_hook(partial(enter, name)),
            module.register_forward_hook(partial(leave, name), with_kwargs=True),
        )
    ]
    try:
        with Functions():
            yield
    finally:
        for handle in handles:
            handle.remove()


class _Tensors:
    """A set of tensors by identity, which does not keep them alive."""

    def __init__(self) -> None:
        self._known: dict[int, weakref.ref[Tensor]] = {}

    def add(self, tree: Any) -> None:
        for x in tensors(tree):
            self._known[id(x)] = weakref.ref(x)

    def __contains__(self, x: Tensor) -> bool:
        found = self._known.get(id(x))
        return found is not None and found() is x
