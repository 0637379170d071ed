"""One λ for neurons whose spikes are added up, so that nothing has to scale the spikes of a shortcut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, fx

from .draft import Draft

__all__ = ["shared_lambdas", "sharing"]

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, less their whole part, are all different."""

Meetings = Callable[[Mapping[fx.Node, Tensor]], Iterable[tuple[Tensor, Tensor]]]
"""Returns all pairs of scales between which a scaler would be needed, for values of the spikes of every node."""


def sharing(draft: Draft, meetings: Meetings) -> dict[fx.Node, Tensor]:
    """Which λ must be the same for no scaler to be left between two neurons.

    The scales are planned with a mark in place of every λ, and with one for each channel. Where a scaler remains, the
    marks that it leads from and to belong together.

    Args:
        draft: Calibrated.
        meetings: Plans the scales.

    Returns:
        For every node that shares a λ, the number of each of its λ; equal numbers must have the same λ.
    """
    marks, count = _marks(draft), 0
    numbers: dict[float, int] = {}
    for mark in marks.values():
        numbers.update((value, count + place) for place, value in enumerate(mark.reshape(-1).tolist()))
        count += mark.numel()
    joined = _Classes(count)
    for scale, wanted in meetings(marks):
        pairs = [one.reshape(-1).tolist() for one in torch.broadcast_tensors(scale, wanted)]  # type: ignore[no-untyped-call]
        for one, other in set(zip(*pairs, strict=True)):
            # A scale of one stands for the ANN's units, one of zero for zeros that a shortcut is padded with.
            if one in numbers and other in numbers:
                joined.join(numbers[one], numbers[other])
    found = torch.tensor([joined.root(number) for number in range(count)])
    alone = torch.bincount(found, minlength=count)[found] == 1
    result, start = {}, 0
    for node, mark in marks.items():
        here = slice(start, start + mark.numel())
        if not bool(alone[here].all()):
            result[node] = found[here].reshape(mark.shape)
        start += mark.numel()
    return result


def shared_lambdas(draft: Draft) -> Mapping[fx.Node, Tensor]:
    """λ of every spiking node, the same for those that share one: the mean of theirs, but at most the smallest upper
    bound of their activations.

    Their largest λ would let no neuron saturate, but the first layers of a residual network would then hardly fire.
    """
    if not draft.sharing:
        return draft.lambdas
    size = 1 + max(int(numbers.max()) for numbers in draft.sharing.values())
    total, count = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    bound = torch.full((size,), torch.inf, dtype=torch.float64)
    for node, numbers in draft.sharing.items():
        scale = draft.lambdas[node].double().cpu()
        if scale.dim() > numbers.dim():  # a correction has given each channel of the layer a λ of its own
            scale = scale.mean()
        scale, numbers = scale.expand(numbers.shape).reshape(-1), numbers.reshape(-1)
        total.index_add_(0, numbers, scale)
        count.index_add_(0, numbers, torch.ones_like(scale))
        maximum = draft.plan.spikes[node].maximum
        if maximum is not None:
            bound.scatter_reduce_(0, numbers, torch.full_like(scale, float(maximum)), "amin")
    shared = torch.minimum(total / count, bound)
    own = {node: shared[numbers].to(draft.lambdas[node]) for node, numbers in draft.sharing.items()}
    return {**draft.lambdas, **own}


def _marks(draft: Draft) -> dict[fx.Node, Tensor]:
    """A value for every λ that no other has, nor a product of others by all odds."""
    found, count = {}, 0
    for node, scale in draft.lambdas.items():
        place = torch.arange(count + 1, count + 1 + scale.numel(), dtype=torch.float64)
        found[node] = (2 + place * GOLDEN % 1).reshape(scale.shape)
        count += scale.numel()
    return found


class _Classes:
    """Numbers that belong together."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def root(self, number: int) -> int:
        """The number that stands for those that belong to `number`."""
        while self._above[number] != number:
            self._above[number] = self._above[self._above[number]]
            number = self._above[number]
        return number

    def join(self, one: int, other: int) -> None:
        """Both belong together."""
        self._above[self.root(other)] = self.root(one)
