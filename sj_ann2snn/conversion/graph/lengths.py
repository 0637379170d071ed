"""Finds the dimensions whose size follows the size of the input: time, height, width.

A network that takes sequences of any length must keep doing so as a spiking network, so no scale may be tied to the
length of the calibrated sequences. Which dimensions that are is not guessed from the operations but tried: the network
runs on inputs of twice the length. Where it fails, the length is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx

from .records import Record, record

__all__ = ["flexible_dimensions"]


def flexible_dimensions(
    module: fx.GraphModule, samples: tuple[Any, ...], recorded: Record
) -> dict[fx.Node, frozenset[int]]:
    """The dimensions of every node's results whose size depends on that of the network's inputs.

    Args:
        module: A traced network.
        samples: One value per input.
        recorded: What its nodes yield for them.
    """
    flexible: dict[fx.Node, frozenset[int]] = {node: frozenset() for node in recorded.values}
    for variants in _longer(samples):
        for inputs in variants:
            try:
                longer = record(module, inputs)
            except Exception:  # any error means that the network does not take this length
                continue
            for node, known in flexible.items():
                flexible[node] = known | _differing(recorded, longer, node)
            break
    return flexible


def _longer(samples: tuple[Any, ...]) -> Iterator[list[tuple[Any, ...]]]:
    """For every dimension of every input, inputs with that dimension doubled: alone, or together with its equals."""
    places = [
        (index, dim)
        for index, value in enumerate(samples)
        if isinstance(value, Tensor)
        for dim in range(1, value.dim())
        if value.shape[dim]
    ]
    for index, dim in places:
        equals = {place for place in places if samples[place[0]].shape[place[1]] == samples[index].shape[dim]}
        variants = [{(index, dim)}]
        variants += [equals] if len(equals) > 1 else []
        yield [tuple(_doubled(value, one, variant) for one, value in enumerate(samples)) for variant in variants]


def _doubled(value: Any, index: int, places: set[tuple[int, int]]) -> Any:
    if not isinstance(value, Tensor):
        return value
    for dim in (dim for one, dim in places if one == index):
        value = torch.cat([value, value], dim)
    return value.clone()


def _differing(recorded: Record, longer: Record, node: fx.Node) -> frozenset[int]:
    return frozenset(
        dim
        for one, other in zip(recorded.tensors(node), longer.tensors(node), strict=False)
        if len(one.shape) == len(other.shape)
        for dim, (size, longer_size) in enumerate(zip(one.shape, other.shape, strict=True))
        if size != longer_size
    )
