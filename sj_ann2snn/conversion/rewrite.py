"""Builds networks from a draft with scales: the normalized ANN, and the spiking network."""

from __future__ import annotations

import abc
import operator
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from ..compat import MemoryModule
from ..contracts.readout import SUGGESTED
from ..contracts.replacements import Remove, Replacement, Spike
from ..contracts.site import Varies
from ..errors import PluginError
from ..layers import ChannelAffine, InitialPotential, NormalizedReLU, Scaler, StepBias, Stepwise, to_step_module
from ..support.blame import Culprit, blame
from ..support.names import NEGATIVE
from ..support.shapes import along_axis
from ..support.wording import shown
from .draft import Adjustment, Decision, Draft, NegativeNeuron
from .graph.records import TensorRecord
from .graph.snapshot import Snapshot
from .graph.weights import broadcast_slope, scaled_layer
from .network_builder import NetworkBuilder
from .round_weights import round_weights
from .site_notes import NoteTaker

__all__ = ["LayerWrapper", "NeuronFactory", "build_network", "rewrite_normalized", "rewrite_spiking"]


MakerName = Callable[[Draft, fx.Node], Culprit]
"""Returns the maker of a node's neuron, for messages."""


class NeuronFactory(Protocol):
    """Makes the neuron of a spiking node; an activation of both signs has a second one, for `negative` currents."""

    def __call__(self, draft: Draft, node: fx.Node, *, negative: bool = False) -> nn.Module: ...


LayerWrapper = Callable[[fx.Node, nn.Module, tuple[Tensor, Tensor]], nn.Module]
"""Takes a node, the layer that stands for it, and the factors of input and output channels that were folded into its
weights; returns what the network shall call instead."""


def rewrite_normalized(draft: Draft) -> fx.GraphModule:
    """The ANN with scales folded in and activations kept; each activation has the value of its neuron's firing rate."""
    return _Normalized(draft).run()


def rewrite_spiking(
    draft: Draft, make_neuron: NeuronFactory, maker: MakerName, wrap: LayerWrapper | None = None
) -> fx.GraphModule:
    """The network with scales folded in, neurons in place of activations, and every operation aware of step modes."""
    return _Spiking(draft, make_neuron, maker, wrap).run()


def build_network(draft: Draft, make_neuron: NeuronFactory, maker: MakerName) -> fx.GraphModule:
    """The finished spiking network: rewritten, weights rounded, with the readout for which it was adjusted."""
    network = rewrite_spiking(draft, make_neuron, maker)
    round_weights(network)
    if draft.readout is not None:
        network.meta[SUGGESTED] = draft.readout
    return network


class _Rewriter(abc.ABC):
    """Visits the nodes of the ANN in order of execution and builds what replaces each."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.builder = NetworkBuilder(draft)
        self.notes = NoteTaker(draft)

    def run(self) -> fx.GraphModule:
        for node in self.draft.module.graph.nodes:
            new = self._node(node)
            self.notes.operation(node, new, self.builder.modules)
            self.builder.set(node, new)
        return self.builder.finish()

    @abc.abstractmethod
    def _spiking(self, node: fx.Node, decision: Decision, spike: Spike) -> fx.Node:
        """What replaces an activation."""

    @abc.abstractmethod
    def _module_with_memory(self, node: fx.Node, decision: Decision, replacement: Replacement) -> nn.Module | None:
        """The module with memory that `replacement` puts in place of the operation; None if it keeps the operation."""

    def _with_folds(self, node: fx.Node, layer: nn.Module, folds: tuple[Tensor, Tensor]) -> nn.Module:
        """What the network calls for a layer into which `folds` are folded."""
        return layer

    def _node(self, node: fx.Node) -> Any:
        if node.op == "output":
            return self.builder.output(node)
        if node.op in ("get_attr", "placeholder") or not self.draft.inputs(node):
            return self.builder.copy(node)
        decision = self.draft.plan.decisions.get(node)
        if decision is None:
            return self._picked_or_shape(node)
        replacement = decision.replacement
        if isinstance(replacement, Spike):
            return self._spiking(node, decision, replacement)
        if isinstance(replacement, Remove):
            return self.builder.first_argument(node)
        return self._operation(node, decision, replacement)

    def _operation(self, node: fx.Node, decision: Decision, replacement: Replacement | None) -> fx.Node:
        """A module with memory, a layer with folded scales, or the ANN's own operation."""
        made = None if replacement is None else self._module_with_memory(node, decision, replacement)
        if made is not None and replacement is not None and replacement.only_first_argument:
            called = self.builder.call_on(decision.site.name, made, self.builder.first_argument(node))
            return self.builder.made_by(called, decision.culprit)
        if made is not None:
            return self.builder.made_by(self.builder.call(node, decision.site.name, made), decision.culprit)
        if node in self.draft.scales.folds:
            incoming, outgoing = self.draft.scales.folds[node]
            layer = scaled_layer(self.draft.layer(node), inputs=incoming, outputs=outgoing)
            made = self._with_folds(node, self._step_module(node, layer), (incoming, outgoing))
            return self.builder.call(node, str(node.target), made)
        return self._own_operation(node, decision.site.name)

    def _own_operation(self, node: fx.Node, name: str) -> fx.Node:
        """The ANN's operation, made aware of step modes."""
        if node.op == "call_module":
            layer = self._step_module(node, self.draft.layer(node))
            if not isinstance(layer, Stepwise):
                return self.builder.call(node, name, layer)
            operation: Any = layer.operation
        else:
            operation = node.target
            if operation in _ANY_LAYOUT and _is_reshape(node):
                operation = _ANY_LAYOUT[operation]
        return self.builder.call(node, name, Stepwise(operation, self.builder.sequences(node)))

    def _step_module(self, node: fx.Node, layer: nn.Module) -> nn.Module:
        """The step-mode-aware counterpart of a layer; SpikingJelly's own take one argument only."""
        alone = len(node.args) == 1 and not node.kwargs
        return to_step_module(layer) if alone else Stepwise(layer, self.builder.sequences(node))

    def _picked_or_shape(self, node: fx.Node) -> fx.Node:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        if not isinstance(self.draft.record[source], TensorRecord) or self.draft.record.is_tensor(node):
            return self.builder.copy(node)
        # In step mode "m", a size must be that of the merged batch.
        return self.builder.call(node, node.name, Stepwise(node.target, self.builder.sequences(node)))

    def _current(self, node: fx.Node, decision: Decision, spike: Spike) -> Any:
        """The current of the neuron of a spiking node, in units of its scale."""
        if spike.analog is None:
            return self._own_operation(node, decision.site.name) if spike.keep else self.builder.first_argument(node)
        value = self._operation(node, decision, spike.analog_at(decision.site))
        scale = self.draft.scales.scales[node]
        factor = 1.0 / (scale[0] if scale.dim() else scale)
        scaler = Scaler(factor.to(self.draft.record[node].dtype))
        return self.builder.call_on(f"{decision.site.name}_scaler", scaler, value)


class _Normalized(_Rewriter):
    def _module_with_memory(self, node: fx.Node, decision: Decision, replacement: Replacement) -> None:
        return None

    def _spiking(self, node: fx.Node, decision: Decision, spike: Spike) -> fx.Node:
        current = self._current(node, decision, spike)
        return self.builder.call_on(_neuron_name(decision, spike), self._activation(node, spike), current)

    def _activation(self, node: fx.Node, spike: Spike) -> nn.Module:
        """The activation that the neuron replaces, made from the mapper's description so that `verify` checks that."""
        if spike.two_sided:
            return NormalizedReLU(negative_slope=broadcast_slope(spike, self.draft.record[node]))
        if spike.maximum is None:
            return NormalizedReLU()
        scale = self.draft.scales.scales[node]
        maximum = spike.maximum / (scale[0] if scale.dim() else scale)
        return NormalizedReLU(maximum.to(self.draft.record[node].dtype))


class _Spiking(_Rewriter):
    def __init__(
        self, draft: Draft, make_neuron: NeuronFactory, maker: MakerName, wrap: LayerWrapper | None = None
    ) -> None:
        super().__init__(draft)
        self.make_neuron, self.maker, self.wrap = make_neuron, maker, wrap

    def run(self) -> fx.GraphModule:
        network = super().run()
        self.notes.finish(network)
        return network

    def _with_folds(self, node: fx.Node, layer: nn.Module, folds: tuple[Tensor, Tensor]) -> nn.Module:
        return layer if self.wrap is None else self.wrap(node, layer, folds)

    def _module_with_memory(self, node: fx.Node, decision: Decision, replacement: Replacement) -> nn.Module | None:
        if decision.site.varies < Varies.VARYING:
            return None
        operation: Any = self.draft.layer(node) if node.op == "call_module" else node.target
        site, before = decision.site, Snapshot(self.draft.module.graph, decision.site)
        asked = f"asked for the module at {site.name} ({site.operation_name})"
        with blame(decision.culprit, asked, replacement, "module_with_memory"):
            made: Any = replacement.module_with_memory(operation, self.builder.sequences(node))
        changed = before.changed()
        if changed is not None:
            raise PluginError(
                f"{decision.culprit}, {asked}, changed {changed}. It must leave the ANN's operation as it is. "
                f"{decision.culprit.advice}"
            )
        if made is None or isinstance(made, MemoryModule):
            return made
        raise PluginError(
            f"{decision.culprit} made {shown(made)} for {site.name} ({site.operation_name}); it must make a "
            "SpikingJelly MemoryModule, which reset_net clears and which has the step modes 's' and 'm'. "
            f"{decision.culprit.advice}"
        )

    def _spiking(self, node: fx.Node, decision: Decision, spike: Spike) -> fx.Node:
        name, current = _neuron_name(decision, spike), self._current(node, decision, spike)
        adjustment = self.draft.adjustments.get(node, Adjustment())
        neuron = self.make_neuron(self.draft, node)
        adjusted = self._biased(node, decision.site.name, current, adjustment.bias)
        stepped = self._stepped(node, decision.site.name, adjusted, adjustment.steps)
        started = self._started(node, decision.site.name, stepped, adjustment.potential)
        emitted = self.builder.made_by(self.builder.call_on(name, neuron, started), self.maker(self.draft, node))
        self.notes.neuron(node, emitted)
        if not spike.two_sided:
            return emitted
        below = self._negative(node, name, current, adjustment.negative)
        found = self.draft.record[node]
        slope = broadcast_slope(spike, found)
        if adjustment.negative is not None:
            ratio = self._in_units(node, adjustment.negative.unit.to(slope.device))
            axis = (self.draft.channels.axis(node) or 1) - 1
            slope = (slope * along_axis(ratio, len(found.shape) - 1, axis)).to(found.dtype)
        scaled = self.builder.call_on(f"{name}_slope", Scaler(slope), below)
        return self.builder.call_on(f"{name}_difference", Stepwise(operator.sub, (0, 1)), emitted, scaled)

    def _negative(self, node: fx.Node, name: str, current: Any, adjusted: NegativeNeuron | None) -> fx.Node:
        """The neuron for negative currents, which receives the negated current."""
        neuron = self.make_neuron(self.draft, node, negative=True)
        if adjusted is None:
            adjusted = NegativeNeuron(self.draft.lambdas[node], self.draft.units[node])
        ratio, negated = self._in_units(node, adjusted.unit), Stepwise(operator.neg)
        if adjusted.bias is not None or not bool((ratio == 1).all()):
            bias = torch.zeros_like(ratio) if adjusted.bias is None else adjusted.bias / adjusted.unit
            negated = self._affine(node, -1 / ratio, bias)
        below = self.builder.call_on(f"{name}_negated", negated, current)
        self.notes.affine(below, negated)
        steps = None if adjusted.steps is None else adjusted.steps / adjusted.unit
        stepped = self._stepped(node, name + NEGATIVE, below, steps, own_units=True)
        started = self._started(node, name + NEGATIVE, stepped, adjusted.potential)
        call = self.builder.call_on(name + NEGATIVE, neuron, started)
        emitted = self.builder.made_by(call, self.maker(self.draft, node))
        self.notes.neuron(node, emitted, negative=True)
        return emitted

    def _biased(self, node: fx.Node, name: str, current: Any, bias: Tensor | None) -> Any:
        """The current of a neuron, including a bias in the ANN's units."""
        if bias is None:
            return current
        affine = self._affine(node, torch.ones_like(bias), self._in_units(node, bias))
        biased = self.builder.call_on(f"{name}_bias", affine, current)
        self.notes.affine(biased, affine)
        return biased

    def _stepped(self, node: fx.Node, name: str, current: Any, steps: Tensor | None, *, own_units: bool = False) -> Any:
        """The current of a neuron, including biases per step ``[T, C]``: in the ANN's units, or in the neuron's."""
        if steps is None:
            return current
        found = self.draft.record[node]
        given = steps if own_units else self._in_units(node, steps)
        dimensions, axis = len(found.shape) - 1, (self.draft.channels.axis(node) or 1) - 1
        shape = (*(1,) * axis, -1, *(1,) * (dimensions - axis - 1)) if dimensions else ()
        module = StepBias(given.reshape(len(given), *shape).to(found.dtype))
        return self.builder.call_on(f"{name}_step_bias", module, current)

    def _started(self, node: fx.Node, name: str, current: Any, potential: Tensor | None) -> Any:
        """The current of a neuron, including an initial potential."""
        if potential is None:
            return current
        module = InitialPotential(potential.to(self.draft.record[node].dtype))
        return self.builder.call_on(f"{name}_potential", module, current)

    def _affine(self, node: fx.Node, weight: Tensor, bias: Tensor) -> ChannelAffine:
        """A factor and a shift per channel for a current; one of both for all if they are scalars."""
        found = self.draft.record[node]
        size = max(weight.numel(), bias.numel())
        weight, bias = (value.reshape(-1).expand(size).to(found.dtype) for value in (weight, bias))
        return ChannelAffine(weight, bias, max(2, len(found.shape)), self.draft.channels.axis(node) or 1)

    def _in_units(self, node: fx.Node, value: Tensor) -> Tensor:
        """A value per channel, or one for all, in the units in which the node's current is carried."""
        scale: Tensor = self.draft.scales.scales[node].to(value)
        return value / (scale.flatten() if scale.dim() else scale)


def _neuron_name(decision: Decision, spike: Spike) -> str:
    return f"{decision.site.name}_neuron" if spike.behind else decision.site.name


_ANY_LAYOUT: dict[Any, str] = {"view": "reshape", "view_as": "reshape_as"}
"""Methods that require a memory layout that channels_last does not have, and their counterparts that do not."""


def _is_reshape(node: fx.Node) -> bool:
    """False for ``x.view(torch.int32)``, which reinterprets the memory as another type."""
    return not any(isinstance(arg, torch.dtype) for arg in (*node.args, *node.kwargs.values()))
