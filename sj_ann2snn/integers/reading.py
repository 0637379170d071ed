"""Reads an integer network off a converted network whose weights are integers."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.pooling import _AdaptiveMaxPoolNd, _MaxPoolNd

from ..compat import MemoryModule, is_neuron, reset_memories, set_step_mode
from ..errors import IntegerError
from ..layers import (
    ChannelAffine,
    CumulativeMax,
    CumulativeMaxPool,
    InPlaceNeuron,
    IntegerIF,
    IntegerInput,
    MemoryLayer,
    Scaler,
    Stepwise,
    SumPool,
)
from ..support.names import NAME
from ..support.shapes import along, spatial_of
from ..support.structures import is_built
from ..support.trees import leaves
from .network import IntegerNetwork
from .operations import Gather, Input, Neuron, Operation, Pool, Product, Result, Sum, Weighted
from .recording import Recording, recorded
from .windows import adaptive_windows, padding_of, sliding_windows, transposed_windows

__all__ = ["SIGNS", "read_network"]

SIGNS: dict[Any, tuple[int, ...]] = {
    operator.add: (1, 1),
    torch.add: (1, 1),
    operator.iadd: (1, 1),
    operator.sub: (1, -1),
    torch.sub: (1, -1),
    operator.neg: (-1,),
    torch.neg: (-1,),
    "neg": (-1,),
}
"""The signs of the operands of sums."""

MOST_SHIFT = 16
"""Largest shift to look for in weights."""


def read_network(network: fx.GraphModule) -> IntegerNetwork:
    """The operations of a converted network as plain data.

    Args:
        network: The network, in any state; it is reset and in step mode "s" afterwards.

    Raises:
        IntegerError: Parts of it do not compute with integers; the message lists them.
    """
    return _Reader(network).run()


class _Reader:
    def __init__(self, network: fx.GraphModule) -> None:
        self.network = network
        self.operations: list[Operation] = []
        self.made: dict[fx.Node, list[int]] = {}
        self.problems: list[tuple[str, str]] = []
        self.recording: Recording

    def run(self) -> IntegerNetwork:
        if self._dtype() not in (torch.float32, torch.float64):
            raise IntegerError(
                f"The network's numbers are in {self._dtype()}, which does not hold all its integers exactly. "
                "Take the network as it was converted, in single or double precision."
            )
        set_step_mode(self.network, "s")
        reset_memories(self.network)
        self.recording = recorded(self.network, self._samples())
        reset_memories(self.network)
        for node in self.network.graph.nodes:
            if node.op == "output":
                for number, leaf in enumerate(_read_by(node)):
                    self._result(leaf, number)
            elif node in self.recording.carrying and not is_built(node):
                self._read(node)
        self._require_integers()
        return IntegerNetwork(type(self.network).__name__, tuple(self.operations))

    def _samples(self) -> list[Any]:
        found: list[Any] = []
        for node in self.network.graph.nodes:
            if node.op != "placeholder":
                continue
            readers = [self._module(one) for one in node.users]
            shapes = [one.shape for one in readers if isinstance(one, IntegerInput)]
            if shapes:
                found.append(torch.zeros(2, *shapes[0], dtype=self._dtype()))
            elif node.args:
                found.append(node.args[0])
            else:
                self.problems.append((str(node.meta.get(NAME, node.target)), "this input is not rounded to integers"))
        if self.problems:
            self._look_at_modules()
            self._require_integers()
        return found

    def _look_at_modules(self) -> None:
        """Find what is not of integers by looking, in a network that cannot be run on integers."""
        for node in self.network.graph.nodes:
            module = self._module(node)
            operation = module.operation if isinstance(module, Stepwise) else module
            if isinstance(module, (IntegerIF, CumulativeMax, CumulativeMaxPool)):
                continue
            if isinstance(module, MemoryModule):
                self.problems.append((str(node.target), _why(module)))
            elif isinstance(operation, nn.Module):
                try:
                    for name, value in operation.named_parameters(recurse=False):
                        _integers(value, name)
                except _Refused as refused:
                    self.problems.append((str(node.target), str(refused)))

    def _require_integers(self) -> None:
        """Raises:
        IntegerError: There are problems.
        """
        if self.problems:
            listed = "".join(f"\n  - {name}: {why}" for name, why in self.problems)
            raise IntegerError(
                f"The network does not compute with integers only:{listed}\nConvert with weights='int8', which lists "
                "what to change.",
                tuple(self.problems),
            )

    def _dtype(self) -> torch.dtype:
        return next((one.dtype for one in self.network.parameters() if one.is_floating_point()), torch.float32)

    def _module(self, node: fx.Node) -> Any:
        return self.network.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _read(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            return
        module = self._module(node)
        name = str(node.target) if node.op == "call_module" else node.name
        if isinstance(module, IntegerInput):
            shape = self.recording.shape(node)
            self._add(node, Input(name, (), shape, False, module.scale, module.low, module.high))
            return
        operands = self.recording.operands(node)
        if any(one not in self.made for one in operands):
            return  # the operand has been reported
        if isinstance(module, Scaler) and all(user.op == "output" for user in node.users):
            self.made[node] = self.made[operands[0]]  # its factor is part of the result
            return
        try:
            self._operation(node, name, module, operands)
        except _Refused as refused:
            self.problems.append((name, str(refused)))

    def _operation(self, node: fx.Node, name: str, module: Any, operands: list[fx.Node]) -> None:
        operation = module.operation if isinstance(module, Stepwise) else module
        if node.op == "call_function" and operation is None:
            operation = node.target
        if not all(isinstance(self.recording.values[one], Tensor) for one in operands):
            self._pick(node, operands[0])
        elif isinstance(operation, nn.Linear):
            self._linear(node, name, operation, operands[0])
        elif isinstance(operation, _ConvNd):
            self._weighted(node, name, operation, operands[0])
        elif isinstance(operation, IntegerIF):
            self._neuron(node, name, operation)
        elif isinstance(operation, (Scaler, ChannelAffine)):
            self._product(node, name, operation)
        elif (pool := self._pool(node, operation, operands[0])) is not None:
            windows, reduce = pool
            shape = self.recording.shape(node)
            varies = self._varies(operands) or reduce == "growth"
            sources = tuple(self._one(one) for one in operands)
            channels = int(np.prod(shape)) // len(windows)
            self._add(node, Pool(name, sources, shape, varies, windows, channels, reduce))
        elif operation in (torch.sum, "sum") and not isinstance(operation, nn.Module):
            self._reduction(node, name, operands[0])
        elif not isinstance(operation, nn.Module) and operation in SIGNS:
            self._sum(node, name, SIGNS[operation], operands)
        else:
            self._gather(node, name, operation, operands)

    def _pick(self, node: fx.Node, source: fx.Node) -> None:
        """The node takes one of several results of another one."""
        if node.op != "call_function" or node.target is not operator.getitem:
            raise _Refused("it reads several values at once")
        self.made[node] = [self.made[source][node.args[1]]]  # type: ignore[index]

    def _pool(self, node: fx.Node, operation: Any, operand: fx.Node) -> tuple[Any, str] | None:
        """The windows of a pool, and what becomes of them; None for other operations."""
        if not isinstance(operation, nn.Module) or not isinstance(self.recording.values[node], Tensor):
            return None
        inner = operation.maximum if isinstance(operation, CumulativeMax) else operation
        if not isinstance(inner, (SumPool, CumulativeMaxPool, _MaxPoolNd, _AdaptiveMaxPoolNd)):
            return None
        spatial = spatial_of(inner)
        reduce = "growth" if isinstance(operation, (CumulativeMax, CumulativeMaxPool)) else "largest"
        size, results = (self.recording.shape(one)[-spatial:] for one in (operand, node))
        if isinstance(inner, _AdaptiveMaxPoolNd):
            return adaptive_windows(size, results), reduce
        around = [(one, one) for one in along(spatial, inner.padding)]
        kernel, stride = along(spatial, inner.kernel_size), along(spatial, inner.stride)
        if isinstance(inner, SumPool):
            return sliding_windows(size, kernel, stride, around, [1] * spatial), "sum"
        # With ceil_mode, there are more windows than fit.
        dilation = along(spatial, inner.dilation)
        return sliding_windows(size, kernel, stride, around, dilation, results=results), reduce

    def _gather(self, node: fx.Node, name: str, operation: Any, operands: list[fx.Node]) -> None:
        if isinstance(operation, MemoryModule) or is_neuron(operation):
            raise _Refused(_why(operation))
        moves = self.recording.moves(node)
        if moves is None:
            raise _Refused("it does not compute with integers")
        sources = tuple(self._one(one) for one in dict.fromkeys(operands))
        varies = self._varies(operands)
        self.made[node] = [
            self._number(Gather(name, sources, tuple(index.shape), varies, index.ravel())) for index in moves
        ]

    def _linear(self, node: fx.Node, name: str, layer: nn.Linear, operand: fx.Node) -> None:
        """A product along the last dimension: the positions come first, so they change places before and after."""
        source, shape = self._one(operand), self.recording.shape(operand)
        varies, result = self._varies([operand]), self.recording.shape(node)
        positions = int(np.prod(shape[:-1], dtype=np.int64))
        weight, shift = _shifted(_integers(layer.weight, "weight"))
        bias = np.zeros(len(weight), dtype=np.int64) if layer.bias is None else _integers(layer.bias, "bias")
        if positions > 1:
            turned = np.arange(positions * shape[-1]).reshape(positions, -1).T
            source = self._number(Gather(f"{name}:turned", (source,), turned.shape, varies, turned.ravel()))
        windows = np.arange(positions)[:, None]
        shaped = (len(weight), *(shape[:-1] if positions > 1 else (1,) * len(shape[:-1])))
        made = Weighted(name, (source,), shaped, varies, weight[:, :, None], bias, shift, windows)
        number = self._number(made)
        if positions > 1:
            back = np.arange(positions * len(weight)).reshape(len(weight), positions).T
            number = self._number(Gather(f"{name}:back", (number,), result, varies, back.ravel()))
        self.made[node] = [number]

    def _weighted(self, node: fx.Node, name: str, layer: _ConvNd, operand: fx.Node) -> None:
        shape, result = self.recording.shape(operand), self.recording.shape(node)
        if layer.padding_mode != "zeros":
            raise _Refused(f"it pads with padding_mode={layer.padding_mode!r}, not with zeros")
        weight = _integers(layer.weight, "weight")
        if isinstance(layer, _ConvTransposeNd):
            per_group = weight.reshape(layer.groups, -1, *weight.shape[1:])
            weight = per_group.swapaxes(1, 2).reshape(-1, weight.shape[0] // layer.groups, *weight.shape[2:])
            padding = [before for before, _ in padding_of(layer)]
            windows = transposed_windows(
                shape[1:], layer.kernel_size, layer.stride, padding, layer.dilation, result[1:]
            )
        else:
            windows = sliding_windows(shape[1:], layer.kernel_size, layer.stride, padding_of(layer), layer.dilation)
        weight = weight.reshape(*weight.shape[:2], -1)
        weight, shift = _shifted(weight)
        bias = np.zeros(len(weight), dtype=np.int64) if layer.bias is None else _integers(layer.bias, "bias")
        sources, varies = (self._one(operand),), self._varies([operand])
        self._add(node, Weighted(name, sources, result, varies, weight, bias, shift, windows, layer.groups))

    def _neuron(self, node: fx.Node, name: str, neuron: IntegerIF) -> None:
        (source,), shape = self.recording.operands(node), self.recording.shape(node)
        threshold, potential = (
            np.broadcast_to(_integers(value, what), shape).ravel()
            for value, what in ((neuron.threshold, "threshold"), (neuron.potential, "potential"))
        )
        self._add(node, Neuron(name, (self._one(source),), shape, True, threshold, potential, neuron.bits))

    def _product(self, node: fx.Node, name: str, layer: Any) -> None:
        (source,), shape = self.recording.operands(node), self.recording.shape(node)
        affine = isinstance(layer, ChannelAffine)
        factor = _integers(layer.weight if affine else layer.scale, "factor")
        bias = _integers(layer.bias, "bias") if affine else np.zeros((), dtype=np.int64)
        factor, bias = (np.broadcast_to(one, shape).ravel() for one in (factor, bias))
        self._add(node, Product(name, (self._one(source),), shape, self._varies([source]), factor, bias))

    def _sum(self, node: fx.Node, name: str, signs: tuple[int, ...], operands: list[fx.Node]) -> None:
        if len(operands) != len(signs) or node.kwargs:
            raise _Refused("it adds something else than integers of the network")
        shape = self.recording.shape(node)
        sources = []
        for one in operands:
            number, own = self._one(one), self.recording.shape(one)
            if own != shape:  # the smaller one is repeated
                index = np.broadcast_to(np.arange(int(np.prod(own))).reshape(own), shape).ravel()
                number = self._number(Gather(f"{name}:repeated", (number,), shape, self._varies([one]), index))
            sources.append(number)
        self._add(node, Sum(name, tuple(sources), shape, self._varies(operands), signs))

    def _reduction(self, node: fx.Node, name: str, operand: fx.Node) -> None:
        shape, dims = self.recording.shape(operand), reduced_dims(node, len(self.recording.shape(operand)))
        index = np.arange(int(np.prod(shape))).reshape(shape)
        kept = [axis for axis in range(len(shape)) if axis not in dims]
        windows = index.transpose(*kept, *dims).reshape(-1, int(np.prod([shape[axis] for axis in dims])))
        sources, varies = (self._one(operand),), self._varies([operand])
        self._add(node, Pool(name, sources, self.recording.shape(node), varies, windows, 1, "sum"))

    def _result(self, leaf: fx.Node, number: int) -> None:
        if leaf not in self.made or leaf not in self.recording.carrying:
            if leaf not in self.recording.carrying:
                self.problems.append((str(leaf.target), "the network returns it, but it does not depend on the input"))
            return
        module, scale = self._module(leaf), torch.ones(())
        if isinstance(module, Scaler) and all(user.op == "output" for user in leaf.users):
            scale = module.scale
        shape = self.recording.shape(leaf)
        whole = np.broadcast_to(scale.detach().double().cpu().numpy(), shape).ravel()
        name = "output" if number == 0 else f"output_{number}"
        self._number(Result(name, (self._one(leaf),), shape, self._varies([leaf]), whole))

    def _varies(self, operands: Sequence[fx.Node]) -> bool:
        return any(self.operations[number].varies for one in operands for number in self.made[one])

    def _one(self, node: fx.Node) -> int:
        if len(self.made[node]) != 1:
            raise _Refused("it reads several values at once")
        return self.made[node][0]

    def _add(self, node: fx.Node, made: Operation) -> None:
        self.made[node] = [self._number(made)]

    def _number(self, made: Operation) -> int:
        self.operations.append(made)
        return len(self.operations) - 1


class _Refused(Exception):  # noqa: N818 - not an error by itself
    """Why an operation is not one on integers."""


def _why(module: Any) -> str:
    kind = type(module).__name__
    if is_neuron(module) or isinstance(module, InPlaceNeuron):
        return f"the neuron {kind} does not compute with integers, or emits other values than 0 and 1"
    what = "layer" if isinstance(module, MemoryLayer) else "module"
    return f"the {what} {kind} keeps a state that is not of integers"


def _read_by(output: fx.Node) -> list[fx.Node]:
    """The nodes that the network returns, in order, through the objects that hold them."""
    found: list[fx.Node] = []
    for leaf in leaves((output.args, output.kwargs)):
        if isinstance(leaf, fx.Node):
            found += _read_by(leaf) if is_built(leaf) else [leaf]
    return found


def _integers(values: Tensor, what: str) -> Any:
    numbers = values.detach().double().cpu().numpy()
    if not np.array_equal(numbers, np.round(numbers)):
        raise _Refused(f"its {what} has values that are not integers")
    return numbers.astype(np.int64)


def _shifted(weight: Any) -> tuple[Any, Any]:
    """The weights ``[out, ...]`` without the powers of two that all weights of an output have in common."""
    rows = weight.reshape(len(weight), -1)
    shift = np.zeros(len(rows), dtype=np.int64)
    for _ in range(MOST_SHIFT):
        even = (rows % 2 == 0).all(1) & (rows != 0).any(1)
        if not even.any():
            break
        rows = np.where(even[:, None], rows // 2, rows)
        shift += even
    return rows.reshape(weight.shape), shift


def reduced_dims(node: fx.Node, ndim: int) -> list[int]:
    """The dimensions of a sample that a sum or mean reduces."""
    dims: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    return sorted({dim % (ndim + 1) - 1 for dim in ([dims] if isinstance(dims, int) else dims)})
