"""Maps functions and tensor methods to names, and back.

A file must not be able to call arbitrary functions. Only the functions that torch itself lists as operating on tensors
and Python's operators have names.
"""

from __future__ import annotations

import functools
import importlib
import math
import operator
from collections.abc import Callable
from typing import Any

import torch

from ..layers.traced_values import require_traced
from ..support.torch_functions import FACTORIES

__all__ = ["ATTRIBUTES", "GETATTR", "find_function", "function_name", "is_method", "shown"]

NAMESPACES = ("torch", "torch.nn.functional", "torch.special", "torch.linalg", "torch.fft")

OPERATORS = (
    "add", "and_", "eq", "floordiv", "ge", "getitem", "gt", "invert", "le", "lshift", "lt", "matmul",
    "mod", "mul", "ne", "neg", "or_", "pos", "pow", "rshift", "sub", "truediv", "xor",
)  # fmt: skip

MATH = (
    "ceil", "copysign", "exp", "fabs", "floor", "gcd", "hypot", "isqrt", "log", "log10", "log2", "prod", "sqrt",
    "trunc",
)  # fmt: skip
"""Functions of Python's math module, which torch.fx records on sizes."""

GETATTR = "getattr"
"""Name of the function that reads an attribute of a tensor."""

ATTRIBUTES = ("H", "T", "device", "dtype", "imag", "layout", "mH", "mT", "ndim", "real", "shape")
"""Attributes of tensors that may be read."""


@functools.cache
def _functions() -> dict[str, Callable[..., Any]]:
    known = {one for functions in torch.overrides.get_overridable_functions().values() for one in functions}
    # torch.fx records an assert in a forward as a call of torch._assert.
    found: dict[str, Callable[..., Any]] = {GETATTR: getattr, "torch._assert": torch._assert}
    found["sj_ann2snn.require_traced"] = require_traced
    found.update({f"torch.{name}": getattr(torch, name) for name in FACTORIES})
    found.update({f"math.{name}": getattr(math, name) for name in MATH})
    found.update({f"operator.{name}": getattr(operator, name) for name in OPERATORS})
    for namespace in NAMESPACES:
        module = importlib.import_module(namespace)
        for name in sorted(vars(module)):
            function = getattr(module, name)
            if not name.startswith("_") and callable(function) and _is_one_of(function, known):
                found[f"{namespace}.{name}"] = function
    return found


def _is_one_of(function: Any, known: set[Any]) -> bool:
    try:
        return function in known
    except TypeError:
        return False  # not hashable


@functools.cache
def _names() -> dict[Callable[..., Any], str]:
    # Use the first of several names, so that files do not depend on which one was called.
    return {function: name for name, function in reversed(_functions().items())}


def function_name(function: Any) -> str | None:
    """The name of a function; None if it has none.

    >>> function_name(torch.flatten), function_name(operator.add), function_name(print)
    ('torch.flatten', 'operator.add', None)
    """
    try:
        return _names().get(function)
    except TypeError:
        return None


def shown(function: Any) -> str:
    """The name of a function in messages.

    >>> shown(torch.flatten)
    'torch.flatten'
    """
    known = function_name(function)
    if known is not None:
        return known
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"


def find_function(name: str) -> Callable[..., Any] | None:
    """The function called `name`; None if there is none.

    >>> find_function("torch.flatten") is torch.flatten, find_function("torch.load")
    (True, None)
    """
    return _functions().get(name)


_UNLISTED = {"new_empty", "new_full", "new_ones", "new_tensor", "new_zeros", "unflatten"}
"""Methods of tensors that are missing from torch's list."""


@functools.cache
def _methods() -> frozenset[str]:
    known = set(torch.overrides.get_overridable_functions()[torch.Tensor])
    listed = frozenset(
        name
        for name in dir(torch.Tensor)
        if not name.startswith("_") and _is_one_of(getattr(torch.Tensor, name), known)
    )
    return listed | _UNLISTED


def is_method(name: str) -> bool:
    """True for the name of a method of tensors.

    >>> is_method("view"), is_method("__reduce__")
    (True, False)
    """
    return name in _methods()
