"""Decides in which scale every value of the spiking network is carried.

A value with scale s is carried as ``value / s``. A neuron's output has the scale λ of its site and its
input must have it too; the network's output has scale one, the ANN's units. In between scales are folded
into weights wherever the graph allows; where two scales meet that no weights can reconcile, an explicit
scaler is planned.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from ..contracts.replacements import Average, Product, Rearrange, Remove, Replacement, Spike, Stateful, Sum, Weighted
from ..contracts.site import Varies
from ..support.trees import leaves, map_leaves, map_tensors, tensors
from .graph.records import Record, TensorRecord
from .graph.weights import channel_axis, foldable
from .plan import Decision, Plan

__all__ = ["ScalePlan", "plan_scales"]

ONE = torch.ones((), dtype=torch.float64)


@dataclass
class ScalePlan:
    """Scales of values, folds and scalers.

    Scales are float64: 0-dimensional, or of the value's rank with a first dimension of one.
    """

    scales: dict[fx.Node, Any] = field(default_factory=dict)
    folds: dict[fx.Node, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """For a weighted layer the factors of its input and output channels."""
    scalers: dict[tuple[fx.Node, fx.Node], Tensor] = field(default_factory=dict)
    """For (user, argument) the factor by which the argument is multiplied in front of the user."""


def plan_scales(module: fx.GraphModule, record: Record, plan: Plan, lambdas: dict[fx.Node, Tensor]) -> ScalePlan:
    """Plan the scales of all values.

    Args:
        module: In canonical form.
        record: What the nodes yield for two samples.
        plan: What becomes of the nodes.
        lambdas: λ of every spiking node, a scalar or per channel (dimension 1).
    """
    return _ScalePlanner(module, record, plan, lambdas).run()


class _ScalePlanner:
    def __init__(self, module: fx.GraphModule, record: Record, plan: Plan, lambdas: dict[fx.Node, Tensor]) -> None:
        self.module, self.record, self.plan = module, record, plan
        self.lambdas = {node: self._as_scale(value, node) for node, value in lambdas.items()}
        self.wanted: dict[fx.Node, Tensor | None] = {}
        self.out = ScalePlan()

    def _as_scale(self, value: Tensor, node: fx.Node) -> Tensor:
        value = value.detach().double().cpu()
        if not value.dim():
            return value
        return _compressed(value.reshape(1, -1, *(1,) * (len(self.record[node].shape) - 2)))

    def run(self) -> ScalePlan:
        nodes = list(self.module.graph.nodes)
        for node in reversed(nodes):
            self.wanted[node] = self._wanted_by_users(node)
        for node in nodes:
            if node.op == "output":
                for arg in node.all_input_nodes:
                    self._bring(node, arg, ONE)
            elif node in self.plan.decisions:
                self.out.scales[node] = self._visit(node, self.plan.decisions[node])
            elif self._picks(node):
                self.out.scales[node] = self.out.scales[node.args[0]][node.args[1]]
            else:
                self.out.scales[node] = ONE
        return self.out

    # What users would like to read -------------------------------------------------------------

    def _wanted_by_users(self, node: fx.Node) -> Tensor | None:
        """The scale in which the users would read `node` without a scaler; None if any will do."""
        wishes = [self._wish(user, node) for user in node.users]
        concrete = [wish for wish in wishes if wish is not None]
        # A neuron's wish comes first: a scaler on its current would run at every step.
        return next((wish for wish in concrete if not _same(wish, ONE)), concrete[0] if concrete else None)

    def _wish(self, user: fx.Node, node: fx.Node) -> Tensor | None:
        if user.op == "output":
            return ONE
        decision = self.plan.decisions.get(user)
        if decision is None:
            return None if self._picks(user) or self.plan.varies[user] is Varies.CONSTANT else ONE
        replacement = decision.replacement
        if isinstance(replacement, Spike):
            return ONE if replacement.analog else self._reranked(self.lambdas[user], node)
        if self._folds(user, replacement):
            return None
        if isinstance(replacement, Remove):
            return self.wanted[user]
        if isinstance(replacement, (Average, Stateful)):
            return self._reranked(self.wanted[user], node)
        if isinstance(replacement, Sum) and self._sums_inputs(user):
            return self._reranked(self.wanted[user], node)
        if isinstance(replacement, Rearrange) and self._joins_constants(user):
            return ONE
        if isinstance(replacement, (Rearrange, Product)):
            wanted = self.wanted[user]
            return wanted if wanted is not None and not wanted.dim() else None
        return ONE

    def _reranked(self, scale: Tensor | None, node: fx.Node) -> Tensor | None:
        """A scale per channel, for a value of another rank with the same channels in dimension 1."""
        if scale is None or not scale.dim():
            return scale
        found = self.record[node]
        if not isinstance(found, TensorRecord) or len(found.shape) < 2 or not _per_channel(scale):
            return None
        if found.shape[1] != scale.shape[1]:
            return None
        return scale.reshape(1, -1, *(1,) * (len(found.shape) - 2))

    # What is carried ---------------------------------------------------------------------------

    def _visit(self, node: fx.Node, decision: Decision) -> Any:
        replacement = decision.replacement
        if isinstance(replacement, Spike):
            scale = self.lambdas[node]
            for arg in self._tensors(node):
                wish = ONE if replacement.analog else self._reranked(scale, arg)
                self._bring(node, arg, ONE if wish is None else wish)
            return scale
        if self._folds(node, replacement):
            return self._weighted(node)
        if isinstance(replacement, Remove):
            return self.out.scales[node.all_input_nodes[0]]
        if isinstance(replacement, (Average, Stateful)):
            return self._channelwise(node)
        if isinstance(replacement, Sum) and self._sums_inputs(node):
            return self._sum(node)
        if isinstance(replacement, Rearrange):
            return self._rearranged(node)
        if isinstance(replacement, Product):
            return self._product(node, replacement)
        return self._in_units(node)

    def _folds(self, node: fx.Node, replacement: Replacement | None) -> bool:
        return (
            isinstance(replacement, Weighted)
            and node.op == "call_module"
            and foldable(self.module.get_submodule(str(node.target)))
        )

    def _weighted(self, node: fx.Node) -> Tensor:
        layer = self.module.get_submodule(str(node.target))
        (arg,) = self._tensors(node)
        incoming = self._along_channels(layer, self.out.scales[arg], len(self.record[arg].shape))
        if incoming is None:
            self._bring(node, arg, ONE)
            incoming = ONE
        wanted = self.wanted[node]
        ndim = len(self.record[node].shape)
        outgoing = None if wanted is None else self._along_channels(layer, wanted, ndim)
        if outgoing is None:
            wanted, outgoing = ONE, ONE
        self.out.folds[node] = (incoming, 1.0 / outgoing)
        assert wanted is not None
        return wanted

    @staticmethod
    def _along_channels(layer: Any, scale: Tensor, ndim: int) -> Tensor | None:
        """The scale as a vector over the layer's channels; None if it varies along other dimensions."""
        if not scale.dim():
            return scale
        axis = channel_axis(layer, ndim)
        if any(size != 1 for dim, size in enumerate(scale.shape) if dim != axis):
            return None
        return scale.flatten() if scale.shape[axis] > 1 else scale.reshape(())

    def _channelwise(self, node: fx.Node) -> Tensor:
        arg = self._tensors(node)[0]
        scale: Tensor = self.out.scales[arg]
        if not scale.dim():
            return scale
        shape, out_shape = self.record[arg].shape, self.record[node].shape
        if not _per_channel(scale) or len(out_shape) < 2 or shape[1] != out_shape[1]:
            self._bring(node, arg, ONE)
            return ONE
        return scale.reshape(1, -1, *(1,) * (len(out_shape) - 2))

    def _sum(self, node: fx.Node) -> Tensor:
        wanted = self.wanted[node]
        arguments = self._tensors(node)
        if wanted is None:
            # No user insists: what a neuron emits keeps its scale, the rest follows.
            fixed = [arg for arg in arguments if isinstance(self._replacement(arg), Spike)]
            wanted = self.out.scales[fixed[0] if fixed else arguments[0]]
        shape = self.record[node].shape
        if wanted.dim() and any(self.record[arg].shape != shape for arg in arguments):
            wanted = ONE
        for arg in arguments:
            self._bring(node, arg, wanted)
        return wanted

    def _rearranged(self, node: fx.Node) -> Any:
        arguments = self._tensors(node)
        if self._is_read_whole(node) or self._joins_constants(node):
            return self._in_units(node)
        scales = [self._scale(arg) for arg in arguments]
        if all(not scale.dim() and _same(scale, scales[0]) for scale in scales):
            return map_leaves(self.record[node], lambda leaf: scales[0])
        # The operation itself says where each scale goes.
        if not all(isinstance(self.record[arg], TensorRecord) for arg in arguments):
            return self._in_units(node)
        full = {arg: _broadcast(scale, self.record[arg].shape) for arg, scale in zip(arguments, scales, strict=True)}

        def value(leaf: Any) -> Any:
            if not isinstance(leaf, fx.Node):
                return leaf
            return full[leaf] if leaf in full else self.record[leaf]

        call = getattr(fx.Interpreter(self.module, garbage_collect_values=False), node.op)
        result = call(node.target, map_leaves(node.args, value), map_leaves(node.kwargs, value))
        result = map_tensors(result, _compressed)
        # Scales that differ between the samples of a batch would depend on the batch's size.
        moved = any(scale.dim() and scale.shape[0] != 1 for scale in tensors(result))
        return self._in_units(node) if moved else result

    def _in_units(self, node: fx.Node) -> Any:
        """Have `node` read and yield the ANN's units."""
        for arg in self._tensors(node):
            self._bring(node, arg, ONE)
        return map_leaves(self.record[node], lambda leaf: ONE)

    def _is_read_whole(self, node: fx.Node) -> bool:
        """True for several results that are not only picked from one by one."""
        if isinstance(self.record[node], TensorRecord):
            return False
        return any(not (self._picks(user) and isinstance(user.args[1], int)) for user in node.users)

    def _product(self, node: fx.Node, product: Product) -> Tensor:
        arguments = self._tensors(node)
        result = ONE
        for arg in arguments:
            scale = self.out.scales[arg]
            same_shape = self.record[arg].shape == self.record[node].shape
            if scale.dim() and not (product.elementwise and same_shape):
                self._bring(node, arg, ONE)
                scale = ONE
            divides = product.divisor is not None and len(node.args) > product.divisor
            if divides and node.args[product.divisor] is arg:  # type: ignore[index]
                scale = 1.0 / scale
            result = result * scale
        if len(arguments) == 1 and sum(1 for one in _leaves(node) if one is arguments[0]) > 1:
            # ``x * x`` of something static: the square's scale is not the value's.
            self._bring(node, arguments[0], ONE)
            return ONE
        return result

    # Helpers -----------------------------------------------------------------------------------

    def _bring(self, user: fx.Node, arg: fx.Node, wanted: Tensor) -> None:
        """Have `user` read `arg` in the scale `wanted`."""
        scale = self._scale(arg)
        if not _same(scale, wanted):
            self.out.scalers[user, arg] = scale / wanted

    def _scale(self, node: fx.Node) -> Tensor:
        """The scale of `node`; several results that are read as a whole are in the ANN's units."""
        scale: Any = self.out.scales[node]
        return scale if isinstance(scale, Tensor) else ONE

    def _tensors(self, node: fx.Node) -> list[fx.Node]:
        """The arguments that carry values which depend on the input."""
        return [
            arg
            for arg in node.all_input_nodes
            if self.plan.varies[arg] > Varies.CONSTANT and self.record.is_tensor(arg)
        ]

    def _sums_inputs(self, node: fx.Node) -> bool:
        """True if no operand is a parameter, which a scale would have to divide as well."""
        return all(self.plan.varies[one] > Varies.CONSTANT for one in _leaves(node))

    def _joins_constants(self, node: fx.Node) -> bool:
        """True if a parameter is among what is joined; it has the ANN's units."""
        return any(self.plan.varies[one] is Varies.CONSTANT and self.record.is_tensor(one) for one in _leaves(node))

    def _replacement(self, node: fx.Node) -> Replacement | None:
        decision = self.plan.decisions.get(node)
        return decision.replacement if decision else None

    def _picks(self, node: fx.Node) -> bool:
        source = node.args[0] if node.args else None
        return (
            node.target is operator.getitem
            and isinstance(source, fx.Node)
            and not isinstance(self.record[source], TensorRecord)
            and self.record.is_tensor(source)
        )


def _leaves(node: fx.Node) -> list[fx.Node]:
    """The arguments that are nodes, each as often as it is one."""
    return [leaf for leaf in leaves((node.args, node.kwargs)) if isinstance(leaf, fx.Node)]


def _broadcast(scale: Tensor, shape: tuple[int, ...]) -> Tensor:
    return scale.expand(shape).clone() if scale.dim() else scale.reshape((1,) * len(shape)).expand(shape).clone()


def _compressed(scale: Tensor) -> Tensor:
    """`scale` with every dimension along which it does not change shrunk to one."""
    for dim in range(scale.dim()):
        first = scale.narrow(dim, 0, 1)
        if scale.shape[dim] > 1 and bool((scale == first).all()):
            scale = first
    return scale.reshape(()) if scale.numel() == 1 else scale.contiguous()


def _per_channel(scale: Tensor) -> bool:
    return all(size == 1 for dim, size in enumerate(scale.shape) if dim != 1)


def _same(one: Tensor, other: Tensor) -> bool:
    if one is other:
        return True
    if not one.dim() and not other.dim():
        return bool(one == other)
    return one.shape == other.shape and bool((one == other).all())
