"""An affine map per channel, and what becomes of it behind an operation.

Behind ``y = factor * x + shift``, an operation L that is linear and keeps channels apart yields
``factor * L(x) + shift * L(1)``. L(1), the mask, does not depend on the data. It is one everywhere behind means,
interpolation and reshaping; zero padding makes it zero at the border. A max pool lets the map pass where the factor is
positive; where it is negative, it becomes a min pool, which is a max pool between two changes of sign.

Whether an operation lets the map pass is not taken from its description alone but tried on random values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..contracts.replacements import Average, Rearrange, Remove, Replacement, Spike, Stateful
from ..support.shapes import along_axis
from ..support.trees import leaves, map_leaves, map_tensors
from .carried_scales import compressed, is_per_channel
from .draft import Draft
from .graph.records import TensorRecord

__all__ = ["Affine", "Mask", "Passage", "is_close", "sample_of"]

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Allowed relative error of a trial, by dtype."""


@dataclass(frozen=True)
class Mask:
    """What linear operations make of a map of ones with a single channel.

    Attributes:
        start: The node whose height, width and so on the map of ones has.
        operations: The operations that it goes through, in order.
        value: The result for the draft's samples, ``[1, 1, ...]``.
    """

    start: fx.Node
    operations: tuple[fx.Node, ...]
    value: Tensor


@dataclass(frozen=True)
class Affine:
    """An affine map on its way: a value of the ANN is ``factor * x + shift * mask``, and x stands in its place.

    Attributes:
        factor: float64, of the value's rank with a first dimension of one, or a scalar; for several results, a tuple.
        shift: Likewise.
        mask: None for ones.
    """

    factor: Any
    shift: Any
    mask: Mask | None = None

    def applied(self, x: Tensor) -> Tensor:
        """The ANN's value for `x`."""
        shift = self.shift if self.mask is None else self.shift * self.mask.value
        value: Tensor = self.factor * x + shift
        return value.to(x.dtype)


class Passage:
    """One operation, and the affine maps in front of some of its arguments.

    Args:
        draft: Planned.
        node: The operation.
        given: The maps, by argument.
        signs: Receives the signs that a max pool needs.
    """

    def __init__(
        self, draft: Draft, node: fx.Node, given: Mapping[fx.Node, Affine], signs: dict[fx.Node, Tensor]
    ) -> None:
        self.draft, self.node, self.given, self.signs = draft, node, given, signs

    def through(self, replacement: Replacement | None) -> Affine | None:
        """The map behind the operation; None if it cannot pass."""
        if isinstance(replacement, Rearrange):
            return self._moved()
        source = self.node.all_input_nodes[0]
        arriving = self.given.get(source)
        if arriving is None or len(self.given) > 1:
            return None
        if isinstance(replacement, Remove):
            return arriving
        if isinstance(replacement, Average):
            made = None if replacement.make is None else replacement.make()
            return self._averaged(source, arriving, made)
        if isinstance(replacement, Stateful):
            return self._pooled(source, arriving)
        if isinstance(replacement, Spike) and replacement.keep and not replacement.two_sided:
            # The neuron fires for the average of x, which is not negative, instead of that of y, which may be.
            return self._averaged(source, arriving, None) if self._is_positive(source) else None
        return None

    def _moved(self) -> Affine | None:
        """Every factor and shift moves along with its element."""
        if any(affine.mask is not None for affine in self.given.values()):
            return None

        def result(fill: float, part: str) -> Any:
            def value(source: fx.Node) -> Any:
                if source not in self.given:
                    return map_leaves(self.draft.record[source], lambda leaf: _filled(leaf, fill))
                values = getattr(self.given[source], part)
                return _expanded(values, self.draft.record[source])

            return map_tensors(self._run(value), compressed)

        factor, shift = result(1.0, "factor"), result(0.0, "shift")
        # Values that differ between the samples of a batch would depend on the batch's size.
        mixed = any(one.dim() and one.shape[0] != 1 for one in leaves((factor, shift)))
        return None if mixed else Affine(factor, shift)

    def _averaged(self, source: fx.Node, arriving: Affine, made: nn.Module | None) -> Affine | None:
        """A linear operation that keeps channels apart."""
        factor, shift = self._reranked(arriving.factor), self._reranked(arriving.shift)
        if factor is None or shift is None:
            return None
        record = self.draft.record[source]
        before = arriving.mask or Mask(source, (), torch.ones(1, 1, *record.shape[2:], dtype=record.dtype))
        behind = self._tried(before.value, made)
        if behind is None:
            return None
        passed = Affine(factor, shift)
        if arriving.mask is not None or not self._keeps_ones(before.value, made):
            if made is not None or hasattr(self._layer(), "step_mode"):
                return None  # the operation as it stands cannot run once more, on the mask
            passed = Affine(factor, shift, Mask(before.start, (*before.operations, self.node), behind))
        x = sample_of(record)
        got, plain = self._tried(arriving.applied(x), made), self._tried(x, made)
        return passed if got is not None and plain is not None and is_close(got, passed.applied(plain)) else None

    def _keeps_ones(self, ones: Tensor, made: nn.Module | None) -> bool:
        """True if a map of ones stays one, at every size."""
        if len(self.node.all_input_nodes) > 1 and made is None:
            return False  # an argument is a size: padding up to a multiple of it, which may have been none here
        larger = torch.ones([1, 1, *(size + 1 for size in ones.shape[2:])], dtype=ones.dtype)
        results = [self._tried(one, made) for one in (ones, larger)]
        return all(one is not None and is_close(one, torch.ones_like(one)) for one in results)

    def _pooled(self, source: fx.Node, arriving: Affine) -> Affine | None:
        """A max pool."""
        factor, shift = self._reranked(arriving.factor), self._reranked(arriving.shift)
        if factor is None or shift is None or arriving.mask is not None:
            return None
        record = self.draft.record[source]
        signs = torch.where(arriving.factor < 0, -1.0, 1.0)
        behind = torch.where(factor < 0, -1.0, 1.0)
        passed, x = Affine(factor, shift), sample_of(record)
        got, plain = self._tried(arriving.applied(x)), self._tried((signs * x).to(record.dtype))
        if got is None or plain is None or not is_close(got, passed.applied((behind * plain).to(record.dtype))):
            return None
        if bool((signs < 0).any()):
            self.signs[self.node] = signs
        return passed

    def _is_positive(self, source: fx.Node) -> bool:
        """True if `source` is the affine map itself, right behind a neuron that fires for positive currents only."""
        spike = self.draft.plan.spikes.get(source.all_input_nodes[0])
        return spike is not None and not spike.two_sided

    def _reranked(self, values: Tensor) -> Tensor | None:
        """Values per channel in front of the operation for its result; None if they are not per channel there."""
        if not isinstance(values, Tensor):
            return None
        if not values.dim():
            return values
        found = self.draft.tensor(self.node)
        if found is None or not is_per_channel(values) or len(found.shape) < 2 or found.shape[1] != values.shape[1]:
            return None
        return along_axis(values.flatten(), len(found.shape), 1)

    def _tried(self, value: Tensor, made: nn.Module | None = None) -> Tensor | None:
        """What the operation, or `made` in its place, yields for `value`; None if it does not take that."""
        try:
            with torch.no_grad():
                value = value.to(self.draft.device)
                result = self._run(lambda source: value) if made is None else made(value)
        except Exception:
            return None  # a plugin's layer, which may take nothing but the calibrated shape
        return result.cpu() if isinstance(result, Tensor) else None

    def _layer(self) -> nn.Module | None:
        return self.draft.module.get_submodule(str(self.node.target)) if self.node.op == "call_module" else None

    def _run(self, value: Any) -> Any:
        """The operation on other tensors; `value` returns them, sizes are those of the record."""

        def argument(leaf: Any) -> Any:
            if not isinstance(leaf, fx.Node):
                return leaf
            return value(leaf) if self.draft.record.is_tensor(leaf) else self.draft.record[leaf]

        call = getattr(fx.Interpreter(self.draft.module, garbage_collect_values=False), self.node.op)
        return call(self.node.target, map_leaves(self.node.args, argument), map_leaves(self.node.kwargs, argument))


def _filled(leaf: Any, fill: float) -> Any:
    return torch.full(leaf.shape, fill, dtype=torch.float64) if isinstance(leaf, TensorRecord) else leaf


def _expanded(values: Any, record: Any) -> Any:
    """Factors or shifts, one for every element of what `record` describes."""
    if isinstance(record, TensorRecord):
        return values.expand(record.shape).clone()
    return type(record)(_expanded(one, other) for one, other in zip(values, record, strict=True))


def sample_of(record: TensorRecord) -> Tensor:
    """Random values from 0 to 1, for a trial."""
    return torch.rand(record.shape, dtype=record.dtype, generator=torch.Generator().manual_seed(0))


def is_close(one: Tensor, other: Tensor) -> bool:
    """True if the results of a trial have one shape and differ by no more than rounding explains."""
    if one.shape != other.shape:
        return False
    error = (one.double() - other.double()).norm()
    return bool(error <= TOLERANCE.get(one.dtype, 1e-4) * (1e-12 + other.double().norm().item()))
