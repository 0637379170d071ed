"""Runs one tile of samples through a network's graph, layer by layer over time."""

from __future__ import annotations

import operator
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...compat import MemoryModule, memories
from ...errors import InputError
from ...layers import MemoryLayer
from ...support.batches import count_samples
from ...support.structures import is_built, open_nodes
from ...support.trees import leaves, map_tensors, tensors
from ...support.wording import shown
from .collectors import Call, Collector
from .flow import Flow
from .non_finite import Guard
from .numbers.shortcuts import shortcut_of
from .numbers.steady import Steady, steady_layer
from .outputs import Constant
from .packed.moves import asks_for_sizes
from .packing.packers import packers_for
from .packing.packing import Packing
from .packing.parts import Parts
from .packing.remembered import KnownConvolutions
from .stretch import Stretch, UnknownSizeError, sizes
from .threads import Stopped
from .tiling import Tiling

__all__ = ["Runner"]

Watch = Callable[[Call], None]

STEPS_OF_PACKED, STEPS_OF_CHANGES = 16, 32
"""To compute at a time where neurons write packed values, and where these are changes: potentials stay in the cache
meanwhile, and most neurons send no change in most steps."""


class Runner:
    """Runs tiles one after the other. Several runners may run side by side if each has its own modules.

    Args:
        snn: The network.
        flow: Its graph, analysed.
        steps: Number of time steps.
        tiling: Decides how many steps to compute at a time.
        modules: Copies of the network's modules, by name, for this runner only; by default the network's own.
        stop: As soon as it is set, the runner gives up.
        dtype: Dtype of the weights and inputs of the layers behind the first neuron; None for the network's own.
        shortcuts: Let layers use faster implementations, which propagate no gradients.
        channels_last: Store images as channels_last, unless a layer forbids it.
        device: The network's; a CPU by default.
        guard: Looks for NaN and infinite values; runners of one network share it.
        convolutions: See `Parts`.
    """

    def __init__(
        self,
        snn: nn.Module,
        flow: Flow,
        steps: int,
        tiling: Tiling,
        *,
        modules: dict[str, nn.Module] | None = None,
        stop: threading.Event | None = None,
        dtype: torch.dtype | None = None,
        shortcuts: bool = True,
        channels_last: bool = True,
        device: torch.device | None = None,
        guard: Guard | None = None,
        convolutions: KnownConvolutions | None = None,
    ) -> None:
        self.snn, self.flow, self.steps, self.tiling = snn, flow, steps, tiling
        self.modules = flow.modules if modules is None else modules
        self._stop = stop or threading.Event()
        self._shortcuts = {
            name: shortcut_of(module, dtype) if shortcuts else None for name, module in self.modules.items()
        }
        self._steady: dict[fx.Node, Steady | None] = {
            node: steady_layer(self.modules[str(node.target)])
            for node in flow.graph.nodes
            if shortcuts and node.op == "call_module" and node not in flow.varying
        }
        self._channels_last = channels_last and flow.any_layout
        self._guard = guard or Guard(snn)
        packers = None if not shortcuts or dtype is not None else packers_for(device or torch.device("cpu"))
        self._packed, self._unpacked = (
            Packing(Parts(flow, self.modules, steps, convolutions, packers=one)) for one in (packers, None)
        )
        self._packing = self._unpacked
        self._merged_into_sums = {one.scaled for one in flow.sums.values()}
        self._memories = [module for module in self.modules.values() if isinstance(module, MemoryModule)]

    @torch.no_grad()
    def run(self, inputs: tuple[Any, ...], collector: Collector) -> Any:
        """Simulate one tile, pass the outputs of each group of steps to `collector`, and return its result.

        Raises:
            Stopped: Somebody has set `stop`.
        """
        for module in self._memories:
            module.reset()
        self._watch = collector.watch
        self._packing = self._packed if self._watch is None or collector.watches_spikes else self._unpacked
        if (self._packing.merged or self._packing.changes) and not collector.drops_samples:
            self.tiling.lengthen(STEPS_OF_CHANGES if self._packing.changes else STEPS_OF_PACKED)
        static = self._run_static(inputs)
        guard = self._guard.start(inputs, [static.values[node] for node in self.flow.meeting])
        samples = count_samples(inputs)
        done = 0
        while done < self.steps and samples:
            steps = min(self.tiling.steps(samples, leaving=collector.drops_samples), self.steps - done)
            going_on = collector.add(self._run_varying(static, steps))
            done += steps
            if going_on is not None and len(going_on) < samples:
                guard.look_at_potentials(self.modules)
                static.select(going_on, samples)
                for module in self._memories:
                    select_samples(module, going_on, samples)
                samples = len(going_on)
        guard.look_at_potentials(self.modules)
        return collector.result()

    def outputs(self, inputs: tuple[Any, ...]) -> Any:
        """The outputs of one tile at all steps, with gradients if they are enabled."""
        for module in self._memories:
            module.reset()
        self._watch, self._packing = None, self._unpacked  # bits have no gradients
        return self._run_varying(self._run_static(inputs), self.steps)

    def _run_static(self, inputs: tuple[Any, ...]) -> _Static:
        """Compute everything that does not vary over time, as the ANN does."""
        static = _Static({}, set())
        values = static.values
        given = iter(inputs)
        for node in self.flow.graph.nodes:
            if node in self.flow.varying or node.op == "output" or is_built(node):
                continue
            if node.op == "placeholder":
                values[node] = next(given, node.args[0] if node.args else None)
            elif node.op == "get_attr":
                values[node] = operator.attrgetter(str(node.target))(self.snn)
            else:
                values[node] = self._call(node, values.__getitem__, step_mode="s")
            static.note(node)
            if self._channels_last and node in static.carrying:
                # Repeat this for every layer: a convolution of one-channel images loses the channels_last layout.
                values[node] = map_tensors(values[node], _channels_last)
        return static

    def _run_varying(self, static: _Static, steps: int) -> Any:
        shapes: dict[int, dict[fx.Node, Any]] = defaultdict(dict)
        stretch = Stretch(
            steps,
            lambda node: static.values[node] if node in static.carrying else None,
            lambda node, count: self._merged(node, static, shapes[count], count),
            self._call,
        )
        readers = {node: len(node.users) for node in self.flow.varying}
        for node in self.flow.graph.nodes:
            if node.op == "output":
                results = open_nodes(node.args[0])[0]
                return fx.map_arg(results, lambda source: self._output(source, stretch.read, static))
            if node not in self.flow.varying or node in self._merged_into_sums or node in self._packing.merged:
                continue
            self._compute(node, stretch)
            self.tiling.note(stretch.values[node])
            for source in self._sources(node):
                if source in readers:
                    readers[source] -= 1
                    if not readers[source]:
                        stretch.forget(source)
        raise AssertionError("a graph ends with its output")

    def _compute(self, node: fx.Node, stretch: Stretch) -> None:
        """Put the value of `node` among the values, packed where that is possible."""
        if self._stop.is_set():
            raise Stopped
        found = self._packing.run(node, stretch.packed)
        if found is None:
            self._compute_in_numbers(node, stretch)
            return
        stretch.values[node] = found
        if self._watch is not None:
            for call in self._packing.calls(node, found, stretch.packed):
                self._watch(call)

    def _compute_in_numbers(self, node: fx.Node, stretch: Stretch) -> None:
        """The same from numbers. A neuron behind a layer of its own may still write packed spikes."""
        parts = self._packing.merged_into(node)
        for one in parts:
            if one not in self._merged_into_sums:
                stretch.values[one] = self._numbers(one, stretch)
        currents = stretch.packed(node.args[0]) if parts else None  # type: ignore[arg-type]
        fired = self._packing.fire(node, currents)
        stretch.values[node] = self._numbers(node, stretch) if fired is None else fired
        if fired is not None and self._watch is not None:
            self._watch(self._packing.call(node, currents, fired))
        for one in parts:
            stretch.values.pop(one, None)

    def _numbers(self, node: fx.Node, stretch: Stretch) -> Any:
        """The value of `node` from numbers, once for the steps at which all that it reads stays what it was."""
        module = self.modules.get(str(node.target)) if node.op == "call_module" else None
        if asks_for_sizes(module):
            return self._call(node, stretch.sizes_of, self._watch)
        if not self._packing.changes:
            return self._from_numbers(node, stretch.read, self._watch)
        varying = [source for source in self._sources(node) if source in self.flow.varying]
        starts = None if module is None else stretch.repeating(varying)
        if starts is not None:
            try:
                found = self._repeated(node, module, stretch, starts)
            except UnknownSizeError:
                found = None
            if found is not None:
                self._show(node, module, stretch, found)
                return found
        takes_part = module is None and stretch.are_trees(varying)
        result = self._from_numbers(node, stretch.packed if takes_part else stretch.read, self._watch)
        if varying and not isinstance(module, MemoryModule) and not stretch.tell_time(varying):
            stretch.note_sized(node, result)
        return result

    def _repeated(self, node: fx.Node, module: Any, stretch: Stretch, starts: tuple[int, ...]) -> Any:
        """The value of `node` from what it reads at these steps, between which that stays the same; None if the value
        depends on more."""
        read = stretch.at(starts)
        knows_runs = isinstance(module, MemoryLayer) and type(module).runs_forward is not MemoryLayer.runs_forward
        if not isinstance(module, MemoryModule) or (knows_runs and len(starts) == stretch.steps):
            return stretch.again(self._from_numbers(node, read, None), starts)
        if not knows_runs:
            return None
        args, kwargs = fx.map_arg((node.args, node.kwargs), read)
        found = module.runs_forward([end - begin for begin, end in pairwise((*starts, stretch.steps))], *args, **kwargs)
        return None if found is None else stretch.again(found, starts)

    def _from_numbers(self, node: fx.Node, read: Callable[[fx.Node], Any], watch: Watch | None) -> Any:
        return (self._sum if node in self.flow.sums else self._call)(node, read, watch)

    def _show(self, node: fx.Node, module: Any, stretch: Stretch, result: Any) -> None:
        """Show a call to those who watch, of which the result is `Repeated`."""
        if self._watch is None:
            return
        if node in self.flow.sums:
            scaled = self.flow.sums[node].scaled
            addend: Any = scaled.args[0]
            name, module = str(scaled.target), self.modules[str(scaled.target)]
            self._watch(Call(name, module, (stretch.sizes_of(addend),), {}, None, (0,)))
            return
        args, kwargs = fx.map_arg((node.args, node.kwargs), stretch.packed)
        positions = self._varying_tensors(node, stretch.sizes_of)
        self._watch(Call(str(node.target), module, args, kwargs, sizes(result), positions))

    def _output(self, node: fx.Node, read: Callable[[fx.Node], Any], static: _Static) -> Any:
        moves = node in self.flow.varying or node in static.carrying
        value = read(node) if moves else static.values[node]
        if not tensors(value):
            raise InputError(
                f"The network returns {shown(value)} ({node.name}), a size or another value that is not a tensor; "
                "simulate runs tiles of samples and steps, which have other sizes. Return only tensors."
            )
        return value if moves else Constant(value)

    def _merged(self, node: fx.Node, static: _Static, shapes: dict[fx.Node, Any], steps: int) -> Any:
        """A size or a constant with time and samples merged: ``x.size(0)`` is T * N."""
        if node.op in ("get_attr", "placeholder"):
            return static.values[node]
        if node not in shapes:

            def read(source: fx.Node) -> Any:
                if source in static.carrying:
                    # Only the shape matters, and the meta device computes it for free.
                    return map_tensors(static.values[source], lambda x: x.to("meta").expand(steps, *x.shape))
                return self._merged(source, static, shapes, steps)

            shapes[node] = self._call(node, read)
        return shapes[node]

    def _sources(self, node: fx.Node) -> list[fx.Node]:
        """The nodes whose values `node` reads."""
        packed = self._packing.sources(node)
        if packed is not None:
            return packed
        merged = self.flow.sums.get(node)
        return [merged.total, merged.addend] if merged else node.all_input_nodes

    def _sum(self, node: fx.Node, read: Callable[[fx.Node], Any], watch: Watch | None) -> Any:
        """A sum with a scaled operand, in one pass where the shapes allow it."""
        merged = self.flow.sums[node]
        total, addend = read(merged.total), read(merged.addend)
        scaler = self.modules[str(merged.scaled.target)]
        if total.shape == addend.shape and total.dtype == addend.dtype:
            if watch is not None:
                watch(Call(str(merged.scaled.target), scaler, (addend,), {}, None, (0,)))
            return total.addcmul_(addend, scaler.scale)
        known = {merged.total: total, merged.scaled: scaler(addend)}
        return self._call(node, known.__getitem__, watch)

    def _call(
        self, node: fx.Node, read: Callable[[fx.Node], Any], watch: Watch | None = None, step_mode: str = "m"
    ) -> Any:
        if self._stop.is_set():
            raise Stopped
        args: Any = fx.map_arg(node.args, read)
        kwargs: Any = fx.map_arg(node.kwargs, read)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "call_function":
            function: Any = node.target
            return function(*args, **kwargs)
        module = self.modules[str(node.target)]
        if getattr(module, "step_mode", step_mode) != step_mode:
            module.step_mode = step_mode  # type: ignore[assignment]
        if node not in self.flow.varying:
            steady = self._steady.get(node)
            result = steady(args[0]) if steady and len(args) == 1 and not kwargs else None
            return module(*args, **kwargs) if result is None else result
        shortcut = self._shortcuts[str(node.target)]
        result = shortcut(module, args[0], node.args[0] in self.flow.exclusive) if shortcut and args else None
        if result is None:
            result = module(*args, **kwargs)
        if watch is not None:
            watch(Call(str(node.target), module, args, kwargs, result, self._varying_tensors(node, read)))
        return result

    def _varying_tensors(self, node: fx.Node, read: Callable[[fx.Node], Any]) -> tuple[int, ...]:
        """Positions, among the tensors that `node` receives, of those that vary over time."""
        sources = [leaf for leaf in leaves((node.args, node.kwargs)) if isinstance(leaf, fx.Node)]
        varies = [source in self.flow.varying for source in sources for _ in tensors(read(source))]
        return tuple(position for position, yes in enumerate(varies) if yes)


@dataclass
class _Static:
    """The values of one tile that do not vary over time."""

    values: dict[fx.Node, Any]
    carrying: set[fx.Node]
    """Nodes with tensors that depend on the input's values, not only on its size."""

    def note(self, node: fx.Node) -> None:
        """Record whether `node`, whose value is known, depends on the input's values."""
        from_input = node.op == "placeholder" or any(source in self.carrying for source in node.all_input_nodes)
        if from_input and tensors(self.values[node]):
            self.carrying.add(node)

    def select(self, rows: Tensor, samples: int) -> None:
        """Drop all samples but `rows`."""
        for node in self.carrying:
            self.values[node] = map_tensors(self.values[node], lambda x: select_rows(x, rows, samples))


def select_samples(module: nn.Module, rows: Tensor, samples: int) -> None:
    """Drop from the memories of `module` all samples but `rows`."""
    for name, value in memories(module).items():
        setattr(module, name, map_tensors(value, lambda x: select_rows(x, rows, samples)))


def select_rows(x: Tensor, rows: Tensor, samples: int) -> Tensor:
    """The `rows` of a batch; if a batch has several rows per sample (windows), all rows of each sample are kept."""
    if not x.dim() or x.shape[0] % samples:
        return x
    if x.shape[0] == samples:
        return x[rows.to(x.device)]
    parts = x.view(samples, -1, *x.shape[1:])
    return parts[rows.to(x.device)].flatten(0, 1)


def _channels_last(value: Tensor) -> Tensor:
    """Images as channels_last, which is fastest for convolutions on a CPU and on tensor cores."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
