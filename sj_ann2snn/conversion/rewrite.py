"""Builds the spiking network's graph from the canonical ANN, the plan and the scales."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn

from ..compat import MemoryModule
from ..contracts.replacements import Analog, Remove, Spike, Stateful
from ..contracts.site import Varies
from ..errors import PluginError
from ..layers import ChannelAffine, InitialPotential, NormalizedReLU, Scaler, Stepwise, to_step_module
from ..support.trees import leaves
from .absorb import Adjustment
from .graph.naming import copied_attribute
from .graph.records import Record, TensorRecord
from .graph.weights import broadcast_slope, scaled_layer
from .plan import Decision, Plan
from .scale import ScalePlan

__all__ = ["rewrite"]

NeuronFactory = Callable[[Decision, fx.Node], nn.Module]


def rewrite(
    module: fx.GraphModule,
    record: Record,
    plan: Plan,
    scales: ScalePlan,
    neuron: NeuronFactory | None,
    adjustments: Mapping[fx.Node, Adjustment] | None = None,
) -> fx.GraphModule:
    """The network with scales folded in and every operation a step-mode-aware module.

    Args:
        module: In canonical form; left as it is.
        record: What its nodes yield.
        plan: What becomes of them.
        scales: Folds and scalers.
        neuron: Makes the neuron of a spiking node; None keeps activations and max pools, which gives the
            normalized ANN.
        adjustments: What spiking nodes get in addition to their current.
    """
    return _Rewriter(module, record, plan, scales, neuron, adjustments or {}).run()


class _Rewriter:
    def __init__(
        self,
        module: fx.GraphModule,
        record: Record,
        plan: Plan,
        scales: ScalePlan,
        neuron: NeuronFactory | None,
        adjustments: Mapping[fx.Node, Adjustment],
    ) -> None:
        self.module, self.record, self.plan, self.scales, self.neuron = module, record, plan, scales, neuron
        self.adjustments = adjustments
        self.graph = fx.Graph()
        self.modules: dict[str, Any] = {}
        self.new: dict[fx.Node, Any] = {}
        self.scaled: dict[tuple[fx.Node, bytes], fx.Node] = {}
        self.layers = {str(node.target) for node in module.graph.nodes if node.op == "call_module"}
        self.taken = {
            prefix
            for node in module.graph.nodes
            if node.op in ("call_module", "get_attr")
            for prefix in _prefixes(str(node.target))
        }

    def run(self) -> fx.GraphModule:
        for node in self.module.graph.nodes:
            self.new[node] = self._node(node)
        snn = fx.GraphModule(self.modules, self.graph, type(self.module).__name__)
        snn.graph.lint()
        return snn.eval()

    def _node(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            self.modules[str(node.target)] = copied_attribute(self.module, str(node.target))
            return self._copied(node)
        if node.op == "output":
            return self.graph.output(fx.map_arg(node.args[0], lambda arg: self._argument(node, arg)))
        if node.op == "placeholder" or not any(
            self.plan.varies[arg] > Varies.CONSTANT and self.record.is_tensor(arg) for arg in node.all_input_nodes
        ):
            if node.op == "call_module":
                self.modules[str(node.target)] = self.module.get_submodule(str(node.target))
            return self._copied(node)
        decision = self.plan.decisions.get(node)
        if decision is None:
            return self._picked_or_shape(node)
        replacement = decision.replacement
        if isinstance(replacement, Remove):
            return self._argument(node, node.all_input_nodes[0])
        if isinstance(replacement, Spike):
            return self._spiking(node, decision, replacement)
        if isinstance(replacement, Stateful) and self.neuron is not None:
            made = _with_memory(replacement.make(), decision)
            return self._call(node, decision.site.name, made, only_first=True)
        if isinstance(replacement, Analog):
            return self._analog(node, decision, replacement)
        if node in self.scales.folds:
            incoming, outgoing = self.scales.folds[node]
            layer = scaled_layer(self.module.get_submodule(str(node.target)), inputs=incoming, outputs=outgoing)
            return self._call(node, str(node.target), to_step_module(layer))
        return self._operation(node, decision.site.name)

    def _copied(self, node: fx.Node) -> fx.Node:
        copied = self.graph.node_copy(node, self._known)
        copied.type = None  # an annotation may be a mere name, which older torch cannot write into code
        return copied

    def _spiking(self, node: fx.Node, decision: Decision, spike: Spike) -> fx.Node:
        name = decision.site.name
        if self.neuron is None:
            neuron: nn.Module = self._activation(node, spike)
        else:
            neuron = self.neuron(decision, node)
        current = self._current(node, decision, spike)
        name = f"{name}_neuron" if spike.behind else name
        if spike.two_sided and self.neuron is not None:
            return self._two_sided(node, name, spike, current, neuron, self.neuron(decision, node))
        current = self._adjusted(node, decision.site.name, current)
        return self._module_call(name, neuron, (current,), {})

    def _adjusted(self, node: fx.Node, name: str, current: fx.Node) -> fx.Node:
        """The current of a neuron with what corrections add to it."""
        adjustment = self.adjustments.get(node)
        if adjustment is None or self.neuron is None:
            return current
        found = self.record[node]
        if adjustment.bias is not None:
            scale = self.scales.scales[node].to(adjustment.bias)
            bias = (adjustment.bias / (scale.flatten() if scale.dim() else scale)).to(found.dtype)
            affine = ChannelAffine(torch.ones_like(bias), bias, len(found.shape))
            current = self._module_call(f"{name}_bias", affine, (current,), {})
        if adjustment.potential is not None:
            potential = InitialPotential(adjustment.potential.to(found.dtype))
            current = self._module_call(f"{name}_potential", potential, (current,), {})
        return current

    def _current(self, node: fx.Node, decision: Decision, spike: Spike) -> Any:
        """What drives the neuron of a spiking node, in units of its scale."""
        if spike.analog is None:
            return self._operation(node, decision.site.name) if spike.keep else self._first_argument(node)
        value = self._analog(node, decision, spike.analog)
        scale = self.scales.scales[node]
        factor = 1.0 / (scale[0] if scale.dim() else scale)
        scaler = Scaler(factor.to(self.record[node].dtype))
        return self._module_call(f"{decision.site.name}_scaler", scaler, (value,), {})

    def _analog(self, node: fx.Node, decision: Decision, analog: Analog) -> fx.Node:
        name = decision.site.name
        if self.neuron is None or decision.site.varies < Varies.VARYING:
            return self._operation(node, name)
        operation = self.module.get_submodule(str(node.target)) if node.op == "call_module" else node.target
        return self._call(node, name, _with_memory(analog.make(operation, self._sequences(node)), decision))

    def _activation(self, node: fx.Node, spike: Spike) -> nn.Module:
        """What the neuron stands for. It follows from the description, so that verifying checks the mapper too."""
        if spike.two_sided:
            return NormalizedReLU(negative_slope=broadcast_slope(spike, self.record[node]))
        if spike.maximum is None:
            return NormalizedReLU()
        scale = self.scales.scales[node]
        maximum = spike.maximum / (scale[0] if scale.dim() else scale)
        return NormalizedReLU(maximum.to(self.record[node].dtype))

    def _two_sided(
        self, node: fx.Node, name: str, spike: Spike, current: Any, positive: nn.Module, negative: nn.Module
    ) -> fx.Node:
        """The difference of two neurons, one for each sign of the current."""
        above = self._module_call(name, positive, (current,), {})
        negated = self._module_call(f"{name}_negated", Stepwise(operator.neg), (current,), {})
        below = self._module_call(f"{name}_negative", negative, (negated,), {})
        slope = self._module_call(f"{name}_slope", Scaler(broadcast_slope(spike, self.record[node])), (below,), {})
        return self._module_call(f"{name}_difference", Stepwise(operator.sub, (0, 1)), (above, slope), {})

    def _operation(self, node: fx.Node, name: str) -> fx.Node:
        """The ANN's own operation, made aware of step modes."""
        if node.op == "call_module":
            layer = to_step_module(self.module.get_submodule(str(node.target)))
            if not isinstance(layer, Stepwise):
                return self._call(node, name, layer)
            operation: Any = layer.operation
        else:
            operation = node.target
            if operation in _ANY_LAYOUT and _is_reshape(node):
                operation = _ANY_LAYOUT[operation]
        return self._call(node, name, Stepwise(operation, self._sequences(node)))

    def _picked_or_shape(self, node: fx.Node) -> fx.Node:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        if not isinstance(self.record[source], TensorRecord):
            return self._copied(node)
        # A size must be that of the merged batch in step mode "m".
        return self._call(node, node.name, Stepwise(node.target, self._sequences(node)))

    def _sequences(self, node: fx.Node) -> tuple[int, ...]:
        """Positions, among the tensors that the call receives, of those with time and samples."""
        batched = [
            leaf in self.plan.batched
            for leaf in leaves((node.args, node.kwargs))
            if isinstance(leaf, fx.Node)
            for _ in self.record.tensors(leaf)
        ]
        return tuple(position for position, yes in enumerate(batched) if yes)

    def _call(self, node: fx.Node, name: str, module: nn.Module, *, only_first: bool = False) -> fx.Node:
        if only_first:
            return self._module_call(name, module, (self._first_argument(node),), {})
        args = fx.map_arg(node.args, lambda arg: self._argument(node, arg))
        kwargs = fx.map_arg(node.kwargs, lambda arg: self._argument(node, arg))
        return self._module_call(name, module, args, kwargs)

    def _module_call(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        target = self._free(name)
        self.modules[target] = module
        return self.graph.call_module(target, args, kwargs)

    def _free(self, name: str) -> str:
        """`name`, or the next free one: the layers of the ANN keep theirs."""
        own = name in self.layers and name not in self.modules
        candidate, count = name, 1
        while not own and (candidate in self.taken or candidate in self.modules or _hides(candidate)):
            candidate, count = f"{name}_{count}", count + 1
        self.taken.update(_prefixes(candidate))
        return candidate

    def _known(self, node: fx.Node) -> Any:
        return self.new[node]

    def _first_argument(self, node: fx.Node) -> Any:
        return self._argument(node, node.all_input_nodes[0])

    def _argument(self, user: fx.Node, arg: fx.Node) -> Any:
        scale = self.scales.scalers.get((user, arg))
        if scale is None:
            return self.new[arg]
        key = arg, scale.numpy().tobytes()
        if key not in self.scaled:
            dtype = self.record[arg].dtype
            factor = (scale if not scale.dim() else scale[0]).to(dtype)
            decision = self.plan.decisions.get(arg)
            name = f"{decision.site.name if decision else arg.name}_scaler"
            self.scaled[key] = self._module_call(name, Scaler(factor), (self.new[arg],), {})
        return self.scaled[key]


def _with_memory(made: Any, decision: Decision) -> nn.Module:
    """What a mapper made for a site whose operation is not linear over time."""
    if not isinstance(made, MemoryModule):
        raise PluginError(
            f"Mapper {decision.mapper!r} ({decision.owner}) made {made!r} for {decision.site.name} "
            f"({decision.site.operation_name}); it must make a SpikingJelly MemoryModule, which reset_net clears and "
            "which has the step modes 's' and 'm'."
        )
    module: nn.Module = made
    return module


_ANY_LAYOUT: dict[Any, str] = {"view": "reshape", "view_as": "reshape_as"}
"""Methods that insist on a memory layout, which channels_last does not have, and those that do not."""


def _is_reshape(node: fx.Node) -> bool:
    """False for ``x.view(torch.int32)``, which looks at the same memory as another type."""
    return not any(isinstance(arg, torch.dtype) for arg in (*node.args, *node.kwargs.values()))


def _hides(target: str) -> bool:
    """True for a name that every module has already, as `float` and `to`."""
    return hasattr(fx.GraphModule, target.rsplit(".", 1)[-1])


def _prefixes(target: str) -> list[str]:
    parts = target.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]
