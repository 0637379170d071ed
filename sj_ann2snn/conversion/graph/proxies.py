"""Traced values that answer Python code: what type they have, how long they are, whether a condition on them holds."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
from torch import Tensor, fx

from .known_values import DependsOn, Known, Unavailable

__all__ = ["ValueProxy"]

_WITHOUT_EFFECT = frozenset({"requires_grad_", "retain_grad"})
"""Methods that concern only training; they return the tensor itself."""

_NO_GRADIENTS = {"requires_grad": False, "grad": None, "grad_fn": None, "is_leaf": True}
"""Attributes of a tensor where no gradients are computed, as in a conversion."""


_T = TypeVar("_T", bool, int, float)


class _Recorder(Protocol):
    """What a traced value asks of the tracer that made it."""

    def create_proxy(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ValueProxy: ...

    def python_value(self, proxy: ValueProxy, kind: type[_T]) -> _T: ...


class ValueProxy(fx.Proxy):
    """A traced value whose values for a few samples are known; see `Known`.

    It also records augmented assignments as such; torch.fx alone would make ``h += y`` out of place.
    """

    tracer: _Recorder  # type: ignore[assignment]

    def __init__(self, node: fx.Node, tracer: Any, known: Known) -> None:
        super().__init__(node, tracer)
        self.known = known

    # -- attributes and parts

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.known.unknown:
            return fx.proxy.Attribute(self, name)
        value = self.known.values[0]
        if isinstance(value, Tensor):
            if name in _WITHOUT_EFFECT:
                return lambda *args, **kwargs: self
            if name in _NO_GRADIENTS:
                return _NO_GRADIENTS[name]
            if name == "ndim":
                return int(self.dim())
            if name == "data":
                return self.tracer.create_proxy("call_method", "detach", (self,), {})
        if isinstance(value, dict) and name in ("keys", "values", "items", "get"):
            return getattr(self._as_dict(), name)
        found = getattr(value, name)
        if callable(found):
            return fx.proxy.Attribute(self, name)
        return self.tracer.create_proxy("call_function", getattr, (self, name), {})

    def _as_dict(self) -> dict[Any, Any]:
        return {key: self._part(key) for key in self.known.ask(list, structure=True)}

    def _part(self, key: Any) -> ValueProxy:
        return self.tracer.create_proxy("call_function", operator.getitem, (self, key), {})

    def __iter__(self) -> Iterator[Any]:
        if not self.known.unknown and isinstance(self.known.values[0], dict):
            return iter(self._as_dict())
        return iter([self._part(index) for index in range(len(self))])

    def __len__(self) -> int:
        if not self.known.unknown and isinstance(self.known.values[0], Tensor):
            return int(self.size(0))
        return int(self.known.ask(len, structure=True))

    def __contains__(self, item: Any) -> bool:
        if isinstance(item, fx.Proxy) or (not self.known.unknown and isinstance(self.known.values[0], Tensor)):
            return any(bool(part == item) for part in self)
        return bool(self.known.ask(lambda value: item in value, structure=True))

    def __hash__(self) -> int:
        if self.known.unknown or isinstance(self.known.values[0], Tensor):
            return object.__hash__(self)
        # A key of the same value would not be found; einops, for one, then works without its cache.
        raise TypeError("a size cannot be a key of a dict or a cache while it is traced; use int(...)")

    # -- Python values

    def __bool__(self) -> bool:
        return self.tracer.python_value(self, bool)

    def __int__(self) -> int:
        return self.tracer.python_value(self, int)

    def __index__(self) -> int:
        return self.tracer.python_value(self, int)

    def __float__(self) -> float:
        return self.tracer.python_value(self, float)

    def __round__(self, digits: int | None = None) -> Any:
        return round(float(self), digits) if digits is not None else round(float(self))

    def __divmod__(self, other: Any) -> tuple[Any, Any]:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> tuple[Any, Any]:
        return other // self, other % self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        value = None if self.known.unknown else self.known.values[0]
        if isinstance(value, Tensor) and self.known.depends is DependsOn.INPUT:
            raise Unavailable("NumPy needs the values of a tensor, which differ between inputs")
        if isinstance(value, (tuple, list)):
            return np.asarray([self.tracer.python_value(part, int) for part in self], dtype)
        return np.asarray(self.tracer.python_value(self, float), dtype)

    # -- augmented assignments

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.iadd, other)

    def __isub__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.isub, other)

    def __imul__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.imul, other)

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.itruediv, other)

    def _in_place(self, operation: Any, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operation, (self, other), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})
