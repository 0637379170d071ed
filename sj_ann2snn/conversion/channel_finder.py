"""Stage: finds out which channel every element of every value belongs to.

The channels of a result follow from the operation: layers make new ones, in dimension 1 (convolutions) or in the last
(`nn.Linear`); other operations keep, move or mix those of their operands. Descriptions may state it. Operations that
move elements are run on the numbers of the channels, and linear operations that torch does not know are tried.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ..contracts.replacements import Replacement, ScaleFlow, Spike
from ..contracts.site import Varies
from ..errors import PluginError
from ..support.trees import leaves, map_leaves
from .draft import Decision, Draft
from .graph.channel_map import ChannelMap
from .graph.channel_products import attention, einsum, matmul
from .graph.channel_trial import followed
from .graph.channels import Channels, joined, labelled, new_channels
from .graph.torch_channels import ChannelRule, rule_of
from .graph.weights import channel_axis, foldable

__all__ = ["find_channels"]


def find_channels(draft: Draft) -> Draft:
    """Find the channels of all values.

    Args:
        draft: Planned.

    Returns:
        The draft with `channels`.

    Raises:
        PluginError: A mapper states a dimension that a result does not have.
    """
    finder = _Finder(draft)
    with torch.no_grad():
        finder.run(*(value.clone() if isinstance(value, Tensor) else value for value in draft.samples))
    return draft.evolve(channels=ChannelMap(draft.module, draft.samples, draft.record, finder.channels))


class _Finder(fx.Interpreter):
    """Runs the ANN on samples, and at each node finds the channels of its result."""

    def __init__(self, draft: Draft) -> None:
        super().__init__(draft.module)
        self.extra_traceback = False
        self.draft = draft
        self.channels: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.channels[n] = self._find(n, result)
        return result

    def _find(self, node: fx.Node, result: Any) -> Any:
        decision = self.draft.plan.decisions.get(node)
        if decision is None:
            return self._picked(node)
        stated = _stated(decision.replacement)
        if isinstance(stated, int):
            return _new(decision, stated, result)
        if stated is not None:
            return self._kept(node, result)
        rule = rule_of(decision.site.operation)
        if rule is not None:
            return self._by_rule(node, decision, rule, result)
        return None if decision.replacement is None else self._by_kind(node, decision, decision.replacement, result)

    def _picked(self, node: fx.Node) -> Any:
        """The channels of one of several results, as in ``chunks[0]``."""
        source = node.args[0] if node.args else None
        several = self.channels.get(source) if isinstance(source, fx.Node) else None
        index = node.args[1] if len(node.args) > 1 else None
        return several[index] if isinstance(several, (tuple, list)) and isinstance(index, (int, slice)) else None

    def _by_rule(self, node: fx.Node, decision: Decision, rule: ChannelRule, result: Any) -> Any:
        """The channels behind one of torch's operations."""
        site = decision.site
        if rule is ChannelRule.NORMALIZED:
            normalized = site.argument("normalized_shape", 1, ())
            rule = ChannelRule.LAST if not isinstance(normalized, (tuple, list)) or len(normalized) == 1 else rule
        if rule in (ChannelRule.FIRST, ChannelRule.LAST):
            return _new(decision, 1 if rule is ChannelRule.FIRST else -1, result)
        if not isinstance(result, Tensor):
            return None
        operands = [leaf for leaf in leaves((node.args, node.kwargs)) if self._is_tensor(leaf)]
        values = [(self.env[arg], self._of(arg), self._is_constant(arg)) for arg in operands]
        if rule is ChannelRule.MATMUL:
            return matmul(result.shape, *values[:2]) if len(values) == 2 else None
        if rule is ChannelRule.EINSUM:
            return einsum(result.shape, node.args[0], values)
        if rule is ChannelRule.ATTENTION:
            return attention(result.shape, values[2][1] if len(values) > 2 else None)
        if rule is ChannelRule.GATED:
            return self._gated(operands[0], int(site.argument("dim", 1, -1)), result)
        if rule is ChannelRule.REDUCED:
            position = 2 if "norm" in site.operation_name else 1
            dims = site.argument("dim", position, site.kwargs.get("axis"))
            return self._reduced(operands[0], dims, result)
        return self._kept(node, result)

    def _by_kind(self, node: fx.Node, decision: Decision, replacement: Replacement, result: Any) -> Any:
        """The channels behind an operation that is known by its mapper's description only."""
        flow = replacement.scale_flow
        if isinstance(replacement, Spike) and replacement.behind:
            flow = ScaleFlow.PER_CHANNEL if replacement.keep else ScaleFlow.STOPPED
        if flow is ScaleFlow.MOVED:
            return self._moved(node, result)
        if flow is ScaleFlow.FOLDED:
            return _weighted(decision, result)
        if flow is ScaleFlow.PER_CHANNEL:
            return self._pooled(node, result)
        if flow is ScaleFlow.STOPPED:
            return self._tried(node, replacement) if _is_linear(replacement) else None
        return self._kept(node, result)

    def _kept(self, node: fx.Node, result: Any) -> Channels | None:
        found = [channels for arg in node.all_input_nodes if (channels := self._of(arg)) is not None]
        return joined(result.shape, found) if isinstance(result, Tensor) else None

    def _moved(self, node: fx.Node, result: Any) -> Any:
        """Run an operation that moves elements on the numbers of their channels."""
        shapes = set()

        def numbers(leaf: Any) -> Any:
            value = self.env[leaf] if isinstance(leaf, fx.Node) else leaf
            if not isinstance(leaf, fx.Node) or not isinstance(value, Tensor):
                return value
            channels = self._of(leaf)
            if channels is not None:
                shapes.add((tuple(value.shape), channels.axis))
                return channels.expanded(value.shape).to(value.device)
            return torch.full(value.shape, torch.nan, dtype=torch.float64, device=value.device)

        moved = self._call(node, numbers)
        if moved is None or not shapes:
            return None

        def found(one: Any) -> Any:
            if not isinstance(one, Tensor) or one.dtype != torch.float64:
                return None
            shape, axis = next(iter(shapes))
            return labelled(one, axis if len(shapes) == 1 and shape == tuple(one.shape) else None)

        return map_leaves(moved, found)

    def _pooled(self, node: fx.Node, result: Any) -> Any:
        """The operation does not mix dimensions 0 and 1; whether it mixes others is tried."""
        first = self.draft.inputs(node)[0]
        channels, value = self._of(first), self.env[first]
        if channels is None or not isinstance(result, Tensor):
            return None
        if channels.axis == 1 and result.dim() > 1 and result.shape[1] == value.shape[1]:
            labels = channels.labels.flatten()
            return Channels(labels.reshape(1, -1, *(1,) * (result.dim() - 2)), 1)

        def run(x: Tensor) -> Any:
            return self._call(node, lambda leaf: x if leaf is first else self._value(leaf))

        return followed(run, value, channels)

    def _tried(self, node: fx.Node, replacement: Replacement) -> Any:
        """Try a linear operation on each of its operands, with the others zero."""
        tensors = [leaf for leaf in leaves((node.args, node.kwargs)) if self._is_tensor(leaf)]
        allowed = getattr(replacement, "varying", None)
        operands = {
            leaf: self.env[leaf]
            for position, leaf in enumerate(tensors)
            if not self._is_constant(leaf) and (allowed is None or position in allowed)
        }
        if not operands or not all(value.is_floating_point() for value in operands.values()):
            return None
        found = []
        for operand, value in operands.items():
            channels = self._of(operand)
            if channels is None:
                return None

            def run(x: Tensor, operand: fx.Node = operand) -> Any:
                def argument(leaf: Any) -> Any:
                    if leaf is operand:
                        return x
                    return torch.zeros_like(operands[leaf]) if leaf in operands else self._value(leaf)

                return self._call(node, argument)

            found.append(followed(run, value, channels))
        if len(found) == 1:
            return found[0]
        if not all(isinstance(one, Channels) for one in found):
            return None
        return joined(tuple(self.draft.record[node].shape), found)

    def _gated(self, operand: fx.Node, dim: int, result: Tensor) -> Channels | None:
        channels = self._of(operand)
        if channels is None:
            return None
        halves = channels.expanded(self.env[operand].shape).chunk(2, dim)
        return joined(result.shape, [one for half in halves if (one := labelled(half)) is not None])

    def _reduced(self, operand: fx.Node, dims: Any, result: Tensor) -> Channels | None:
        channels, value = self._of(operand), self.env[operand]
        given = [dims] if isinstance(dims, int) and not isinstance(dims, bool) else dims
        if channels is None or not isinstance(given, (list, tuple)) or not given:
            return None
        reduced = frozenset(dim % value.dim() for dim in given)
        kept = [dim for dim in range(value.dim()) if dim not in reduced or result.dim() == value.dim()]
        if channels.dimensions and channels.dimensions <= reduced:
            return Channels(torch.zeros((1,) * result.dim(), dtype=torch.long), None)
        if channels.dimensions & reduced or len(kept) != result.dim():
            return None
        labels = channels.labels.reshape([channels.labels.shape[dim] for dim in kept])
        return Channels(labels, kept.index(channels.axis) if channels.axis in kept else None)

    def _of(self, node: fx.Node) -> Channels | None:
        found = self.channels.get(node)
        return found if isinstance(found, Channels) else None

    def _value(self, leaf: Any) -> Any:
        return self.env[leaf] if isinstance(leaf, fx.Node) else leaf

    def _is_tensor(self, leaf: Any) -> bool:
        return isinstance(leaf, fx.Node) and isinstance(self.env[leaf], Tensor)

    def _is_constant(self, node: fx.Node) -> bool:
        return self.draft.plan.varies[node] is Varies.CONSTANT

    def _call(self, node: fx.Node, argument: Any) -> Any:
        """Run the node's operation on other arguments; None if it does not take them."""
        call = getattr(self, node.op)
        try:
            return call(node.target, map_leaves(node.args, argument), map_leaves(node.kwargs, argument))
        except Exception:  # any operation, of anyone, on values that it may not be made for
            return None


def _stated(replacement: Replacement | None) -> Any:
    if isinstance(replacement, Spike) and replacement.channel_axis is None and replacement.analog is not None:
        return replacement.analog.channel_axis
    return None if replacement is None else replacement.channel_axis


def _new(decision: Decision, axis: int, result: Any) -> Any:
    """New channels of the result, or of the first of several."""
    several = isinstance(result, (tuple, list))
    first = result[0] if several and result else result
    if not isinstance(first, Tensor) or first.dim() < 2:
        return None
    if not -first.dim() < axis < first.dim() or axis == 0:
        raise PluginError(
            f"Mapper {decision.mapper!r} ({decision.owner}) states channel_axis={axis} for {decision.site.name} "
            f"({decision.site.operation_name}), whose result has shape {tuple(first.shape)}; it must name a dimension "
            "of the result other than that of the samples, 0."
        )
    found = new_channels(first.shape, axis)
    return (found, *(None for _ in result[1:])) if several else found


def _weighted(decision: Decision, result: Any) -> Channels | None:
    """A layer of this package, or one with a weight laid out as in `nn.Linear` or in a convolution."""
    layer = decision.site.module
    if layer is not None and foldable(layer) and isinstance(result, Tensor):
        return new_channels(result.shape, channel_axis(layer, result.dim()))
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or not isinstance(result, Tensor) or result.dim() < 2 or not weight.dim():
        return None
    axis = -1 if weight.dim() == 2 else 1
    return new_channels(result.shape, axis) if result.shape[axis] == weight.shape[0] else None


def _is_linear(replacement: Replacement) -> bool:
    """True unless a module with memory replaces the operation, which only an operation that is not linear needs."""
    return type(replacement).module_with_memory is Replacement.module_with_memory
