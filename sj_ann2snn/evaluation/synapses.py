"""Which calls of a network multiply spikes by weights, and how many synaptic operations each costs.

Synaptic operations are counted for layers, and for functions and methods of the same kind: each nonzero element of the
operand that varies over time costs one for every output that it is multiplied into. Scaling single elements by a factor
costs nothing (it folds into weights or thresholds), nor does pooling. What multiplies by weights in a way that is not
known here is *not counted*, and an evaluation names it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from ..compat import MemoryModule
from ..layers.stepwise import call_operation
from ..simulation.engine import Call, Packed
from ..support.trees import map_leaves, map_tensors, tensors
from .activity import Connections, connections, fan_out

__all__ = ["OWN_LAYERS", "Synapses", "operation_name"]

LAYERS = (nn.Linear, nn.Bilinear, _ConvNd)
"""Layers whose connections follow from their geometry."""

WEIGHTED = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
"""Functions of an input and a weight, in this order."""

PRODUCTS = (
    "bilinear",
    "bmm",
    "chain_matmul",
    "dot",
    "einsum",
    "inner",
    "kron",
    "matmul",
    "mm",
    "multi_dot",
    "mv",
    "outer",
    "tensordot",
    "vdot",
)
"""Functions and methods that are products of their operands."""

ELEMENTWISE = ("mul", "multiply")
"""Products of single elements. Where one operand is repeated along the other, its elements have several connections."""

OPAQUE = (
    "addbmm",
    "addmm",
    "addmv",
    "addr",
    "baddbmm",
    "cdist",
    "conv_tbc",
    "embedding_bag",
    "gru",
    "gru_cell",
    "lstm",
    "lstm_cell",
    "multi_head_attention_forward",
    "_native_multi_head_attention",
    "_transformer_encoder_layer_fwd",
    "rnn_relu",
    "rnn_relu_cell",
    "rnn_tanh",
    "rnn_tanh_cell",
    "scaled_dot_product_attention",
)
"""Functions that multiply by weights, or two streams by each other, and are not counted."""

TORCHS = ("torch", "_operator", "builtins", "NoneType")
"""Homes of functions that are known: what is not named above has no synapses."""

HARMLESS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.PReLU)
"""Layers whose parameters scale single elements."""

OWN_LAYERS = "sj_ann2snn.layers"
"""Where the core's own layers are: they scale, pool and reshape."""

Cache = Callable[[Hashable, Callable[[], Connections]], Connections]
"""Returns the value of a key, after making it if it is new."""


class Synapses:
    """Counts the synaptic operations of the calls of one tile.

    Args:
        remember: Keeps the connections of a layer, which are the same in every tile.
        steps: Number of steps.

    Attributes:
        over_time: The number of synaptic operations at every step.
        layers: The number of synaptic operations by the name of the layer, or of the layer that calls the function.
        not_counted: Names of the layers with synapses that are not counted, with their kind.
    """

    def __init__(self, remember: Cache, steps: int) -> None:
        self.over_time = [0.0] * steps
        self.layers: dict[str, float] = {}
        self.not_counted: dict[str, None] = {}
        self._remember = remember
        self._first = 0

    def add(self, call: Call, first: int) -> None:
        """Count one call, whose values begin at the step `first`, counted from zero."""
        self._first = first
        module = call.operation
        if not isinstance(module, nn.Module):
            self._function(call, module, (call.args, call.kwargs))
        elif not call.over_time:
            return  # what a module does is shown as its own calls of functions
        elif isinstance(module, LAYERS):
            self._layer(call, module)
        elif hasattr(module, "operation") and hasattr(module, "sequences"):
            self._stepwise(call, module)
        elif _has_weights(module):
            self._skip(call.name, module)

    def _layer(self, call: Call, module: nn.Module) -> None:
        """A layer whose geometry is known."""
        if len(call.varying) != 1 or not isinstance(call.result, Tensor):
            self._skip(call.name, module)
            return
        packed = next((x for x in call.args if isinstance(x, Packed)), None)
        x = tensors((call.args, call.kwargs))[call.varying[0]] if packed is None else packed.stand_in()
        y = call.result
        key = call.name, call.varying, tuple(x.shape[2:]), tuple(y.shape[2:])
        given = x if packed is None else packed
        self._count(call.name, given, key, lambda: fan_out(module, torch.zeros_like(x[0, :1]), y[0, :1]))

    def _stepwise(self, call: Call, module: Any) -> None:
        """An operation of the ANN in a converted network."""
        operation = module.operation
        if isinstance(module, MemoryModule):  # it works on running means, not on spikes
            if (
                operation_name(operation) in (*WEIGHTED, *PRODUCTS, *OPAQUE)
                or _has_weights(operation)
                or _is_foreign(call, operation)
            ):
                self._skip(call.name, operation)
        elif isinstance(operation, LAYERS):
            self._layer(call, operation)
        elif isinstance(operation, nn.Module):
            if _has_weights(operation):
                self._skip(call.name, operation)
        else:
            counts = operation_name(operation) in (*WEIGHTED, *PRODUCTS, *ELEMENTWISE)
            call = replace(call, args=_unpacked(call.args, counts), kwargs=_unpacked(call.kwargs, counts))
            one = _one_sample(call, module.sequences)
            # What a size with time and samples made is as long as they are, but no sequence: a repeated weight.
            varying = tuple(position for position in call.varying if position in module.sequences)
            self._function(replace(call, varying=varying), operation, one)

    def _function(self, call: Call, operation: Any, arguments: tuple[Any, Any]) -> None:
        """A function, or a method of tensors, with the arguments from which its connections follow."""
        name = operation_name(operation)
        if _is_foreign(call, operation) or name in OPAQUE:
            self._skip(call.name, operation)
        if name not in (*WEIGHTED, *PRODUCTS, *ELEMENTWISE):
            return
        if name in ELEMENTWISE and (len(call.varying) != 1 or not _repeats(call)):
            return
        if len(call.varying) != 1 or (name in WEIGHTED and call.varying[0] != _input_position(call)):
            self._skip(call.name, operation)
            return
        (position,), (args, kwargs) = call.varying, arguments
        x = tensors((call.args, call.kwargs))[position]
        key = call.name, name, position, tuple(tuple(value.shape) for value in tensors(arguments))

        def make() -> Tensor:
            called = partial(call_operation, operation)
            found = connections(called, args, kwargs, position, shared=name == "bilinear")
            return found[0] if call.over_time else found

        # A network that runs step by step may have moved the samples anywhere: all of them count as one.
        self._count(call.name, x if call.over_time else x[None, None], key, make)

    def _count(self, name: str, x: Tensor | Packed, key: Hashable, make: Callable[[], Tensor]) -> None:
        """Count the operations of the elements ``[t, n, ...]``."""
        found = self._remember(key, lambda: Connections.of(make())).operations(x)
        for step, count in enumerate(found, self._first):
            self.over_time[step] += count
        self.layers[name] = self.layers.get(name, 0.0) + sum(found)

    def _skip(self, name: str, operation: Any) -> None:
        kind = type(operation).__name__ if isinstance(operation, nn.Module) else _label(operation)
        self.not_counted[f"{name} ({kind})" if name else kind] = None


def operation_name(operation: Any) -> str | None:
    """``matmul`` for every way to write a matrix product; None for a module."""
    if isinstance(operation, nn.Module):
        return None
    return _label(operation).strip("_") if not _label(operation).startswith("_native") else _label(operation)


def _label(operation: Any) -> str:
    return operation if isinstance(operation, str) else getattr(operation, "__name__", type(operation).__name__)


def _is_foreign(call: Call, operation: Any) -> bool:
    """True for a function from outside torch that receives matrices which may be weights."""
    if isinstance(operation, (str, nn.Module)):
        return False
    home = getattr(operation, "__module__", None) or "torch"
    if home.partition(".")[0] in TORCHS:
        return False
    others = [x for position, x in enumerate(tensors((call.args, call.kwargs))) if position not in call.varying]
    return any(_is_matrix(x) for x in others)


def _is_matrix(x: Tensor) -> bool:
    """True for a tensor that extends along more than one dimension: more than one factor per channel."""
    return x.is_floating_point() and sum(size > 1 for size in x.shape) > 1


def _has_weights(module: Any) -> bool:
    """True for a module that may multiply by weights: it, or a module in it, holds a matrix."""
    if not isinstance(module, nn.Module):
        return False
    if isinstance(module, HARMLESS) or type(module).__module__.startswith(OWN_LAYERS):
        return False
    own = [
        *module._parameters.values(),
        *(buffer for name, buffer in module._buffers.items() if "weight" in name),
    ]
    return any(x is not None and _is_matrix(x) for x in own) or any(map(_has_weights, module.children()))


def _unpacked(values: Any, counts: bool) -> Any:
    """Arguments with tensors in the place of packed values; unless they count, only sizes are right."""

    def unpacked(leaf: Any) -> Any:
        if not isinstance(leaf, Packed):
            return leaf
        return leaf.unpacked() if counts else leaf.stand_in()

    return map_leaves(values, unpacked)


def _one_sample(call: Call, sequences: tuple[int, ...]) -> tuple[Any, Any]:
    """The arguments of a call for the first sample at the first step."""
    positions = itertools.count()

    def first(x: Tensor) -> Tensor:
        position = next(positions)
        if position in sequences:
            return x[0, :1]
        return x[:1] if position in call.varying else x

    found: tuple[Any, Any] = map_tensors((call.args, call.kwargs), first)
    return found


def _repeats(call: Call) -> bool:
    """True if a product of single elements repeats the operand that varies along the other."""
    x = tensors((call.args, call.kwargs))[call.varying[0]]
    return isinstance(call.result, Tensor) and call.result.numel() > x.numel()


def _input_position(call: Call) -> int:
    """Position of the input, among the tensors, of a function of an input and a weight."""
    if call.args:
        return 0
    return [name for name, value in call.kwargs.items() if isinstance(value, Tensor)].index("input")
