"""Stage: turns a spiking network into one that computes with integers only."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..compat import fresh_memories, reset_memories
from ..errors import IntegerError
from ..integers.recording import recorded
from ..layers import ChannelAffine, IntegerIF, IntegerInput, Scaler, Stepwise
from ..support.shapes import along_axis
from .graph.weights import output_factor, scaled_layer, with_parameters
from .integer_corrections import RoundedLayer, correct_rounding
from .integer_groups import Group, Member, by_channel
from .integer_inputs import InputRange, Samples
from .integer_units import LARGEST_SUM, Units
from .problems import lines_of
from .round_weights import by_output

__all__ = ["quantize"]

FACTOR_BITS = 16
"""Bits of what shortcuts multiply spikes by; a product of a spike costs no multiplication."""

LEAST_THRESHOLD = 256
"""A bias is rounded to a share of the threshold, so the threshold must not be small; a shift makes it larger."""

MOST_THRESHOLD = (1 << 15) - 1
"""Thresholds fit into 16 bits."""

FINEST_RESULT = 1024
"""Steps of a result's unit in the largest weight of the last layer, at least: its bias is rounded to them."""

CLIPS = torch.arange(0.5, 1.001, 0.02, dtype=torch.float64)
"""Shares of the largest weight that are tried as the largest one that is represented."""


def quantize(network: fx.GraphModule, two_samples: tuple[Any, ...], samples: Samples, bits: int) -> None:
    """Turn the finished spiking network into one of integers, in place.

    Args:
        network: Reset and in step mode "s".
        two_samples: One value per input.
        samples: What the calibration data holds.
        bits: Width of the weights.

    Raises:
        IntegerError: Parts of it cannot be integers; the message lists them, with what to change.
    """
    plain = copy.deepcopy(network)
    recording = recorded(network, two_samples)
    reset_memories(network)
    inputs = [node for node in network.graph.nodes if node.op == "placeholder" and node in recording.carrying]
    ranges = dict(zip(inputs, samples.ranges, strict=False))
    units = Units(recording, (1 << (bits - 1)) - 1, {node: (one.scale, one.high) for node, one in ranges.items()})
    units.find()
    if units.problems:
        count = len(units.problems)
        raise IntegerError(
            f"{count} operation{'s' if count > 1 else ''} of the network cannot compute with integers "
            "(weights='int...'):\n" + "\n".join(f"  - {line}" for line in lines_of(units.problems)),
            tuple((one.name, one.why) for one in units.problems),
        )
    made = _Quantizer(network, units, ranges, bits)
    made.run()
    correct_rounding(network, plain, samples.kept, made.layers)
    reset_memories(network)


@dataclass(frozen=True)
class _Rows:
    """What a member multiplies integers by, ``[channels, ...]`` in float64."""

    member: Member
    weight: Tensor
    bits: int


class _Quantizer:
    def __init__(self, network: fx.GraphModule, units: Units, ranges: dict[fx.Node, InputRange], bits: int) -> None:
        self.network, self.units, self.ranges, self.bits = network, units, ranges, bits
        self.resolving: list[Group] = []
        self.layers: dict[str, RoundedLayer] = {}
        self.dtype = next((one.dtype for one in network.parameters() if one.is_floating_point()), torch.float32)
        self.device = next((one.device for one in network.parameters()), torch.device("cpu"))

    def run(self) -> None:
        units = self.units
        for node in units.weighted:
            self._set(node, self._weighted(node))
        for node in units.factors:
            if not (isinstance(self._module(node), Scaler) and units.is_result(node)):
                self._set(node, self._factors(node))
        for node, potentials in units.neurons.items():
            self._set(node, self._neuron(node, potentials))
            for one in potentials:
                one.replace_all_uses_with(one.all_input_nodes[0])
                self.network.graph.erase_node(one)
                self.network.delete_submodule(str(one.target))
        for node, (module, keeps_arguments) in units.pools.items():
            self._set(node, module)
            if not keeps_arguments:
                node.args, node.kwargs = (node.all_input_nodes[0],), {}
        for (reader, source), group in units.raised.items():
            self._raise(reader, source, group)
        for node in dict.fromkeys(units.results):
            self._result(node)
        for node, found in self.ranges.items():
            shape = self.units.recording.shape(node)
            module = IntegerInput(scale=found.scale, low=found.low, high=found.high, shape=shape)
            self._insert(node, f"{node.name}_integers", module, list(node.users))
        self.network.graph.lint()
        self.network.recompile()

    def _module(self, node: fx.Node) -> Any:
        return self.network.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _layer(self, node: fx.Node) -> Any:
        module = self._module(node)
        return module.operation if isinstance(module, Stepwise) else module

    def _set(self, node: fx.Node, module: nn.Module) -> None:
        module = module.to(device=self.device).eval()
        found = self._module(node)
        if isinstance(found, Stepwise) and type(module) is type(found.operation):
            module = Stepwise(module, found.sequences)
        self.network.set_submodule(str(node.target), module)

    def _insert(self, node: fx.Node, name: str, module: nn.Module, readers: Iterable[fx.Node]) -> None:
        """Put a module between a node and some of its readers."""
        taken = {str(one.target) for one in self.network.graph.nodes if one.op == "call_module"}
        target, count = name.replace(".", "_"), 1
        while target in taken or hasattr(self.network, target):
            target, count = f"{name.replace('.', '_')}_{count}", count + 1
        self.network.add_submodule(target, module.to(device=self.device).eval())
        with self.network.graph.inserting_after(node):
            made = self.network.graph.call_module(target, (node,))
        for reader in readers:
            reader.replace_input_with(node, made)

    # The units of currents

    def _resolved(self, node: fx.Node) -> tuple[Tensor, Group]:
        """The unit of a current, ``[channels]`` or a scalar, and its group."""
        group, share = self.units.group(node)
        return self._unit(group) * share, group

    def _unit(self, group: Group) -> Tensor:
        if group.unit is None:
            if group in self.resolving:
                names = ", ".join(str(one.node.target) for one in group.members)
                raise IntegerError(
                    f"The layers {names} feed each other's sums without an activation between them, so their units "
                    "depend on each other. Put an activation there, or convert without weights=.",
                    tuple((str(one.node.target), "its unit depends on itself") for one in group.members),
                )
            self.resolving.append(group)
            group.unit = self._chosen(group)
            self.resolving.remove(group)
        return group.unit

    def _chosen(self, group: Group) -> Tensor:
        """The unit of a group: as coarse as lets the weights of its largest layer fill their bits."""
        if group.place == "open":
            group.place = None
        rows = [self._rows(member, group) for member in group.members]
        main = max(rows, key=lambda one: (one.bits == self.bits, one.weight.shape[1]))
        # A factor on its own can be a power of two, as a shift, and the threshold makes up for it.
        group.shifts = len(rows) == 1 and group.charges and rows[0].bits == FACTOR_BITS and main.weight.shape[1] == 1
        most = 1 if group.shifts else (1 << (main.bits - 1)) - 1
        step = _best_step(main.weight, most)
        coarsest = torch.where(step > 0, step, torch.ones_like(step)) / main.member.share
        if group.charges:
            shift = torch.ceil(torch.log2(LEAST_THRESHOLD * coarsest)).clamp(min=0)
            highest = max(1.0, min(MOST_THRESHOLD, 1 / max(group.bound / LARGEST_SUM, group.least, 1e-30)))
            threshold = (torch.exp2(shift) / coarsest).round().clamp(1, math.floor(highest))
            if any(member.raised_for is not None for member in group.members):
                threshold = _leading(threshold, self.bits - 1)
            unused = float(math.floor(min(LEAST_THRESHOLD, highest)))
            unit = 1 / torch.where(step > 0, threshold, torch.full_like(threshold, unused))
        else:
            unit = coarsest / 2.0 ** max(0, math.ceil(math.log2(FINEST_RESULT / most)))
            unit = torch.where(step > 0, unit, torch.full_like(unit, group.bound / LARGEST_SUM))
            unit = unit.clamp(min=max(group.bound / LARGEST_SUM, group.least, 1e-30))
        return unit if group.channels is not None else unit.reshape(())

    def _rows(self, member: Member, group: Group) -> _Rows:
        """What a member multiplies the integers that it reads by."""
        if member.raised_for is not None:
            weight = torch.full((group.channels or 1, 1), self.units.known[member.node], dtype=torch.float64)
            return _Rows(member, weight, FACTOR_BITS)
        if member.node in self.units.factors:
            factor = self._factor(member.node)
            ndim = len(self.units.recording.shape(member.node))
            rows = by_channel(factor.reshape((1,) * (ndim - factor.dim()) + tuple(factor.shape)), group.place)
            if group.channels is not None and len(rows) == 1:
                rows = rows.expand(group.channels, -1)
            return _Rows(member, rows, FACTOR_BITS)
        layer = self._folded(member.node)
        rows = by_output(layer, layer.weight.detach().cpu())
        return _Rows(member, rows if group.channels is not None else rows.reshape(1, -1), self.bits)

    def _incoming(self, node: fx.Node) -> Tensor:
        """The unit of the value that a node reads, one for each channel of a layer or one for all."""
        source = node.all_input_nodes[0]
        if source in self.units.known:
            return torch.tensor(self.units.known[source], dtype=torch.float64)
        return self._resolved(source)[0]

    def _folded(self, node: fx.Node) -> Any:
        """The weighted layer at a node for inputs that are integers, in float64."""
        layer = copy.deepcopy(self._layer(node)).double().cpu()
        incoming = self._incoming(node)
        return layer if bool((incoming == 1).all()) else scaled_layer(layer, inputs=incoming)

    def _factor(self, node: fx.Node) -> Tensor:
        """The factors of a scaler or affine map for inputs that are integers, in a shape that broadcasts."""
        module = self._module(node)
        factor = (module.weight if isinstance(module, ChannelAffine) else module.scale).detach().double().cpu()
        return factor * self._shaped(node.all_input_nodes[0], self._incoming(node))

    def _shaped(self, node: fx.Node, unit: Tensor) -> Tensor:
        """A unit in a shape that broadcasts over a sample of a node."""
        if not unit.dim():
            return unit
        place: Any = self.units.group(node)[0].place
        return along_axis(unit, len(self.units.recording.shape(node)), place.axis)

    # The modules

    def _weighted(self, node: fx.Node) -> nn.Module:
        unit, _ = self._resolved(node)
        layer, most = self._folded(node), (1 << (self.bits - 1)) - 1
        rows = by_output(layer, layer.weight.detach())
        unit = unit.expand(len(rows))
        step = _best_step(rows, most)
        grid = unit * torch.exp2(_shifts(step, unit))
        exact = layer.weight.detach() / output_factor(layer, layer.weight, grid)
        weight = _clipped(exact, most) * output_factor(layer, layer.weight, grid / unit)
        self.layers[str(node.target)] = RoundedLayer(exact, most, (grid / unit).round(), unit)
        bias = torch.zeros(len(rows)) if layer.bias is None else (layer.bias.detach() / unit).round()
        return with_parameters(self._layer(node), weight.to(self.dtype), bias.to(self.dtype))

    def _factors(self, node: fx.Node) -> nn.Module:
        module, (unit, group) = self._module(node), self._resolved(node)
        shaped = self._shaped(node, unit)
        ndim = len(self.units.recording.shape(node))
        if isinstance(module, ChannelAffine):
            source = node.all_input_nodes[0]
            own = bool((module.weight == 1).all()) and source in self.units.currents
            weight = torch.ones(()) if own else self._integer_factor(node, shaped, group)
            bias = module.bias.detach().double().cpu() / shaped
            return _affine(weight, bias.round(), ndim, self.dtype)
        return Scaler(self._integer_factor(node, shaped, group).to(self.dtype))

    def _integer_factor(self, node: fx.Node, unit: Tensor, group: Group) -> Tensor:
        factor = self._factor(node) / unit
        if group.shifts:
            return torch.where(factor == 0, factor, factor.sign() * torch.exp2(factor.abs().log2().round()))
        most = (1 << (FACTOR_BITS - 1)) - 1
        grid = torch.exp2(_shifts(factor.abs() / most, torch.ones(()).double()))
        return (factor / grid).round().clamp(-most, most) * grid

    def _raise(self, reader: fx.Node, source: fx.Node, group: Group) -> None:
        root, ratio = group.root()
        unit = self._unit(root) * ratio
        if unit.dim():
            place: Any = root.place
            unit = along_axis(unit, len(self.units.recording.shape(source)), place.axis)
        most = (1 << (FACTOR_BITS - 1)) - 1
        factor = self.units.known[source] / unit
        grid = torch.exp2(_shifts(factor / most, torch.ones(()).double()))
        module = Scaler(((factor / grid).round() * grid).to(self.dtype))
        self._insert(source, f"{source.name}_current", module, [reader])

    def _neuron(self, node: fx.Node, potentials: list[fx.Node]) -> IntegerIF:
        source = node.all_input_nodes[0]
        while source in potentials:
            source = source.all_input_nodes[0]
        if (node, source) in self.units.raised:
            root, ratio = self.units.raised[node, source].root()
            unit = self._unit(root) * ratio
        elif source in self.units.known:
            unit = torch.tensor(self.units.known[source], dtype=torch.float64)
        else:
            unit = self._shaped(source, self._resolved(source)[0])
        threshold = (1 / unit).round()
        start = fresh_memories(self._module(node)).get("v", 0.0)
        potential = torch.full_like(threshold, float(start) if isinstance(start, (int, float)) else 0.0)
        for one in potentials:
            potential = potential + self._module(one).potential.detach().double().cpu()
        return IntegerIF(threshold.to(self.dtype), (potential * threshold).round().to(self.dtype))

    def _result(self, node: fx.Node) -> None:
        """Let the network return a result in the ANN's units."""
        scaler = isinstance(self._module(node), Scaler) and self.units.is_result(node)
        if node in self.units.known:
            unit = torch.tensor(self.units.known[node], dtype=torch.float64)
        else:
            unit = self._shaped(node, self._resolved(node)[0])
        if scaler:
            scale = self._module(node).scale.detach().double().cpu() * unit
            self._set(node, Scaler(scale.to(self.dtype)))
            return
        output = [user for user in node.users if user.op == "output" or user not in self.units.recording.carrying]
        self._insert(node, f"{node.name}_result", Scaler(unit.to(self.dtype)), output)


def _affine(weight: Tensor, bias: Tensor, ndim: int, dtype: torch.dtype) -> ChannelAffine:
    """An affine map with factors and shifts that broadcast over a sample of so many dimensions."""
    shape = (weight + bias).shape
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    axis = axes[0] + ndim - len(shape) if axes else 0
    weight, bias = (one.broadcast_to(shape).reshape(-1).to(dtype) for one in (weight, bias))
    return ChannelAffine(weight, bias, ndim + 1, axis + 1)


def _shifts(step: Tensor, unit: Tensor) -> Tensor:
    """The powers of two that bring weights with the steps `step` into the unit."""
    ratio = (step / unit).clamp(min=1.0)
    return torch.ceil(torch.log2(ratio) - 1e-6)


def _leading(values: Tensor, bits: int) -> Tensor:
    """Whole numbers of so many bits, each times a power of two, not larger than `values`.

    A spike that is added to a sum charges a neuron with its threshold, which is a weight of that width then.
    """
    grid = torch.exp2((torch.floor(torch.log2(values)) + 1 - bits).clamp(min=0))
    return torch.floor(values / grid) * grid


def _clipped(values: Tensor, most: int) -> Tensor:
    return values.round().clamp(-most, most)


def _best_step(rows: Tensor, most: int) -> Tensor:
    """For every row, the step between integers at which rounding and clipping change the weights least.

    Source: Banner et al. 2019, "Post-training 4-bit quantization of convolutional networks for rapid-deployment".
    """
    largest = rows.abs().amax(1)
    if most > 100:  # clipping gains nothing
        return largest / most
    best, error = largest / most, torch.full_like(largest, torch.inf)
    for clip in CLIPS:
        step = (largest * clip / most).clamp(min=1e-30)
        off = (_clipped(rows / step[:, None], most) * step[:, None] - rows).square().sum(1)
        best, error = torch.where(off < error, largest * clip / most, best), torch.minimum(off, error)
    return best
