"""Traces a network with torch.fx and records where in the user's code each node comes from."""

from __future__ import annotations

import copy
import operator
import os
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm

from ...errors import TracingError
from ...support.structures import call_of, can_be_built, fields_of, has_fields
from ...support.wording import did_you_mean

__all__ = ["LEAF", "PATH", "SOURCE", "owned_copy", "remove_hooks", "trace"]

PATH = "ann2snn_path"
"""Key of a node's meta: qualified name of the module whose forward makes the call."""
SOURCE = "ann2snn_source"
"""Key of a node's meta: file and line in the user's code."""
LEAF = "ann2snn_leaf"
"""Key of a node's meta: True where the user declared the module a leaf."""

_OWN = f"{Path(__file__).resolve().parent.parent}{os.sep}"
_TORCH = f"{Path(torch.__file__).resolve().parent}{os.sep}"


_REMOVERS: dict[str, Callable[[nn.Module, str], Any]] = {
    "WeightNorm": remove_weight_norm,
    "SpectralNorm": remove_spectral_norm,
}


class _Proxy(fx.Proxy):
    """Records augmented assignments as such; torch.fx alone would make ``h += y`` out of place."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})


class _Tracer(fx.Tracer):
    def __init__(self, leaf_types: Collection[type[nn.Module]], leaf_names: Collection[str]) -> None:
        super().__init__()
        self.leaf_types = frozenset(leaf_types)
        self.leaf_names = frozenset(leaf_names)
        self.path: list[str] = []
        self.deepest: tuple[str, str] | None = None

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_args_for_root(self, *args: Any, **kwargs: Any) -> tuple[Any, list[Any]]:
        function, arguments = super().create_args_for_root(*args, **kwargs)
        # Leave an optional input at its default: as a proxy, it would make ``if mask is not None`` true.
        for position, argument in enumerate(arguments):
            if isinstance(argument, fx.Proxy) and argument.node.args:
                arguments[position] = argument.node.args[0]
                self.graph.erase_node(argument.node)
        return function, arguments

    def create_arg(self, a: Any) -> Any:
        if not has_fields(type(a)):
            return super().create_arg(a)
        fields = fields_of(a)
        if not can_be_built(type(a), fields):
            return super().create_arg(fields)
        args, kwargs = call_of(type(a), {key: self.create_arg(value) for key, value in fields.items()})
        return self.create_node("call_function", type(a), args, kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name in self.leaf_names or type(m) in self.leaf_types:
            return True
        if isinstance(m, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            return False
        # A subclass that inherits torch's forward counts as torch's own class.
        return type(m).forward.__module__.startswith("torch.nn.")

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        name = self.path_of_module(m)
        self.path.append(name)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.deepest is None:
                self.deepest = (name, type(m).__name__)
            raise
        finally:
            self.path.pop()

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(kind, *args, **kwargs)
        node.meta[PATH] = self.path[-1] if self.path else ""
        node.meta[SOURCE] = _user_line()
        if kind == "call_module":
            node.meta[LEAF] = node.target in self.leaf_names
        return node


def _user_line() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file == __file__ and frame.f_code is trace.__code__:
            return ""  # torch made the call, as in a Sequential; the next frames are the conversion's caller
        if not file.startswith((_OWN, _TORCH)) and not file.startswith("<"):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def owned_copy(module: nn.Module) -> nn.Module:
    """A deep copy in eval mode that shares nothing with `module`.

    Raises:
        TracingError: The network cannot be copied.
    """
    try:
        copied = copy.deepcopy(module)
    except Exception as error:
        raise TracingError(
            f"The network {type(module).__name__} cannot be copied ({error!r}), and converting must not change "
            "the original. Make it support copy.deepcopy (tensors that carry a gradient history do not)."
        ) from error
    return copied.eval()


def remove_hooks(module: nn.Module) -> None:
    """Replace weights that hooks compute (weight norm, spectral norm) by their values, and drop the user's hooks."""
    for child in module.modules():
        _materialize_weights(child)
        for hooks in (child._forward_hooks, child._forward_pre_hooks):
            hooks.clear()


def _materialize_weights(module: nn.Module) -> None:
    """Replace weights computed on the fly (weight norm, spectral norm) by their value."""
    if parametrize.is_parametrized(module):
        # torch's remove_parametrizations changes the class, which the original network shares.
        values = {name: getattr(module, name).detach() for name in module.parametrizations}  # type: ignore[union-attr]
        module.__class__ = type(module).__bases__[0]
        del module.parametrizations
        for name, value in values.items():
            module.register_parameter(name, nn.Parameter(value.clone()))
    for hook in list(module._forward_pre_hooks.values()):
        remove = _REMOVERS.get(type(hook).__name__)
        if remove is not None:
            remove(module, hook.name)  # type: ignore[attr-defined]


def trace(
    module: nn.Module,
    leaf_types: Collection[type[nn.Module]] = (),
    leaf_names: Collection[str] = (),
) -> fx.GraphModule:
    """Trace `module`; the result shares its weights.

    Args:
        module: In eval mode.
        leaf_types: Module types that are not traced into.
        leaf_names: Qualified names of modules that are not traced into.

    Raises:
        TracingError: torch.fx cannot follow the forward, or a leaf name does not exist.
    """
    names = [name for name, _ in module.named_modules()]
    for name in leaf_names:
        if name not in names:
            hint = did_you_mean(name, names) or "See network.named_modules()."
            raise TracingError(f"leaf_modules names {name!r}, which the network does not have. {hint}")
    tracer = _Tracer(leaf_types, leaf_names)
    try:
        graph = tracer.trace(module)
    except Exception as error:
        where, kind = tracer.deepest or ("", type(module).__name__)
        raise TracingError(
            f"torch.fx cannot trace {f'{where!r} ({kind})' if where else f'the forward of {kind}'}"
            f"{_error_line(error)}: {error}. The forward may not branch, loop or index on values of its tensors. "
            "Rewrite that part, or, if it is linear over time, name the submodule in leaf_modules."
        ) from error
    return fx.GraphModule(tracer.root, graph, type(module).__name__)


def _error_line(error: BaseException) -> str:
    line = ""
    for frame in _frames(error):
        if not frame.startswith((_OWN, _TORCH)) and not frame.startswith("<"):
            line = frame
    return f" at {line}" if line else ""


def _frames(error: BaseException) -> Iterator[str]:
    traceback = error.__traceback__
    while traceback is not None:
        yield f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
