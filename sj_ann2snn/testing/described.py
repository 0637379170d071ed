"""Mappers' descriptions, in a form that tests can run and compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..contracts.replacements import Analog, Average, NeuronAfterPool, Replacement, Spike, Stateful
from ..contracts.site import Site, Value
from ..layers import call_operation
from ..support.trees import map_leaves

__all__ = ["DescribedMemory", "is_same_description", "keeps_channels_apart", "operation_of", "outputs_of"]


@dataclasses.dataclass(frozen=True)
class DescribedMemory:
    """A module with memory that takes one tensor, as a mapper described it.

    Attributes:
        make: Makes the module.
        label: Its name in the report.
        exact: True if its mean over time is the ANN's operation.
        analog: True if it can replace any kind of operation.
    """

    make: Callable[[], nn.Module]
    label: str
    exact: bool
    analog: bool

    @staticmethod
    def of(site: Site, answer: Replacement) -> DescribedMemory | None:
        if isinstance(answer, NeuronAfterPool):
            answer = answer.otherwise  # used if the pool cannot move in front of the neuron
        if isinstance(answer, Stateful):
            return DescribedMemory(answer.make, answer.label, answer.exact, analog=False)
        described = answer.analog if isinstance(answer, Spike) else answer
        if not isinstance(described, Analog) or any(value.constant is None for value in site.values[1:]):
            return None
        make = partial(described.make, operation_of(site), (0,))
        return DescribedMemory(make, described.label, described.exact, analog=True)


def operation_of(site: Site, answer: Replacement | None = None) -> Callable[[Tensor], Any]:
    """The site's operation, or the module that the mapper puts in its place, as a function of the first tensor."""
    made = answer.make if isinstance(answer, Average) else None
    first = site.values[0]

    def compute(x: Tensor) -> Any:
        if made is not None:
            return made()(x)
        if site.module is not None:
            return site.module(x)

        def value(leaf: Any) -> Any:
            if leaf is first:
                return x
            return leaf.constant if isinstance(leaf, Value) else leaf

        args, kwargs = map_leaves(site.args, value), map_leaves(site.kwargs, value)
        return call_operation(site.operation, *args, **kwargs)

    def run(x: Tensor) -> Any:
        with torch.no_grad():
            return compute(x)

    return run


def outputs_of(value: Any) -> list[Tensor]:
    """The tensors among the results of an operation."""
    return [value] if isinstance(value, Tensor) else [one for one in value if isinstance(one, Tensor)]


def keeps_channels_apart(operation: Callable[[Tensor], Any], x: Tensor) -> bool:
    """True if a change in one channel only affects that channel."""
    if x.dim() < 2 or x.shape[1] < 2:
        return True
    changed = x.clone()
    changed[:, 0] += 1
    out, other = operation(x), operation(changed)
    return bool(out.dim() >= 2 and torch.equal(out[:, 1:], other[:, 1:]))


def is_same_description(one: Any, other: Any) -> bool:
    """True if two descriptions are equivalent; functions that make modules are not compared by identity.

    >>> from sj_ann2snn import Product, Spike
    >>> is_same_description(Spike(maximum=6.0), Spike(maximum=6.0)), is_same_description(Spike(), Spike(maximum=6.0))
    (True, False)
    """
    if type(one) is not type(other):
        # A lambda and a partial may be equivalent.
        return callable(one) and callable(other) and not isinstance(one, Replacement)
    if isinstance(one, Replacement):
        names = [field.name for field in dataclasses.fields(one)]
        return all(is_same_description(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, Tensor):
        return bool(torch.equal(one, other))
    return callable(one) or bool(one == other)
