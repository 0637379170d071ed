"""Counts the operations of a spiking network, layer by layer, while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ...compat import MemoryModule
from ...layers.affine import ChannelAffine, Scaler
from ...layers.integer import SumPool
from ...layers.step_bias import StepBias
from ...simulation.engine import Call
from ...simulation.engine.numbers.firing import is_spiking
from ...support.trees import tensors
from ..activity import Connections
from ..synapses import OWN_LAYERS, Synapses, operation_name
from ..tile import Tile

__all__ = ["CostTile", "Operations", "Totals", "neuron_names"]

POOLS = (
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
)

SCALING_LAYERS = (Scaler, ChannelAffine, _NormBase, nn.PReLU, *POOLS)
"""Layers that multiply single elements by factors."""

SCALING = (
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "div",
    "divide",
    "mean",
    "mul",
    "multiply",
    "prelu",
    "true_divide",
    "truediv",
)
"""Functions and methods that do: an average pool multiplies each of its outputs by one."""

RESAMPLING = ("affine_grid", "grid_sample", "interpolate", "lp_pool1d", "lp_pool2d", "lp_pool3d", "upsample")
"""Functions whose products are not counted."""

KNOWN_HOMES = ("torch.", "spikingjelly.", OWN_LAYERS)


class Operations(Synapses):
    """The operations of one tile.

    Attributes:
        spikes: By layer, the operations that unit values (1 or −1) cause: one addition each.
        sums: By layer, additions that are no synaptic operations: those of sums over windows, and of biases per step.
        products: By layer, multiplications of single elements.
        skipped: Layers among `not_counted` by their name alone, with what they are.
    """

    def __init__(self, remember: Any, steps: int) -> None:
        super().__init__(remember, steps)
        self.spikes: dict[str, float] = {}
        self.sums: dict[str, float] = {}
        self.products: dict[str, int] = {}
        self.skipped: dict[str, str] = {}

    def add(self, call: Call, first: int) -> None:
        before, skipped = self.layers.get(call.name), len(self.skipped)
        super().add(call, first)
        if self.layers.get(call.name) == before and len(self.skipped) == skipped:
            self._element_wise(call, first)

    def _count(self, name: str, x: Any, key: Hashable, make: Callable[[], Tensor]) -> None:
        super()._count(name, x, key, make)
        units = x.where(x.abs() == 1, torch.zeros((), dtype=x.dtype, device=x.device))
        found = self._remember(key, lambda: Connections.of(make())).operations(units)
        self.spikes[name] = self.spikes.get(name, 0.0) + sum(found)

    def _skip(self, name: str, operation: Any) -> None:
        super()._skip(name, operation)
        self.skipped[name] = next(reversed(self.not_counted))

    def _element_wise(self, call: Call, first: int) -> None:
        """A call that multiplies no weights, at the step `first` and those after it."""
        module = call.operation
        operation = getattr(module, "operation", module)
        if isinstance(module, nn.Module) and not call.over_time:
            return  # what a module does is shown as its own calls of functions
        if isinstance(module, MemoryModule) and not type(module).__module__.startswith(OWN_LAYERS):
            self._skip(call.name, operation)
        elif isinstance(operation, SumPool):
            (x,) = tensors(call.args)
            windows = operation.sums(x.ne(0).to(torch.float64).flatten(0, 1))
            self.sums[call.name] = self.sums.get(call.name, 0.0) + float(windows.sum())
        elif isinstance(module, StepBias):
            steps = max(0, min(len(call.result), len(module.bias) - first))
            self.sums[call.name] = self.sums.get(call.name, 0.0) + steps * call.result[0].numel()
        elif isinstance(operation, SCALING_LAYERS) or operation_name(operation) in SCALING:
            values = call.result if isinstance(operation, POOLS) or call.result is not None else call.args
            self.products[call.name] = self.products.get(call.name, 0) + sum(
                int(y.count_nonzero()) for y in tensors(values)
            )
        elif operation_name(operation) in RESAMPLING or isinstance(operation, (nn.Upsample, nn.LPPool1d, nn.LPPool2d)):
            if _interpolates(call, operation):
                self._skip(call.name, operation)
        elif isinstance(operation, nn.Module) and not type(operation).__module__.startswith(KNOWN_HOMES):
            self._skip(call.name, operation)


class Totals:
    """The operations of all tiles, which may end side by side.

    Args:
        neurons: The names of the neurons, and of everything inside them.
    """

    def __init__(self, neurons: set[str]) -> None:
        self.neurons = neurons
        self.events: dict[str, float] = {}
        self.spikes: dict[str, float] = {}
        self.sums: dict[str, float] = {}
        self.products: dict[str, float] = {}
        self.updates: dict[str, float] = {}
        self.skipped: dict[str, str] = {}
        self.seen: dict[str, None] = {}
        self.steps = 0
        self._lock = threading.Lock()

    def add(self, found: Operations, updates: Mapping[str, float], seen: Iterable[str], steps: int) -> None:
        """Add a finished tile.

        Args:
            found: Its operations.
            updates: By neuron, its steps.
            seen: All layers that were watched.
            steps: Number of steps, of all samples.
        """
        with self._lock:
            self._add(found, updates)
            self.skipped.update(found.skipped)
            self.seen.update(dict.fromkeys(seen))
            self.steps += steps

    def _add(self, found: Operations, updates: Mapping[str, float]) -> None:
        for total, counts in (
            (self.events, found.layers),
            (self.spikes, found.spikes),
            (self.sums, found.sums),
            (self.products, found.products),
            (self.updates, updates),
        ):
            for name, count in counts.items():
                total[name] = total.get(name, 0.0) + count


class CostTile(Tile):
    """A tile that counts every operation, and not only synaptic ones.

    Args:
        totals: Receives its counts.
        args: As for `Tile`.
    """

    watches_spikes = False  # products with factors count as well
    synapses_type = Operations

    def __init__(self, totals: Totals, *args: Any) -> None:
        super().__init__(*args)
        self.updates: dict[str, float] = {}
        self.seen: dict[str, None] = {}
        self._totals = totals

    def watch(self, call: Call) -> None:
        """Count a call."""
        if call.name in self._totals.neurons and not isinstance(call.operation, nn.Module):
            return  # what a neuron does inside counts as its update
        self.seen[call.name] = None
        super().watch(call)

    def add_emissions(self, name: str, neuron: nn.Module, y: Any) -> None:
        """Count what a neuron emitted, and its updates."""
        super().add_emissions(name, neuron, y)
        self.seen[name] = None
        self.updates[name] = self.updates.get(name, 0.0) + y.numel()

    def result(self) -> None:
        super().result()
        assert isinstance(self.synapses, Operations)
        self._totals.add(self.synapses, self.updates, self.seen, self.steps_simulated)


def neuron_names(snn: nn.Module) -> set[str]:
    """The names of the neurons of a network, and of everything inside them."""
    return {
        f"{name}.{inner}" if inner else name
        for name, module in snn.named_modules()
        if is_spiking(module)
        for inner, _ in module.named_modules()
    }


def _interpolates(call: Call, operation: Any) -> bool:
    """False for copies of pixels."""
    mode = getattr(operation, "mode", None) or call.kwargs.get("mode", "nearest")
    return not str(mode).startswith("nearest")
