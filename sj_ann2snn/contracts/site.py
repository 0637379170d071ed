"""What a plugin receives about one call in the network: a `Site` and its `Value`s."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

__all__ = ["Site", "Value", "Varies", "iter_values"]


class Varies(enum.IntEnum):
    """How a value behaves while the spiking network runs on a constant input.

    `CONSTANT` does not depend on the input (a parameter); `STATIC` depends on the input but is the
    same at every step (everything before the first neuron); `VARYING` changes from step to step.
    """

    CONSTANT = 0
    STATIC = 1
    VARYING = 2


@dataclass(frozen=True)
class Value:
    """A tensor that flows into or out of a site.

    Attributes:
        shape: Shape during calibration, including the batch dimension.
        dtype: Its dtype.
        varies: How it behaves over time.
        name: Name of the graph node that makes it.
        constant: The tensor itself, if it is a parameter or buffer (read it, never change it).
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    varies: Varies
    name: str = ""
    constant: torch.Tensor | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Site:
    """One call in the network: a module, a function or a tensor method.

    >>> from sj_ann2snn import Site
    >>> site = Site(name="features.1", operation=torch.nn.ReLU)
    >>> site.operation_name
    'ReLU'

    Attributes:
        name: Qualified name of the layer, with a suffix for a repeated call or a function inside a module.
        operation: Exact type of the module, the function, or the name of the tensor method.
        module: The module itself (read it, never change it); None for functions and methods.
        args: Positional arguments; tensors appear as `Value`, everything else as it is.
        kwargs: Keyword arguments, likewise.
        output: What the call returns: a `Value`, or a tuple of them.
        source: File and line of the call in the user's code, if known.
    """

    name: str
    operation: type[nn.Module] | Callable[..., Any] | str
    module: nn.Module | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    output: Any = None
    source: str = ""

    @property
    def operation_name(self) -> str:
        """Readable name of the operation: ``ReLU``, ``torch.relu``, ``Tensor.view``."""
        if isinstance(self.operation, str):
            return f"Tensor.{self.operation}"
        if isinstance(self.operation, type):
            return self.operation.__name__
        name = getattr(self.operation, "__name__", repr(self.operation))
        module = getattr(self.operation, "__module__", None) or ""
        module = {"_operator": "operator", "torch._C._nn": "torch.nn.functional"}.get(module, module)
        return f"{module}.{name}" if module else str(name)

    @property
    def values(self) -> tuple[Value, ...]:
        """Every tensor among the arguments, in order."""
        return tuple(iter_values((self.args, self.kwargs)))

    @property
    def varies(self) -> Varies:
        """The highest `Varies` among the arguments."""
        return max((value.varies for value in self.values), default=Varies.CONSTANT)

    def argument(self, name: str, position: int, default: Any = None) -> Any:
        """An argument of the call, however it was given.

        The module's attribute `name` if the site is a module; otherwise the keyword, the positional argument (the
        tensor itself is position 0), or `default`, in this order.
        """
        if self.module is not None:
            return getattr(self.module, name, default)
        if name in self.kwargs:
            return self.kwargs[name]
        return self.args[position] if position < len(self.args) else default


def iter_values(tree: Any) -> Iterator[Value]:
    """Every `Value` in nested tuples, lists, dicts and slices."""
    if isinstance(tree, Value):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from iter_values(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from iter_values(item)
    elif isinstance(tree, slice):
        yield from iter_values((tree.start, tree.stop, tree.step))
