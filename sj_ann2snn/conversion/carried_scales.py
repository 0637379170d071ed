"""Tracks the scale in which every value is carried, and the scalers needed to read it in another scale."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from ..contracts.replacements import ScaleFlow, Weighted
from ..contracts.site import Varies
from ..support.shapes import along_axis
from ..support.trees import leaves
from .draft import Decision, Draft, ScalePlan
from .graph.records import TensorRecord
from .graph.weights import foldable

__all__ = ["ONE", "CarriedScales", "compressed", "is_per_channel", "is_same", "node_leaves"]

ONE = torch.ones((), dtype=torch.float64)


class CarriedScales:
    """The scales of a network's values while they are planned.

    Args:
        draft: Planned.
        units: λ, or the value of a spike, of every spiking node: a scalar or per channel.

    Attributes:
        draft: As given.
        units: The same as scales, shaped to broadcast.
        wanted: The scale in which a node's users would read it without a scaler; None if any scale will do.
        scales: The scale of every node visited so far.
        folds: For a weighted layer, the factors of its input and output channels.
        scalers: For (user, argument), the factor by which the user's argument is multiplied.
        met: For each of them, the scale in which the argument is carried and the one in which the user reads it.
    """

    def __init__(self, draft: Draft, units: Mapping[fx.Node, Tensor]) -> None:
        self.draft = draft
        self.units = {node: self._as_scale(value, node) for node, value in units.items()}
        self.wanted: dict[fx.Node, Tensor | None] = {}
        self.scales: dict[fx.Node, Any] = {}
        self.folds: dict[fx.Node, tuple[Tensor, Tensor]] = {}
        self.scalers: dict[tuple[fx.Node, fx.Node], Tensor] = {}
        self.met: dict[tuple[fx.Node, fx.Node], tuple[Tensor, Tensor]] = {}

    def plan(self) -> ScalePlan:
        """The scales planned so far."""
        return ScalePlan(self.scales, self.folds, self.scalers)

    def bring(self, user: fx.Node, arg: fx.Node, wanted: Tensor) -> None:
        """Have `user` read `arg` in the scale `wanted`."""
        scale = self.scale_of(arg)
        if not is_same(scale, wanted):
            self.scalers[user, arg], self.met[user, arg] = scale / wanted, (scale, wanted)

    def scale_of(self, node: fx.Node) -> Tensor:
        """The scale of `node`; a tuple of results that is read as a whole is in the ANN's units."""
        scale: Any = self.scales[node]
        return scale if isinstance(scale, Tensor) else ONE

    def carried_over(self, scale: Tensor, source: fx.Node, target: fx.Node) -> Tensor | None:
        """The scale that `target` has if `source` has `scale`, or the reverse.

        One of them is made from the other element by element, or by an operation that keeps channels apart, as far as
        they are known, and otherwise does not mix dimension 1. None if the values do not correspond along the
        dimensions along which the scale varies.
        """
        found, wanted = self.draft.tensor(source), self.draft.tensor(target)
        if not scale.dim():
            return scale
        if found is None or wanted is None or len(wanted.shape) < 2:
            return None
        of_source, of_target = self.draft.channels[source], self.draft.channels[target]
        unknown = of_source is None or of_target is None
        if unknown and is_per_channel(scale) and len(found.shape) > 1 and found.shape[1] == wanted.shape[1]:
            return along_axis(scale.flatten(), len(wanted.shape), 1)
        if of_source is None or of_target is None or of_source.axis is None or of_target.axis is None:
            return None
        if any(size != 1 for dim, size in enumerate(scale.shape) if dim != of_source.axis):
            return None
        if not torch.equal(of_source.labels.flatten(), of_target.labels.flatten()):
            return None
        return along_axis(scale.flatten(), len(wanted.shape), of_target.axis)

    def flow(self, node: fx.Node, decision: Decision) -> ScaleFlow:
        """How scales pass through `node`; they stop at a layer whose weights cannot be scaled."""
        replacement = decision.replacement
        if replacement is None:
            return ScaleFlow.STOPPED
        if isinstance(replacement, Weighted) and not (
            node.op == "call_module" and foldable(self.draft.module.get_submodule(str(node.target)))
        ):
            return ScaleFlow.STOPPED
        if replacement.scale_flow is ScaleFlow.SHARED and not self._sums_tensors(node):
            return ScaleFlow.STOPPED
        return replacement.scale_flow

    def picks(self, node: fx.Node) -> bool:
        """True for ``chunks[0]``, which picks one of several results."""
        source = node.args[0] if node.args else None
        return (
            node.target is operator.getitem
            and isinstance(source, fx.Node)
            and not isinstance(self.draft.record[source], TensorRecord)
            and self.draft.record.is_tensor(source)
        )

    def joins_constants(self, node: fx.Node) -> bool:
        """True if one of the joined tensors is a parameter, which is in the ANN's units."""
        return any(
            self.draft.plan.varies[one] is Varies.CONSTANT and self.draft.record.is_tensor(one)
            for one in node_leaves(node)
        )

    def _sums_tensors(self, node: fx.Node) -> bool:
        """True if no operand is a size, which no scaler can divide by the scale."""
        return all(self.draft.record.is_tensor(one) for one in node_leaves(node))

    def _as_scale(self, value: Tensor, node: fx.Node) -> Tensor:
        value = value.detach().double().cpu()
        if not value.dim():
            return value
        ndim, axis = len(self.draft.record[node].shape), self.draft.channels.axis(node) or 1
        return compressed(along_axis(value, ndim, axis))


def node_leaves(node: fx.Node) -> list[fx.Node]:
    """The arguments that are nodes, with repetitions."""
    return [leaf for leaf in leaves((node.args, node.kwargs)) if isinstance(leaf, fx.Node)]


def compressed(scale: Tensor) -> Tensor:
    """`scale` with every dimension along which it is constant shrunk to one."""
    for dim in range(scale.dim()):
        first = scale.narrow(dim, 0, 1)
        if scale.shape[dim] > 1 and bool((scale == first).all()):
            scale = first
    return scale.reshape(()) if scale.numel() == 1 else scale.contiguous()


def is_per_channel(scale: Tensor) -> bool:
    """True if a scale varies along dimension 1 only."""
    return all(size == 1 for dim, size in enumerate(scale.shape) if dim != 1)


def is_same(one: Tensor, other: Tensor) -> bool:
    """True for equal scales of the same shape."""
    if one is other:
        return True
    if not one.dim() and not other.dim():
        return bool(one == other)
    return one.shape == other.shape and bool((one == other).all())
