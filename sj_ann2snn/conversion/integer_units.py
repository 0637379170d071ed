"""Finds in which units the values of a spiking network are carried once they are integers, and what prevents that.

Spikes are 1, so their unit is one; a sum over a window of n of them has the unit 1/n of the average for which it
stands. Currents have a unit that may be chosen, one for each channel. What is added up must have the same unit.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveMaxPoolNd, _MaxPoolNd

from ..compat import MemoryModule, is_neuron, is_plain_if
from ..integers.reading import SIGNS
from ..integers.recording import Recording
from ..layers import (
    ChannelAffine,
    CumulativeMax,
    CumulativeMaxPool,
    InitialPotential,
    InPlaceNeuron,
    MomentumMaxPool,
    Scaler,
    StepBias,
    Stepwise,
)
from ..support.shapes import spatial_of
from .graph.naming import operation_name
from .graph.weights import channel_axis
from .integer_groups import Group, Member, Place
from .integer_pools import NotSummed, sums_for
from .problems import Problem
from .round_weights import by_output

__all__ = ["LARGEST_SUM", "Units", "is_whole"]

ELSEWHERE = "Compute it before the data reaches the network, or convert without weights="
ALL = 1 << 10
"""More dimensions than a value has."""

LARGEST_SUM = 1 << 22
"""Of the integers of a network. All whole numbers up to 2**24 are exact in single precision, which leaves room for the
potential."""

FEWEST_LEVELS = 16
"""Integers of either sign that the weights of two layers in a row must have, unless they are to have fewer."""

RETRAIN = "Retrain the network with ReLU there, or convert without weights="


@dataclass
class Units:
    """The units of a network's values, and what happens to each node.

    Attributes:
        recording: The network on two samples.
        most: Largest integer of a weight.
        inputs: The value of one unit of every input, and its largest magnitude in such units.
        known: Nodes whose unit is given.
        currents: Nodes whose unit is `share` times that of a group.
        largest: Largest magnitude of a node's value, in its own float units.
        weighted: Weighted layers.
        factors: Scalers and affine maps.
        raised: For a reader and a value of a given unit, the group of the currents that the value becomes for it.
        neurons: Neurons, each with the nodes of its initial potential.
        pools: Average pools with the sums that replace them.
        results: What the network returns.
        problems: What cannot be done with integers.
    """

    recording: Recording
    most: int
    inputs: dict[fx.Node, tuple[float, int]]
    known: dict[fx.Node, float] = field(default_factory=dict)
    currents: dict[fx.Node, tuple[Group, float]] = field(default_factory=dict)
    largest: dict[fx.Node, float] = field(default_factory=dict)
    weighted: list[fx.Node] = field(default_factory=list)
    factors: list[fx.Node] = field(default_factory=list)
    raised: dict[tuple[fx.Node, fx.Node], Group] = field(default_factory=dict)
    neurons: dict[fx.Node, list[fx.Node]] = field(default_factory=dict)
    pools: dict[fx.Node, tuple[nn.Module, bool]] = field(default_factory=dict)
    results: list[fx.Node] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def find(self) -> None:
        """Fill everything in."""
        for node in self.recording.network.graph.nodes:
            if node.op == "output":
                self.results = [one for one in node.all_input_nodes if self.has(one)]
            elif node in self.recording.carrying:
                self._node(node)

    def has(self, node: fx.Node) -> bool:
        """True for a node whose value is integers."""
        return node in self.known or node in self.currents

    def group(self, node: fx.Node) -> tuple[Group, float]:
        """The group of a current, and the node's unit in that of the group."""
        group, share = self.currents[node]
        root, ratio = group.root()
        return root, ratio * share

    def is_result(self, node: fx.Node) -> bool:
        """True for a scaler whose results the network returns, and which nothing else reads."""
        return bool(node.users) and all(user.op == "output" for user in node.users)

    def _module(self, node: fx.Node) -> Any:
        return self.recording.network.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _node(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            unit, most = self.inputs[node]
            self.known[node], self.largest[node] = unit, unit * most
            return
        operands = self.recording.operands(node)
        if not all(map(self.has, operands)):
            return  # what it reads has been reported
        module = self._module(node)
        operation = module.operation if isinstance(module, Stepwise) else module
        if node.op == "call_function":
            operation = node.target
        if not all(isinstance(self.recording.values[one], Tensor) for one in operands):
            self._pick(node, operation, operands)
        elif isinstance(operation, (nn.Linear, _ConvNd)):
            self._weighted(node, operation, operands[0])
        elif is_neuron(module) or isinstance(module, InPlaceNeuron):
            self._neuron(node, module, operands[0])
        elif isinstance(module, (Scaler, ChannelAffine)):
            self._factors(node, module, operands[0])
        elif isinstance(module, InitialPotential):
            self._same(node, operands[0])
        elif (pool := _maxima(operation)) is not None:
            self._same(node, operands[0], mixed=spatial_of(pool))
        elif isinstance(module, StepBias):
            why = "it adds another bias at every step, and an integer neuron takes the same one at all of them"
            self._refuse(node, module, why, "Convert without the correction that sets step biases, or without weights=")
            self._same(node, operands[0])  # so that all of them are found
        elif isinstance(module, MomentumMaxPool):
            self._refuse(
                node, module, "it compares averages over time, which are no integers", "Use maxpool='cumulative'"
            )
        elif isinstance(module, MemoryModule):
            self._refuse(node, module, "it keeps a state that is not of integers", RETRAIN)
        elif (sums := sums_for(node, module, self.recording.shape(operands[0]))) is not None:
            if isinstance(sums, NotSummed):
                self._refuse(node, operation, sums.why, sums.advice)
            else:
                self._average(node, operands[0], sums)
        elif not isinstance(operation, nn.Module) and operation in (torch.sum, "sum"):
            self._same(node, operands[0], times=self._ratio(operands[0], node), mixed=ALL)
        elif not isinstance(operation, nn.Module) and operation in SIGNS:
            self._sum(node, operation, operands)
        else:
            self._moves(node, operation, operands)

    def _weighted(self, node: fx.Node, layer: Any, source: fx.Node) -> None:
        if isinstance(layer, _ConvNd) and layer.padding_mode != "zeros":
            self._refuse(node, layer, f"it pads with padding_mode={layer.padding_mode!r}", "Pad with zeros")
            return
        weight = by_output(layer, layer.weight.detach().double())
        bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().cpu()
        bound = weight.abs().sum(1).cpu() * self.largest[source] + bias.abs()
        axis = channel_axis(layer, len(self.recording.shape(node)) + 1) - 1
        largest = float(weight.abs().max()) if weight.numel() else 0.0
        width = float(bound.max()) / (largest * self.largest[source]) if largest else 1.0
        if source in self.currents:
            group = self.group(source)[0]
            if isinstance(group.place, Place) and group.place.axis != axis:
                group.place = None  # its weights mix these channels, so they cannot undo units of their own
            integers, in_a_row = 1.0, group.in_a_row + 1
            self._share_bits(node, layer, source, width)
        else:
            integers, in_a_row = self.largest[source] / self.known[source], 1
        self._make(node, Place(axis, len(weight), len(self.recording.shape(node))), float(bound.max()))
        self.currents[node][0].reach, self.currents[node][0].in_a_row = integers * width, in_a_row
        self.weighted.append(node)

    def _share_bits(self, node: fx.Node, layer: Any, source: fx.Node, width: float) -> None:
        """The node multiplies what are sums of products already: both layers' weights share the bits of its sums.

        Its sums are `width` times as large as its largest product. With weights of up to w in both layers they reach
        w² times that times the reach of the layer before, which must stay in the range of sums.
        """
        group, share = self.group(source)
        levels = (LARGEST_SUM / (group.reach * width)) ** 0.5
        if group.in_a_row > 1 or levels < min(self.most, FEWEST_LEVELS):
            bits = LARGEST_SUM.bit_length() - 1
            why = (
                "it reads the sums of another layer without an activation between them, and the weights of "
                f"{'three layers' if group.in_a_row > 1 else 'both'} would share the {bits} bits of a sum"
            )
            self._refuse(node, layer, why, "Put an activation between them, or make one layer of them")
            return
        # The weights of this layer have as many bits as they are to have, if that leaves as many for those before it.
        own = min(float(self.most), levels)
        group.least = max(group.least, self.largest[source] * own * width / LARGEST_SUM / share)

    def _factors(self, node: fx.Node, module: Any, source: fx.Node) -> None:
        if isinstance(module, Scaler) and self.is_result(node):
            self._same(node, source)
            return
        affine = isinstance(module, ChannelAffine)
        factor: Tensor = (module.weight if affine else module.scale).detach()
        bias = float(module.bias.detach().abs().max()) if affine else 0.0
        if affine and source in self.currents and bool((factor == 1).all()):
            group, share = self.group(source)
            self.currents[node] = group, share
            self.largest[node] = self.largest[source] + bias
            group.bound = max(group.bound, self.largest[node])
            group.put(self._place(module.bias, node))
        else:
            most = float(factor.abs().max()) * self.largest[source] + bias
            self._make(node, self._place(factor, node), most)
        self.factors.append(node)

    def _place(self, factor: Tensor, node: fx.Node) -> Place | str | None:
        """Where the channels of factors are."""
        ndim = len(self.recording.shape(node))
        shape = (1,) * (ndim - factor.dim()) + tuple(factor.shape)[-ndim:]
        axes = [axis for axis, size in enumerate(shape) if size > 1]
        if not axes:
            return "open"
        return Place(axes[0], shape[axes[0]], ndim) if len(axes) == 1 else None

    def _make(self, node: fx.Node, place: Place | str | None, bound: float) -> None:
        """The node makes currents of a new group."""
        group = Group(place, [Member(node, 1.0)], bound=bound)
        self.currents[node], self.largest[node] = (group, 1.0), bound

    def _neuron(self, node: fx.Node, neuron: Any, source: fx.Node) -> None:
        if not is_plain_if(neuron) or neuron.v_threshold != 1.0:
            self._refuse(
                node,
                neuron,
                "it does not emit binary spikes with a soft reset at a threshold of 1",
                "Use neuron='if'",
            )
            self.known[node] = self.largest[node] = 1.0  # so that all of them are found
            return
        potentials = []
        while isinstance(self._module(source), InitialPotential):
            potentials.append(source)
            source = source.all_input_nodes[0]
        if source in self.currents:
            self.group(source)[0].charges = True
        elif not is_whole(1 / self.known[source]) or self.largest[source] > 1:
            self._raise(node, source).charges = True
        self.neurons[node] = potentials
        self.known[node] = self.largest[node] = 1.0

    def _same(self, node: fx.Node, source: fx.Node, times: float = 1.0, mixed: int = 0) -> None:
        """The node's value has the unit of its source; it mixes so many of the last dimensions."""
        if source in self.known:
            self.known[node] = self.known[source]
        else:
            group, share = self.group(source)
            self.currents[node] = group, share
            self._mix(group, mixed)
        self.largest[node] = self.largest[source] * times

    def _ratio(self, source: fx.Node, node: fx.Node) -> float:
        values = self.recording.values
        return float(values[source].numel() / values[node].numel())

    def _average(self, node: fx.Node, source: fx.Node, sums: tuple[nn.Module, int, bool]) -> None:
        replacement, divisor, keeps_arguments = sums
        if isinstance(replacement, Stepwise):
            replacement.sequences = self._module(node).sequences
        self.pools[node] = replacement, keeps_arguments
        if source in self.known:
            self.known[node] = self.known[source] / divisor
        else:
            group, share = self.group(source)
            self.currents[node] = group, share / divisor
            self._mix(group, ALL if keeps_arguments else replacement.spatial)  # type: ignore[arg-type]
        self.largest[node] = self.largest[source]

    @staticmethod
    def _mix(group: Group, dimensions: int) -> None:
        """An operation mixes so many of the last dimensions, so channels there cannot have units of their own."""
        if isinstance(group.place, Place) and group.place.axis >= group.place.ndim - dimensions:
            group.put(None)

    def _sum(self, node: fx.Node, operation: Any, operands: list[fx.Node]) -> None:
        signs = SIGNS[operation]
        if len(operands) != len(signs) or node.kwargs or len(node.args) != len(signs):
            self._refuse(
                node, operation, "it adds a constant", "Add it by the bias of a layer, or convert without weights="
            )
            return
        if operation in (operator.neg, torch.neg, "neg"):
            why = "it negates a current, for an activation of both signs (LeakyReLU, abs), whose spikes have a sign"
            self._refuse(node, operation, why, RETRAIN)
            return
        units = [self.known.get(one) for one in operands]
        if units[0] is not None and units == units[:1] * len(units) and min(signs) > 0:
            self.known[node], self.largest[node] = units[0], sum(self.largest[one] for one in operands)
            return  # a count of spikes
        current: tuple[Group, float] | None = None
        for one in operands:
            if one in self.currents:
                group, share = self.group(one)
            else:  # spikes become currents
                group, share = self._raise(node, one), 1.0
            if current is None:
                current = group, share
                continue
            first, own = current
            if group is first and share != own:
                self._refuse(node, operation, "it adds a current and an average of the same current", RETRAIN)
                return
            first.join(group, own / share)
        assert current is not None
        self.currents[node] = current
        self.largest[node] = sum(self.largest[one] for one in operands)
        group, _ = self.group(node)
        group.bound = max(group.bound, self.largest[node])
        if len({len(self.recording.shape(one)) for one in operands}) > 1:
            group.put(None)  # one operand is repeated along dimensions that the other has

    def _raise(self, node: fx.Node, source: fx.Node) -> Group:
        """The group of the currents that `node` reads where a value of a given unit is."""
        member = Member(source, 1.0, raised_for=node)
        self.raised[node, source] = Group("open", [member], bound=self.largest[source])
        return self.raised[node, source]

    def _moves(self, node: fx.Node, operation: Any, operands: list[fx.Node]) -> None:
        moves = self.recording.moves(node)
        if moves is None:
            self._refuse(node, operation, "it does not map integers to integers", ELSEWHERE)
            return
        if all(one in self.known for one in operands):
            units = {self.known[one] for one in operands}
            self.largest[node] = max(self.largest[one] for one in operands)
            if len(units) == 1:
                self.known[node] = units.pop()
                return
            self._refuse(
                node,
                operation,
                "it joins spikes with averages of spikes, which count in other units",
                "Convert with avgpool_neuron=True, so that spikes come behind every average pool",
            )
            return
        if any(one in self.known for one in operands):
            self._refuse(node, operation, "it joins spikes with currents", "Put an activation on every branch")
            return
        first, own = self.group(operands[0])
        for one in operands[1:]:
            group, share = self.group(one)
            if group is first and share != own:
                self._refuse(node, operation, "it joins a current with an average of the same current", RETRAIN)
                return
            first.join(group, own / share)
        self.currents[node] = first, own
        self.largest[node] = max(self.largest[one] for one in operands)
        kept = len(operands) == 1 and len(moves) == 1 and _keeps_channels(moves[0], self.recording.shape(operands[0]))
        same_rank = moves[0].ndim == len(self.recording.shape(operands[0]))
        if not kept or not same_rank or (isinstance(first.place, Place) and first.place.axis != 0):
            first.put(None)

    def _pick(self, node: fx.Node, operation: Any, operands: list[fx.Node]) -> None:
        """The node takes one of several results of another one."""
        source = operands[0]
        if node.op != "call_function" or node.target is not operator.getitem:
            self._refuse(node, operation, "it reads several values at once", ELSEWHERE)
            return
        self.largest[node] = self.largest[source]
        if source in self.known:
            self.known[node] = self.known[source]
        else:
            self.currents[node] = self.group(source)

    def _refuse(self, node: fx.Node, operation: Any, why: str, advice: str) -> None:
        name = str(node.target) if node.op == "call_module" else node.name
        kind = type(operation).__name__ if isinstance(operation, nn.Module) else operation_name(operation)
        self.problems.append(Problem(name, kind, "", why, f"{advice}."))


def is_whole(value: float) -> bool:
    """True for a whole number, give or take what rounding has left."""
    return abs(value - round(value)) < 1e-9 * abs(value)


def _maxima(operation: Any) -> nn.Module | None:
    """The max pool that an operation is, or holds."""
    if isinstance(operation, CumulativeMax):
        operation = operation.maximum
    return operation if isinstance(operation, (CumulativeMaxPool, _MaxPoolNd, _AdaptiveMaxPoolNd)) else None


def _keeps_channels(index: Any, shape: tuple[int, ...]) -> bool:
    """True if each element stays in its channel, in dimension 0 of a sample."""
    if index.shape[:1] != shape[:1] or not len(shape):
        return False
    channel = index // max(1, int(np.prod(shape[1:])))
    wanted = np.arange(len(index)).reshape(-1, *(1,) * (index.ndim - 1))
    return bool(((index < 0) | (channel == wanted)).all())
