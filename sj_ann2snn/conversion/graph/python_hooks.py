"""Lets Python and torch functions that torch.fx cannot record meet traced values, for the time of a trace."""

from __future__ import annotations

import builtins
import functools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from ...support.torch_functions import FACTORIES
from ...support.trees import leaves
from .proxies import ValueProxy

__all__ = ["recording"]


_SIZED = ("expand", "new_empty", "new_full", "new_ones", "new_zeros", "repeat", "reshape", "tile", "view")
"""Methods of constant tensors that take sizes, which may be traced."""


@contextmanager
def recording() -> Iterator[None]:
    """While the context is open, `isinstance`, torch's factories, sizes and autograd functions see traced values.

    For all other values, and in other threads, they do what they always do.
    """
    # torch keeps a list of its functions once it is asked for; that must not hold the replacements.
    torch.overrides.get_overridable_functions()
    functions = {name: getattr(torch, name) for name in FACTORIES}
    seen: dict[str, Any] = {name: _factory("call_function", of_torch, of_torch) for name, of_torch in functions.items()}
    seen["Size"] = _SizeType("Size", (), {"original": torch.Size})
    methods = {name: getattr(torch.Tensor, name) for name in _SIZED}
    apply = torch.autograd.Function.__dict__["apply"]
    is_instance = builtins.isinstance
    try:
        for name, original in methods.items():
            setattr(torch.Tensor, name, _factory("call_method", name, original))
        torch.autograd.Function.apply = classmethod(functools.partial(_apply, apply))
        builtins.isinstance = functools.partial(_isinstance, is_instance)
        with _seen_by_this_thread(torch, seen):
            yield
    finally:
        builtins.isinstance = is_instance
        torch.autograd.Function.apply = apply
        for name in methods:
            delattr(torch.Tensor, name)  # they are inherited


@contextmanager
def _seen_by_this_thread(module: ModuleType, replacements: Mapping[str, Any]) -> Iterator[None]:
    """While the context is open, this thread finds `replacements` in `module`; all others find what is there.

    Another thread may be pickling (a queue between processes does): pickle looks up classes and functions by their
    names and refuses what it does not find there.
    """
    thread = threading.get_ident()

    def finder(name: str) -> property:
        return property(
            lambda at: replacements[name] if threading.get_ident() == thread else at.__dict__[name],
            lambda at, value: at.__dict__.__setitem__(name, value),
        )

    before = type(module)
    # A property of the class comes before what lies in the module itself.
    module.__class__ = type(before.__name__, (before,), {name: finder(name) for name in replacements})
    try:
        yield
    finally:
        module.__class__ = before


def _factory(kind: str, target: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def made(*args: Any, **kwargs: Any) -> Any:
        traced = next((leaf for leaf in leaves((args, kwargs)) if type(leaf) is ValueProxy), None)
        if traced is None:
            return original(*args, **kwargs)
        return traced.tracer.create_proxy(kind, target, args, kwargs)

    return made


class _SizeType(type):
    """The type of what stands in for `torch.Size`, which takes no traced sizes: they stay in a tuple."""

    original: type[torch.Size]

    def __call__(cls, sizes: Iterable[Any] = ()) -> tuple[Any, ...]:
        held = tuple(sizes)
        return held if any(type(one) is ValueProxy for one in held) else cls.original(held)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, cls.original)


class _Context:
    """What the forward of an autograd function receives; nothing is saved, because there is no backward."""

    def save_for_backward(self, *tensors: Any) -> None:
        pass

    save_for_forward = mark_non_differentiable = mark_dirty = set_materialize_grads = save_for_backward


def _apply(original: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
    if not any(type(leaf) is ValueProxy for leaf in leaves((args, kwargs))):
        return original.__get__(None, function)(*args, **kwargs)
    if function.setup_context is not torch.autograd.Function.setup_context:
        return function.forward(*args, **kwargs)
    return function.forward(_Context(), *args, **kwargs)


def _isinstance(original: Callable[[Any, Any], bool], value: Any, kinds: Any) -> bool:
    if type(value) is not ValueProxy or _asks_for_itself(sys._getframe(1).f_globals.get("__name__", "")):
        return original(value, kinds)
    if original(value, kinds):
        return True
    return not value.known.unknown and all(original(one, kinds) for one in value.known.values)


def _asks_for_itself(module: str) -> bool:
    """True for code that works on traced values as such: torch.fx and the converter."""
    if module.startswith("sj_ann2snn."):
        return not module.startswith("sj_ann2snn.layers")
    return module.startswith("torch.") and not module.startswith(("torch.nn", "torch.functional"))
