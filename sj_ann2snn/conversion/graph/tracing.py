"""Traces a network with torch.fx and records where in the user's code each node comes from."""

from __future__ import annotations

import copy
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from ...errors import TracingError
from ...layers.traced_values import require_traced
from ...support.batches import Signature
from ...support.locks import exclusive
from ...support.structures import call_of, can_be_built, fields_of, has_fields
from ...support.trees import map_tensors
from ...support.wording import did_you_mean, first_line, shown
from .known_values import DependsOn, Known, Unavailable, asks_shape, call, holds_tensor, run_known, shape_only
from .own_network import wrapped_in
from .proxies import ValueProxy
from .python_hooks import recording
from .renaming import rename_unusable

__all__ = ["LEAF", "PATH", "SOURCE", "Tracer", "trace"]

PATH = "ann2snn_path"
"""Key of a node's meta: qualified name of the module whose forward makes the call."""
SOURCE = "ann2snn_source"
"""Key of a node's meta: file and line in the user's code."""
LEAF = "ann2snn_leaf"
"""Key of a node's meta: True where the user declared the module a leaf."""

_PACKAGE = Path(__file__).parent.parent.parent
# Frames name files as they were imported, perhaps through a symbolic link (a virtual environment may be one).
_NOT_THE_USERS = tuple(
    f"{folder}{os.sep}"
    for place in (*(_PACKAGE / part for part in ("conversion", "support", "interchange")), Path(torch.__file__).parent)
    for folder in (place, place.resolve())
)
_READERS = (f"{os.sep}onnx2pytorch{os.sep}",)
"""Libraries whose code stands for a file that was read: it is not the user's."""

_T = TypeVar("_T", bool, int, float)


@dataclass(frozen=True)
class _Failure:
    """A module whose forward cannot be traced."""

    name: str
    kind: str
    line: str
    why: str

    def __str__(self) -> str:
        what = f"{self.name!r} ({self.kind})" if self.name else f"the forward of {self.kind}"
        return f"{what}{self.line}: {self.why}"


class Tracer(fx.Tracer):
    """Records a network's operations, and what they yield for a few samples.

    Args:
        signature: The network's inputs.
        inputs: Their values for two samples and for three.
        leaf_types: Module types that are not traced into.
        leaf_names: Qualified names of modules that are not traced into.
    """

    def __init__(
        self,
        signature: Signature,
        inputs: tuple[tuple[Any, ...], tuple[Any, ...]],
        leaf_types: Collection[type[nn.Module]],
        leaf_names: Collection[str],
    ) -> None:
        super().__init__()
        self.proxy_buffer_attributes = True
        self.signature, self.inputs = signature, inputs
        self.leaf_types = frozenset(leaf_types)
        self.leaf_names = frozenset(leaf_names)
        self.path: list[str] = []
        self.failures: list[_Failure] = []
        self._thread = threading.get_ident()
        self._running = False
        self._held: dict[int, tuple[nn.Module, str]] = {}
        self._modules: dict[str, nn.Module] = {}
        self._checked: set[tuple[fx.Node, Any]] = set()
        self._dtypes: set[fx.Node] = set()
        self._parameters: dict[str, Any] = {}

    # -- inputs

    def create_args_for_root(self, root_fn: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, list[Any]]:
        """One placeholder for every input in the calibration data; all others keep their defaults."""
        given: list[Any] = []
        for name, *values in zip(self.signature.names, *self.inputs, strict=False):
            depends = DependsOn.INPUT if holds_tensor(values[0]) else DependsOn.SHAPES
            proxy = self.create_proxy("placeholder", name, (), {})
            proxy.known = Known((values[0], values[1]), depends)
            # Nothing can follow ``x is None``.
            given.append(None if values[0] is None else proxy)

        def run(root: nn.Module, *inputs: Any) -> Any:
            return self.signature.caller(root.forward)(*inputs)

        return run, [self.root, *given]

    # -- modules

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name in self.leaf_names or type(m) in self.leaf_types:
            return True
        if isinstance(m, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            return False
        # A subclass that inherits torch's forward counts as torch's own class.
        return type(m).forward.__module__.startswith("torch.nn.")

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._running or threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        inner = wrapped_in(m)
        if inner is not None:
            return inner(*args, **kwargs)
        name = self._registered.get(m)
        if name is None:
            name = self._held_elsewhere(m)
        if name is not None and self.is_leaf_module(m, name):
            return self.create_proxy("call_module", name, args, kwargs)
        self.path.append(self.path[-1] if name is None and self.path else name or "")
        before = len(self.graph.nodes)
        try:
            return forward(*args, **kwargs)
        except Exception as error:
            return self._after_failure(error, m, name, before, args, kwargs)
        finally:
            self.path.pop()

    @property
    def _registered(self) -> dict[nn.Module, str]:
        paths: dict[nn.Module, str] = self.submodule_paths  # type: ignore[assignment]
        return paths

    def _held_elsewhere(self, m: nn.Module) -> str | None:
        """A name for a layer outside the module tree: made in the forward, or held in a list, a dict or a global.

        Such a layer becomes a part of the copy of the network. Containers of layers need no name.
        """
        if id(m) in self._held:
            return self._held[id(m)][1]
        if not self.is_leaf_module(m, ""):
            return None
        where = self.path[-1] if self.path else ""
        _require_evaluating(m, where)
        name = base = "_".join(filter(None, (*where.split("."), type(m).__name__)))
        count = 1
        while hasattr(self.root, name):
            count += 1
            name = f"{base}_{count}"
        own = copy.deepcopy(m).eval()
        self.root.add_module(name, own)
        self._held[id(m)] = m, name
        self._modules[name] = own
        return name

    def _after_failure(
        self,
        error: Exception,
        m: nn.Module,
        name: str | None,
        before: int,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Remember that `m` cannot be traced, and go on as if it were a leaf, to find all such modules."""
        if name is None or isinstance(error, TracingError):
            raise error
        self.failures.append(_Failure(name, type(m).__name__, _error_line(error), _reason(error)))
        erased = list(self.graph.nodes)[: before - 1 : -1]
        for node in erased:
            self.graph.erase_node(node)
        for attribute in [one for one, proxy in self._parameters.items() if proxy.node in erased]:
            del self._parameters[attribute]
        opaque = self.create_proxy("call_module", name, args, kwargs)
        if opaque.known.unknown:
            raise TracingError(_all_failures(self.failures)) from error
        return opaque

    # -- values

    def create_proxy(
        self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *more: Any, **options: Any
    ) -> ValueProxy:
        known = self._known(kind, target, args, kwargs)
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **options)
        assert type(proxy) is ValueProxy
        proxy.known = known
        if isinstance(known.values[0], torch.dtype):
            self._dtypes.add(proxy.node)
        return proxy

    def proxy(self, node: fx.Node) -> ValueProxy:
        return ValueProxy(node, self, Known((None, None), DependsOn.NOTHING, "it has no value yet"))

    def _known(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Known:
        if kind == "get_attr":
            value = self._attribute(target)
            return Known((value, value), DependsOn.NOTHING)
        if kind not in ("call_function", "call_method", "call_module"):
            return Known((None, None), DependsOn.NOTHING, "it has no value yet")
        running, self._running = self._running, True
        try:
            operation = self._module(target) if kind == "call_module" else call(kind, target)
            found = run_known(operation, (args, kwargs), _known_leaf)
        finally:
            self._running = running
        return shape_only(found) if asks_shape(kind, target, args, kwargs) else found

    def _module(self, name: str) -> nn.Module:
        """The module called `name`; a part of a name may hold a dot."""
        if name not in self._modules:
            self._modules.update({known: module for module, known in self._registered.items()})
        return self._modules[name]

    def _attribute(self, name: str) -> Any:
        """The parameter, buffer or plain attribute called `name`."""
        home, _, last = name.rpartition(".")
        module = self._module(home)
        if last in vars(module):
            return vars(module)[last]
        return module._parameters[last] if last in module._parameters else module._buffers[last]

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if self._running or threading.get_ident() != self._thread:
            return attr_val
        self._parameters = parameter_proxy_cache
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def python_value(self, proxy: ValueProxy, kind: type[_T]) -> _T:
        """What Python makes of a traced value, checked again whenever the converted network runs."""
        value: _T = proxy.known.ask(kind)
        sources = proxy.node.all_input_nodes
        if sources and self._dtypes.issuperset(sources):
            return value  # a converted network computes in the dtype of its weights
        if proxy.known.depends is DependsOn.SHAPES and (proxy.node, value) not in self._checked:
            self._checked.add((proxy.node, value))
            where = Path(_user_line(2)).name  # a file of the network should not hold paths of this machine
            self.create_node("call_function", require_traced, (proxy.node, value, where), {})
        return value

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(obj)

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, nn.Parameter) and not any(a is one for one in self.root.parameters()):
            # The parameter of a module outside the module tree.
            return super().create_arg(a.detach())
        if isinstance(a, fx.Proxy) or not has_fields(type(a)):
            return super().create_arg(a)
        fields = fields_of(a)
        if not can_be_built(type(a), fields):
            return super().create_arg(fields)
        args, kwargs = call_of(type(a), {key: self.create_arg(value) for key, value in fields.items()})
        return self.create_node("call_function", type(a), args, kwargs)

    # -- nodes

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(kind, *args, **kwargs)
        node.meta[PATH] = self.path[-1] if self.path else ""
        node.meta[SOURCE] = _user_line(2)
        if kind == "call_module":
            node.meta[LEAF] = node.target in self.leaf_names
        return node


def _known_leaf(leaf: Any) -> Known | None:
    if type(leaf) is ValueProxy:
        return leaf.known
    if isinstance(leaf, fx.proxy.Attribute):
        return Known((None, None), DependsOn.NOTHING, "it is a method")
    return None


def _require_evaluating(m: nn.Module, where: str) -> None:
    """Refuse a layer that behaves as in training because ``network.eval()`` does not reach it."""
    training = [one for one in m.modules() if one.training and isinstance(one, (_NormBase, _DropoutNd, nn.RReLU))]
    if training:
        raise TracingError(
            f"A {type(training[0]).__name__} that the forward of {where or 'the network'!r} calls is not one of the "
            "network's modules (network.named_modules()), so network.eval() does not reach it: it behaves as in "
            "training. Assign it to an attribute in __init__, or put it into an nn.ModuleList or nn.ModuleDict."
        )


def _is_users(file: str) -> bool:
    return not file.startswith((*_NOT_THE_USERS, "<")) and not any(reader in file for reader in _READERS)


def _user_line(depth: int) -> str:
    frame = sys._getframe(depth)
    while frame is not None:
        file = frame.f_code.co_filename
        if file == __file__ and frame.f_code is trace.__code__:
            return ""  # torch made the call, as in a Sequential; the next frames are the conversion's caller
        if _is_users(file):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def trace(
    module: nn.Module,
    signature: Signature,
    inputs: tuple[tuple[Any, ...], tuple[Any, ...]],
    leaf_types: Collection[type[nn.Module]] = (),
    leaf_names: Collection[str] = (),
) -> fx.GraphModule:
    """Trace `module`; the result shares its weights.

    Args:
        module: In eval mode.
        signature: Its inputs.
        inputs: Values of the inputs for two samples and for three.
        leaf_types: Module types that are not traced into.
        leaf_names: Qualified names of modules that are not traced into.

    Raises:
        TracingError: torch.fx cannot follow the forward, or a leaf name does not exist.
    """
    names = [name for name, _ in module.named_modules()]
    for name in leaf_names:
        if name not in names:
            hint = did_you_mean(name, names) or "See network.named_modules()."
            raise TracingError(f"leaf_modules names {shown(name)}, which the network does not have. {hint}")
    copies = map_tensors(inputs, Tensor.clone)
    # torch.fx intercepts the modules of all threads; two traces at a time would leave them intercepted for ever.
    with exclusive(fx.Tracer), recording():
        tracer = Tracer(signature, copies, leaf_types, leaf_names)
        try:
            graph = tracer.trace(module)
        except TracingError:
            raise
        except Exception as error:
            tracer.failures.append(_Failure("", type(module).__name__, _error_line(error), _reason(error)))
            raise TracingError(_all_failures(tracer.failures)) from error
    if tracer.failures:
        raise TracingError(_all_failures(tracer.failures))
    rename_unusable(tracer.root, graph)
    return fx.GraphModule(tracer.root, graph, type(module).__name__)


def _all_failures(failures: list[_Failure]) -> str:
    if len(failures) == 1:
        what = f"torch.fx cannot trace {failures[0]}."
    else:
        listed = "\n".join(f"  - {failure}" for failure in failures)
        what = f"torch.fx cannot trace {len(failures)} modules of the network:\n{listed}\n"
    return (
        f"{what} The forward may not branch, loop or index on values of its tensors. Rewrite that part; or, if it is "
        "linear over time, name the submodule in leaf_modules; or convert another submodule alone with convert_only."
    )


def _reason(error: BaseException) -> str:
    text = first_line(error).rstrip(".") if str(error) else ""
    if isinstance(error, Unavailable):
        return text
    if "Proxy" in text and _in_torchscript(error):
        return f"it calls a function of TorchScript, which cannot be followed ({text}); call the Python function"
    return f"{type(error).__name__}: {text}" if text else f"{type(error).__name__} without a text"


def _in_torchscript(error: BaseException) -> bool:
    return "Expected a value of type" in str(error)


def _error_line(error: BaseException) -> str:
    line = ""
    for frame in _frames(error):
        if _is_users(frame):
            line = frame
    return f" at {line}" if line else ""


def _frames(error: BaseException) -> Iterator[str]:
    traceback = error.__traceback__
    while traceback is not None:
        yield f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
