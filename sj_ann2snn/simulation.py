"""Runs a converted network layer by layer over time.

What does not vary over time (all before the first neuron) is computed once; every other layer runs many
steps at a time, for a tile of samples and steps that keeps memory bounded. The result is that of the
hand-written loop ``for t in range(T): out += snn(x)``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from .batches import HALF, describe_batch, taken
from .compat import MemoryModule, fast_neurons, reset_net, step_modes
from .errors import InputError
from .firing import can_fire_in_place, fire
from .layers import ChannelAffine, Scaler, Stepwise
from .trees import map_leaves, map_tensors, tensors

__all__ = ["Simulator", "simulate"]

TILE_BYTES = {"cpu": 1 << 22, "cuda": 1 << 31}
"""Largest activation of a tile, by device type: on a CPU what stays in its cache."""

TILE_STEPS = {"cpu": 10}
"""Steps of a tile that samples make way for, by device type; elsewhere all of them."""

OWN_MEMORY = (operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.cat)
"""Functions whose result is memory of its own, never a view."""

Watcher = Callable[[str, nn.Module, Any, Any], None]
"""Called with the name of a module, the module, its first input ``[T, n, ...]`` and its output."""


def simulate(
    snn: nn.Module,
    x: Any,
    T: int,  # noqa: N803 - the field's name for the number of time steps
) -> Any:
    """Run the network for `T` steps on a constant input; the mean of its output over time.

    >>> import torch
    >>> from sj_ann2snn import Converter, simulate
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
    >>> snn = Converter([torch.rand(64, 4)], mode="max", progress=False)(ann)
    >>> simulate(snn, torch.rand(5, 4), T=20).shape
    torch.Size([5, 3])

    Args:
        snn: A converted network. Any other stateful module of SpikingJelly layers is run step by step.
        x: The input ``[N, ...]``, the same at every step; a tuple for a network with several inputs.
        T: Number of time steps, at least 1.

    Returns:
        What the network returns, averaged over time: ``[N, ...]``, in the ANN's own units. The network
        is reset before and after; its step mode is as it was.

    Raises:
        InputError: `T` is not a positive integer, or the network cannot take `x`.
    """
    inputs = x if isinstance(x, tuple) else (x,)
    simulator = Simulator(snn, T)
    return _plain(_concatenated(simulator.run_all(inputs, _mean)))


class Simulator:
    """Runs one network for a fixed number of steps; see `simulate`.

    Args:
        snn: The network.
        steps: Number of time steps.
        watch: Is shown every layer that varies over time.
    """

    def __init__(self, snn: nn.Module, steps: int, watch: Watcher | None = None) -> None:
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise InputError(f"T={steps!r} is not allowed: the number of time steps is an integer from 1 up.")
        self.snn, self.steps, self.watch = snn, steps, watch
        self.graph: fx.Graph | None = None
        self.varying: frozenset[fx.Node] = frozenset()
        self._exclusive: frozenset[fx.Node] = frozenset()
        if isinstance(snn, fx.GraphModule):
            self.graph = snn.graph
            self.varying = _varying_nodes(snn)
            self._exclusive = self.varying & _exclusive_nodes(snn)
        weights = [t for t in (*snn.parameters(), *snn.buffers()) if t.is_floating_point()]
        self.device = weights[0].device if weights else torch.device("cpu")
        self.dtype = weights[0].dtype if weights else None
        self._any_layout = not any(_is_foreign(module) for module in snn.modules())
        self._largest = 0
        """Bytes of the largest activation of one sample at one step."""

    def run_all(self, inputs: tuple[Any, ...], reduce: Callable[[list[Any]], Any] = list) -> list[Any]:
        """What `reduce` makes of the outputs of each tile.

        Raises:
            InputError: The network cannot take the inputs.
        """
        with taken(inputs[0] if len(inputs) == 1 else inputs):
            return [reduce(self.run(tile)) for tile in self.tiles(inputs)]

    def tiles(self, inputs: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        """The inputs in tiles of samples; the first one is small, to learn how large the others may be."""
        if not inputs or not isinstance(inputs[0], Tensor) or not inputs[0].dim():
            given = describe_batch(inputs[0]) if len(inputs) == 1 else describe_batch(inputs)
            raise InputError(f"The input must be a tensor [N, ...] or a tuple that starts with one, not {given}.")
        if self.graph is not None:
            names = [str(node.target) for node in self.graph.nodes if node.op == "placeholder"]
            if len(inputs) > len(names):
                raise InputError(
                    f"The network takes {len(names)} input(s), {', '.join(names)}; it was given {len(inputs)}."
                )
        samples = inputs[0].shape[0]
        if not samples:
            raise InputError(f"The input has no samples: its shape is {tuple(inputs[0].shape)}.")
        start = 0
        while start < samples:
            size = self._tile_samples() if self.varying else samples
            yield tuple(
                self._placed(value[start : start + size]) if _has_samples(value, samples) else value for value in inputs
            )
            start += size

    def _placed(self, x: Tensor) -> Tensor:
        """`x` where the network lies, half precision raised to the network's own."""
        half = x.dtype in HALF
        return x.to(device=self.device, dtype=self.dtype if half and self.dtype else x.dtype)

    def run(self, inputs: tuple[Any, ...]) -> list[Any]:
        """Simulate one tile; the outputs ``[t, n, ...]`` of successive stretches of time."""
        with torch.no_grad(), fast_neurons(self.snn), _left_as_it_was(self.snn):
            reset_net(self.snn)
            if self.graph is None or not self.varying:
                return self._step_by_step(inputs)
            static = self._run_static(inputs)
            outputs: list[Any] = []
            done = 0
            while done < self.steps:
                steps = min(self._tile_steps(int(inputs[0].shape[0])), self.steps - done)
                outputs.append(self._run_varying(static, steps))
                done += steps
            return outputs

    def _step_by_step(self, inputs: tuple[Any, ...]) -> list[Any]:
        for module, _ in step_modes(self.snn):
            module.step_mode = "s"  # type: ignore[assignment]
        with self._watched():
            return [map_tensors(self.snn(*inputs), lambda y: y.unsqueeze(0)) for _ in range(self.steps)]

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Shows the watcher every module of a network that is no graph."""

        def show(name: str, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            if self.watch is not None and args and isinstance(args[0], Tensor) and isinstance(out, Tensor):
                self.watch(name, module, args[0].unsqueeze(0), out.unsqueeze(0))

        handles = [
            module.register_forward_hook(partial(show, name))
            for name, module in self.snn.named_modules()
            if self.watch is not None
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _run_static(self, inputs: tuple[Any, ...]) -> _Static:
        """Everything that does not vary over time, as the ANN computes it."""
        assert self.graph is not None
        static = _Static({}, set())
        values = static.values
        given = iter(inputs)
        for node in self.graph.nodes:
            if node in self.varying or node.op == "output":
                continue
            if node.op == "placeholder":
                value = next(given, node.args[0] if node.args else None)
                values[node] = _channels_last(value) if self._any_layout else value
            elif node.op == "get_attr":
                values[node] = operator.attrgetter(str(node.target))(self.snn)
            else:
                values[node] = self._call(node, values.__getitem__, "s")
            static.note(node)
        return static

    def _run_varying(self, static: _Static, steps: int) -> Any:
        assert self.graph is not None
        values: dict[fx.Node, Any] = {}
        readers = {node: len(node.users) for node in self.varying}
        shapes: dict[fx.Node, Any] = {}

        def read(node: fx.Node) -> Any:
            if node in values:
                return values[node]
            if node in static.carrying:
                return map_tensors(static.values[node], lambda x: x.expand(steps, *x.shape))
            return self._merged(node, static, shapes, steps)

        for node in self.graph.nodes:
            if node.op == "output":
                return fx.map_arg(node.args[0], lambda source: self._output(source, read, static))
            if node not in self.varying:
                continue
            values[node] = self._call(node, read, "m")
            self._note_size(values[node])
            for source in node.all_input_nodes:
                if source in readers:
                    readers[source] -= 1
                    if not readers[source]:
                        del values[source]
        raise AssertionError("a graph ends with its output")

    def _output(self, node: fx.Node, read: Callable[[fx.Node], Any], static: _Static) -> Any:
        moves = node in self.varying or node in static.carrying
        value = read(node) if moves else static.values[node]
        if not tensors(value):
            raise InputError(
                f"The network returns {value!r} ({node.name}), a size or another value that is no tensor; "
                "simulate runs tiles of samples and steps, which have other sizes. Return tensors only."
            )
        return value if moves else _Constant(value)

    def _merged(self, node: fx.Node, static: _Static, shapes: dict[fx.Node, Any], steps: int) -> Any:
        """A size or a constant as it is where time and samples are merged: ``x.size(0)`` is T * N."""
        if node.op in ("get_attr", "placeholder"):
            return static.values[node]
        if node not in shapes:

            def read(source: fx.Node) -> Any:
                if source in static.carrying:
                    # Only its shape matters, which costs nothing on the meta device.
                    return map_tensors(static.values[source], lambda x: x.to("meta").expand(steps, *x.shape))
                return self._merged(source, static, shapes, steps)

            shapes[node] = self._call(node, read, "m")
        return shapes[node]

    def _call(self, node: fx.Node, read: Callable[[fx.Node], Any], step_mode: str) -> Any:
        args: Any = fx.map_arg(node.args, read)
        kwargs: Any = fx.map_arg(node.kwargs, read)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "call_function":
            function: Any = node.target
            return function(*args, **kwargs)
        module = self.snn.get_submodule(str(node.target))
        if hasattr(module, "step_mode"):
            module.step_mode = step_mode  # type: ignore[assignment]
        if node not in self.varying:
            return module(*args, **kwargs)
        if args and can_fire_in_place(module, args[0]):
            result = fire(module, args[0], overwrite=node.args[0] in self._exclusive)
        else:
            result = module(*args, **kwargs)
        if self.watch is not None:
            self.watch(str(node.target), module, args[0] if args else None, result)
        return result

    def _note_size(self, value: Any) -> None:
        for x in tensors(value):
            samples = x.shape[0] * x.shape[1] if x.dim() > 1 else 1
            self._largest = max(self._largest, x.numel() * x.element_size() // max(1, samples))

    def _budget(self) -> int:
        return TILE_BYTES.get(self.device.type, TILE_BYTES["cpu"])

    def _tile_samples(self) -> int:
        steps = min(self.steps, TILE_STEPS.get(self.device.type, self.steps))
        return max(1, self._budget() // (self._largest * steps)) if self._largest else 1

    def _tile_steps(self, samples: int) -> int:
        if not self._largest:
            return min(self.steps, TILE_STEPS.get(self.device.type, self.steps))
        return max(1, self._budget() // (self._largest * samples))


@dataclass
class _Static:
    """What one tile yields before the first neuron."""

    values: dict[fx.Node, Any]
    carrying: set[fx.Node]
    """Nodes with tensors that are computed from the input's values, rather than from its size."""

    def note(self, node: fx.Node) -> None:
        """Find out whether `node`, whose value is known, carries the input's values."""
        from_input = node.op == "placeholder" or any(source in self.carrying for source in node.all_input_nodes)
        if from_input and tensors(self.values[node]):
            self.carrying.add(node)


class _Constant:
    """An output that depends neither on the input nor on time."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _varying_nodes(snn: fx.GraphModule) -> frozenset[fx.Node]:
    """The nodes whose value changes from step to step: those behind a module with memory."""
    varying: set[fx.Node] = set()
    for node in snn.graph.nodes:
        if node.op == "output":
            continue
        stateful = node.op == "call_module" and isinstance(snn.get_submodule(str(node.target)), MemoryModule)
        if stateful or any(source in varying for source in node.all_input_nodes):
            varying.add(node)
    return frozenset(varying)


def _exclusive_nodes(snn: fx.GraphModule) -> frozenset[fx.Node]:
    """The nodes whose value is memory of its own with a single reader, which may overwrite it."""
    found = set()
    for node in snn.graph.nodes:
        if node.op != "call_module" or len(node.users) != 1:
            continue
        module = snn.get_submodule(str(node.target))
        if isinstance(module, (nn.Linear, _ConvNd, Scaler, ChannelAffine)) or (
            isinstance(module, Stepwise) and module.operation in OWN_MEMORY
        ):
            found.add(node)
    return frozenset(found)


def _is_foreign(module: nn.Module) -> bool:
    """True for a user's own module, which may rely on the memory layout (``x.view(...)`` does)."""
    operation = module.operation if isinstance(module, Stepwise) else None
    return isinstance(operation, nn.Module) and not type(operation).__module__.startswith("torch.nn.")


def _channels_last(value: Any) -> Any:
    """Images with their channels innermost, as convolutions on a CPU and on tensor cores like them."""
    if isinstance(value, Tensor) and value.dim() == 4:
        return value.contiguous(memory_format=torch.channels_last)
    return value


def _has_samples(value: Any, samples: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == samples


@contextmanager
def _left_as_it_was(snn: nn.Module) -> Iterator[None]:
    """Restores step modes and resets the network, whatever happens in between."""
    modes = step_modes(snn)
    try:
        yield
    finally:
        for module, mode in modes:
            module.step_mode = mode  # type: ignore[assignment]
        reset_net(snn)


def _zipped(trees: list[Any], join: Callable[[list[Tensor]], Any]) -> Any:
    first = trees[0]
    if isinstance(first, Tensor):
        return join(trees)
    if isinstance(first, (tuple, list)):
        return type(first)(_zipped(list(items), join) for items in zip(*trees, strict=True))
    if isinstance(first, dict):
        return {name: _zipped([tree[name] for tree in trees], join) for name in first}
    return first


def _plain(tree: Any) -> Any:
    """Outputs with constants taken out of their wrapping."""
    return map_leaves(tree, lambda leaf: leaf.value if isinstance(leaf, _Constant) else leaf)


def _mean(stretches: list[Any]) -> Any:
    def mean(parts: list[Tensor]) -> Tensor:
        steps = sum(part.shape[0] for part in parts)
        return torch.stack([part.sum(0) for part in parts]).sum(0) / steps

    return _zipped(stretches, mean)


def _concatenated(pieces: list[Any]) -> Any:
    return _zipped(pieces, lambda parts: torch.cat(parts))
