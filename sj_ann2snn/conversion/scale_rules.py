"""How scales pass through operations: a rule for every `ScaleFlow`."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from ..contracts.replacements import Analog, Product, ScaleFlow, Spike
from ..support.trees import map_leaves, map_tensors, tensors
from .carried_scales import ONE, CarriedScales, compressed, is_same, node_leaves
from .draft import Decision
from .graph.records import TensorRecord
from .graph.weights import channel_axis

__all__ = ["RULES", "ScaleRule"]


class ScaleRule(abc.ABC):
    """How nodes of one kind treat scales."""

    def wish(self, carried: CarriedScales, node: fx.Node, arg: fx.Node, decision: Decision) -> Tensor | None:
        """The scale in which `node` would read `arg` without a scaler; None if any scale will do."""
        return ONE

    @abc.abstractmethod
    def carry(self, carried: CarriedScales, node: fx.Node, decision: Decision) -> Any:
        """Bring the arguments of `node` to the scales that it needs; returns the scale of its result."""


class Stopped(ScaleRule):
    """The operation reads and returns values in the ANN's units."""

    def carry(self, carried: CarriedScales, node: fx.Node, decision: Decision) -> Any:
        return in_units(carried, node)


class Own(ScaleRule):
    """A neuron: its current and its output have its site's scale. An analog module in front reads the ANN's units."""

    def wish(self, carried: CarriedScales, node: fx.Node, arg: fx.Node, decision: Decision) -> Tensor | None:
        if _analog(decision):
            return ONE
        same = not (isinstance(decision.replacement, Spike) and decision.replacement.behind)
        return _wish_for(carried, carried.units[node], node, arg, elementwise=same)

    def carry(self, carried: CarriedScales, node: fx.Node, decision: Decision) -> Tensor:
        for arg in carried.draft.inputs(node):
            wish = self.wish(carried, node, arg, decision)
            carried.bring(node, arg, ONE if wish is None else wish)
        return carried.units[node]


class Folded(ScaleRule):
    """Weights absorb both scales: W' = W · s_in / s_out, b' = b / s_out."""

    def wish(self, carried: CarriedScales, node: fx.Node, arg: fx.Node, decision: Decision) -> Tensor | None:
        return None

    def carry(self, carried: CarriedScales, node: fx.Node, decision: Decision) -> Tensor:
        record = carried.draft.record
        layer = carried.draft.module.get_submodule(str(node.target))
        (arg,) = carried.draft.inputs(node)
        incoming = _along_channels(layer, carried.scales[arg], len(record[arg].shape))
        if incoming is None:
            carried.bring(node, arg, ONE)
            incoming = ONE
        wanted = carried.wanted[node]
        outgoing = None if wanted is None else _along_channels(layer, wanted, len(record[node].shape))
        if wanted is None or outgoing is None:
            wanted, outgoing = ONE, ONE
        carried.folds[node] = (incoming, 1.0 / outgoing)
        return wanted


class Unchanged(ScaleRule):
    """The result is the input."""

    def wish(self, carried: CarriedScales, node: fx.Node, arg: fx.Node, decision: Decision) -> Tensor | None:
        return carried.wanted[node]

    def carry(self, carried: CarriedScales, node: fx.Node, decision: Decision) -> Any:
        return carried.scales[node.all_input_nodes[0]]


class PerChannel(ScaleRule):
    """Scales per channel pass, whatever the operation does to the other dimensions."""

    def wish(self, carried: CarriedScales, node: fx.Node, arg: fx.Node, decision: Decision) -> Tensor | None:
        return _wish_for(carried, carried.wanted[node], node, arg)

    def carry(self, carried: CarriedScales, node: fx.Node, decision: Decision) -> Tensor:
        arg = carried.draft.inputs(node)[0]
        scale: Tensor = carried.scales[arg]
        passed = carried.carried_over(scale, arg, node)
        if passed is None:
            carried.bring(node, arg, ONE)
            return ONE
        return passed


class Shared(ScaleRule):
    """All operands are brought to one scale."""

    def wish(self, carried: CarriedScales, node: fx.Node, arg: fx.Node, decision: Decision) -> Tensor | None:
        return _wish_for(carried, carried.wanted[node], node, arg, elementwise=True)

    def carry(self, carried: CarriedScales, node: fx.Node, decision: Decision) -> Tensor:
        wanted = carried.wanted[node]
        arguments = carried.draft.inputs(node)
        if wanted is None:
            # Any scale will do: a neuron's output keeps its scale, and the other operands follow.
            fixed = [arg for arg in arguments if arg in carried.units]
            wanted = carried.scale_of(fixed[0] if fixed else arguments[0])
        shape = carried.draft.record[node].shape
        if wanted.dim() and any(carried.draft.record[arg].shape != shape for arg in arguments):
            wanted = ONE
        for arg in node.all_input_nodes:
            # A constant operand is divided by the scale as well, once instead of at every step.
            carried.bring(node, arg, wanted)
        return wanted


class Moved(ScaleRule):
    """Every scale moves along with its element."""

    def wish(self, carried: CarriedScales, node: fx.Node, arg: fx.Node, decision: Decision) -> Tensor | None:
        return ONE if carried.joins_constants(node) else _scalar(carried.wanted[node])

    def carry(self, carried: CarriedScales, node: fx.Node, decision: Decision) -> Any:
        record, arguments = carried.draft.record, carried.draft.inputs(node)
        if _is_read_whole(carried, node) or carried.joins_constants(node):
            return in_units(carried, node)
        scales = [carried.scale_of(arg) for arg in arguments]
        if all(not scale.dim() and is_same(scale, scales[0]) for scale in scales):
            return map_leaves(record[node], lambda leaf: scales[0])
        if not all(isinstance(record[arg], TensorRecord) for arg in arguments):
            return in_units(carried, node)
        full = {arg: _broadcast(scale, record[arg].shape) for arg, scale in zip(arguments, scales, strict=True)}
        result = map_tensors(
            _apply_to_scales(carried, node, full), lambda scale: compressed(_filled(scale, carried.wanted[node]))
        )
        # Scales that differ between samples would depend on the batch's size, between steps in time on their number.
        fixed = all(carried.draft.channels.is_fixed(node, _varies_along(scale)) for scale in tensors(result))
        return result if fixed else in_units(carried, node)


class Multiplied(ScaleRule):
    """The scales of the operands are multiplied, or divided."""

    def wish(self, carried: CarriedScales, node: fx.Node, arg: fx.Node, decision: Decision) -> Tensor | None:
        return _scalar(carried.wanted[node])

    def carry(self, carried: CarriedScales, node: fx.Node, decision: Decision) -> Tensor:
        product, record = decision.replacement, carried.draft.record
        assert isinstance(product, Product)
        arguments = carried.draft.inputs(node)
        result = ONE
        for arg in arguments:
            scale = carried.scale_of(arg)
            same_shape = record[arg].shape == record[node].shape
            if scale.dim() and not (product.elementwise and same_shape):
                carried.bring(node, arg, ONE)
                scale = ONE
            divides = product.divisor is not None and len(node.args) > product.divisor
            if divides and node.args[product.divisor] is arg:  # type: ignore[index]
                scale = 1.0 / scale
            result = result * scale
        if len(arguments) == 1 and sum(one is arguments[0] for one in node_leaves(node)) > 1:
            # ``x * x`` of a static value: the square would need the squared scale.
            carried.bring(node, arguments[0], ONE)
            return ONE
        return result


RULES: dict[ScaleFlow, ScaleRule] = {
    ScaleFlow.OWN: Own(),
    ScaleFlow.FOLDED: Folded(),
    ScaleFlow.UNCHANGED: Unchanged(),
    ScaleFlow.PER_CHANNEL: PerChannel(),
    ScaleFlow.SHARED: Shared(),
    ScaleFlow.MOVED: Moved(),
    ScaleFlow.MULTIPLIED: Multiplied(),
    ScaleFlow.STOPPED: Stopped(),
}


def in_units(carried: CarriedScales, node: fx.Node) -> Any:
    """Let `node` read values in the ANN's units; the scale of its result is then one."""
    for arg in carried.draft.inputs(node):
        carried.bring(node, arg, ONE)
    return map_leaves(carried.draft.record[node], lambda leaf: ONE)


def _analog(decision: Decision) -> Analog | None:
    return decision.replacement.analog if isinstance(decision.replacement, Spike) else None


def _varies_along(scale: Tensor) -> frozenset[int]:
    return frozenset(dim for dim, size in enumerate(scale.shape) if size > 1)


def _shape(carried: CarriedScales, node: fx.Node) -> tuple[int, ...] | None:
    found = carried.draft.tensor(node)
    return None if found is None else found.shape


def _wish_for(
    carried: CarriedScales, scale: Tensor | None, node: fx.Node, arg: fx.Node, *, elementwise: bool = False
) -> Tensor | None:
    """The scale of `arg` for which the result of `node` has `scale`."""
    if scale is None or (elementwise and _shape(carried, arg) == _shape(carried, node)):
        return scale
    return carried.carried_over(scale, node, arg)


def _scalar(scale: Tensor | None) -> Tensor | None:
    return scale if scale is not None and not scale.dim() else None


def _along_channels(layer: Any, scale: Tensor, ndim: int) -> Tensor | None:
    """The scale as a vector over the layer's channels; None if it varies along other dimensions."""
    if not scale.dim():
        return scale
    axis = channel_axis(layer, ndim)
    if any(size != 1 for dim, size in enumerate(scale.shape) if dim != axis):
        return None
    return scale.flatten() if scale.shape[axis] > 1 else scale.reshape(())


def _is_read_whole(carried: CarriedScales, node: fx.Node) -> bool:
    """True for a tuple of results that some user reads as a whole."""
    if isinstance(carried.draft.record[node], TensorRecord):
        return False
    return any(not (carried.picks(user) and isinstance(user.args[1], int)) for user in node.users)


def _apply_to_scales(carried: CarriedScales, node: fx.Node, scales: Mapping[fx.Node, Tensor]) -> Any:
    """Run the operation of `node` on scales instead of values."""

    def value(leaf: Any) -> Any:
        if not isinstance(leaf, fx.Node):
            return leaf
        return scales[leaf] if leaf in scales else carried.draft.record[leaf]

    call = getattr(fx.Interpreter(carried.draft.module, garbage_collect_values=False), node.op)
    return call(node.target, map_leaves(node.args, value), map_leaves(node.kwargs, value))


def _filled(scale: Tensor, wanted: Tensor | None) -> Tensor:
    """A scale for zeros that are padded, where none has moved to: any is right, that of the users needs no scaler."""
    padded = scale == 0
    if not bool(padded.any()):
        return scale
    fits = wanted is not None and wanted.dim() in (0, scale.dim())
    return torch.where(padded, wanted if fits and wanted is not None else ONE, scale)


def _broadcast(scale: Tensor, shape: tuple[int, ...]) -> Tensor:
    return scale.expand(shape).clone() if scale.dim() else scale.reshape((1,) * len(shape)).expand(shape).clone()
