"""Runs a network's operations on a few samples while it is traced, so that Python code can ask for their values.

torch.fx alone knows nothing about a traced value, and gives up where the forward branches on a shape. Here every value
is known for two samples and for three. What both runs agree on does not depend on the number of samples, and may decide
about a branch, a loop or the length of a list.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...support.trees import leaves, map_leaves
from ...support.wording import first_line

__all__ = ["SHAPE_ATTRIBUTES", "SHAPE_METHODS", "DependsOn", "Known", "Unavailable", "run_known"]

SHAPE_METHODS = frozenset({
    "size", "dim", "ndimension", "numel", "nelement", "stride", "is_contiguous", "type", "is_floating_point",
    "is_complex", "element_size", "get_device", "new_tensor",
})  # fmt: skip
"""Methods of a tensor that read its shape, dtype or place, not its values."""

SHAPE_ATTRIBUTES = frozenset({"shape", "dtype", "device", "ndim", "is_cuda", "layout", "requires_grad", "itemsize"})
"""Attributes of the same kind."""

_SHAPE_FUNCTIONS = frozenset({
    len, isinstance, torch.is_tensor, torch.is_floating_point, torch.is_complex, torch.numel, torch.result_type,
})  # fmt: skip


class Unavailable(Exception):  # noqa: N818 - a reason, which the tracer puts into its own error
    """A value that Python code asks for differs between inputs."""


class DependsOn(enum.IntEnum):
    """What decides about a value."""

    NOTHING = 0
    SHAPES = 1
    INPUT = 2


@dataclass(frozen=True)
class Known:
    """A traced value for two samples and for three.

    Attributes:
        values: The two values.
        depends: What decides about them.
        unknown: Why there are no values.
    """

    values: tuple[Any, Any]
    depends: DependsOn
    unknown: str = ""

    def ask(self, how: Callable[[Any], Any], *, structure: bool = False) -> Any:
        """What `how` makes of the value, if it is the same for every number of samples.

        Args:
            how: Turns the value into a Python value.
            structure: `how` reads only how many parts the value has, or of which type it is.

        Raises:
            Unavailable: It depends on the input's values or on the number of samples, or is unknown.
        """
        if self.unknown:
            raise Unavailable(self.unknown)
        if self.depends is DependsOn.INPUT and not structure:
            raise Unavailable("the value of a tensor decides, and it differs between inputs")
        one, other = (how(value) for value in self.values)
        if one != other:
            raise Unavailable(
                f"the number of samples decides ({one!r} for two samples, {other!r} for three), but a converted "
                "network takes any number"
            )
        return one


def run_known(
    operation: Callable[..., Any], arguments: tuple[Any, dict[str, Any]], known: Callable[[Any], Known | None]
) -> Known:
    """The result of an operation for two samples and for three.

    Args:
        operation: A function, a module, or a function that calls a method.
        arguments: Its arguments and keyword arguments.
        known: What is known about a leaf of the arguments; None for a plain value.
    """
    facts = [fact for leaf in leaves(arguments) if (fact := known(leaf)) is not None]
    depends = max((fact.depends for fact in facts), default=DependsOn.NOTHING)
    unknown = next((fact.unknown for fact in facts if fact.unknown), "")
    if unknown:
        return Known((None, None), depends, unknown)

    def run(which: int) -> Any:
        def value(leaf: Any) -> Any:
            fact = known(leaf)
            return leaf if fact is None else fact.values[which]

        args, kwargs = map_leaves(arguments, value)
        return operation(*args, **kwargs)

    try:
        with torch.no_grad():
            first = run(0)
            # What depends on nothing is the same object in both runs, as a parameter is.
            second = first if depends is DependsOn.NOTHING else run(1)
    except Exception as error:
        return Known((None, None), depends, f"{type(error).__name__}: {first_line(error)}")
    return Known((first, second), depends)


def asks_shape(kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """True for a call that reads a tensor's shape, dtype or place."""
    if kind == "call_method":
        casts = target == "type" and len(args) + len(kwargs) > 1
        return target in SHAPE_METHODS and not casts
    if kind != "call_function":
        return False
    return (target is getattr and args[1] in SHAPE_ATTRIBUTES) or target in _SHAPE_FUNCTIONS


def shape_only(fact: Known) -> Known:
    """The result of a call that reads shapes: the input's values do not decide about it."""
    return Known(fact.values, min(fact.depends, DependsOn.SHAPES), fact.unknown)


def holds_tensor(value: Any) -> bool:
    """True if a tensor is among the parts of a value."""
    return any(isinstance(leaf, Tensor) for leaf in leaves(value))


def call(kind: str, target: Any) -> Callable[..., Any]:
    """The function or method that a node calls, as a function."""
    if kind == "call_method":
        return lambda first, *args, **kwargs: getattr(first, target)(*args, **kwargs)
    function: Callable[..., Any] = target
    return function
