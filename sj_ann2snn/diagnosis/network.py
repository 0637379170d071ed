"""A converted network seen as a list of layers that may spike or not, and the networks made by choosing which do."""

from __future__ import annotations

import copy
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..compat import MemoryModule, reset_net
from ..errors import InputError
from ..layers import InitialPotential, MomentumMaxPool, NormalizedReLU, StepBias, Stepwise
from ..simulation.engine.flow import Flow
from ..simulation.engine.numbers.firing import is_spiking
from ..simulation.engine.own_copies import own_copies
from ..support.names import NEGATIVE
from ..support.site_notes import ConversionNotes, SiteNote, notes_of
from .fitting import require_fitting_layers
from .probes import ActivationProbe, SpikingProbe

__all__ = ["Layer", "SpikingNetwork", "run_once"]

ADDED = "diagnosis_added_"
"""Names of additions that the converted network does not have."""

MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


@dataclass(frozen=True)
class Layer:
    """A neuron, or an operation that only approximates the ANN's over time.

    Attributes:
        name: Qualified name.
        target: Name of its module in the network.
        node: Its node in the network's graph.
        is_neuron: False for an operation such as a momentum max pool.
        unit: Value of one spike in the ANN's units; broadcasts to a sample.
        maximum: Upper bound of the activation in spikes; None for none.
        axis: The dimension of a sample that holds the channels; None if it is not known.
        potential: What corrections add to the first current.
        stands_for: The ANN's operation, for an operation.
    """

    name: str
    target: str
    node: fx.Node
    is_neuron: bool
    unit: Tensor
    maximum: Tensor | None
    axis: int | None
    potential: Tensor | None
    stands_for: str = ""

    def activate(self, current: Tensor) -> Tensor:
        """f: the activation that the neuron approximates, in units of a spike."""
        wanted = current.relu()
        return wanted if self.maximum is None else wanted.minimum(self.maximum.to(wanted))


class SpikingNetwork:
    """A converted network, and the networks in which some of its layers spike and the others do what the ANN does.

    Args:
        snn: What the converter returned, or `load_network`.
        prefix: What the names of its layers begin with, if it is a part of a network.
        call: Further arguments of the conversion.

    Attributes:
        call: The arguments of the conversion, for `Converter(...)`.
        layers: In order of execution.
        notes: What the network notes about its conversion.
        noted: False if it notes nothing, because it was read from a file of an older version.

    Raises:
        InputError: It is not a converted network, or has no spiking layer.
    """

    def __init__(self, snn: nn.Module, prefix: str = "", call: Mapping[str, Any] | None = None) -> None:
        flow = Flow.of(snn)
        if not isinstance(snn, fx.GraphModule) or flow is None:
            raise InputError(_why_not(snn))
        self.snn, self.flow, self.prefix = snn, flow, prefix
        self.modules = own_copies(flow.modules) or copy.deepcopy(flow.modules)
        found = notes_of(snn)
        self.noted, self.notes = found is not None, found or ConversionNotes()
        self.call = {**self.notes.call, **(call or {})}
        require_fitting_layers(self.notes, self.modules)
        weights = [t for t in (*snn.parameters(), *snn.buffers()) if t.is_floating_point()]
        self.device = weights[0].device if weights else torch.device("cpu")
        self.layers = list(self._layers())
        if not any(layer.is_neuron for layer in self.layers):
            raise InputError(
                "No layer of the network spikes, so there is nothing to diagnose: all of its activations are computed "
                "on analog values."
            )

    def ann(self, given: Collection[str] = ()) -> fx.GraphModule:
        """The ANN that the network approximates, in its own units; every activation is an `ActivationProbe`.

        Args:
            given: Layers whose outputs are inputs of the network, in front of its own inputs.
        """
        swaps: dict[str, nn.Module] = {}
        for layer in self.layers:
            if layer.is_neuron:
                maximum = None if layer.maximum is None else layer.maximum.to(self.device, torch.float32)
                swaps[layer.target] = ActivationProbe(NormalizedReLU(maximum))
            else:
                # At its first step, it computes the ANN's operation.
                swaps[layer.target] = ActivationProbe(self.modules[layer.target])
        for target, module in self.modules.items():
            if isinstance(module, (InitialPotential, StepBias)):
                swaps[target] = nn.Identity()
        for target, bias in self.notes.biases.items():
            swaps[target] = _with_bias(self.modules[target], bias)
        return self._build(swaps, given)

    def spiking(
        self,
        checkpoints: Sequence[int] = (),
        given: Collection[str] = (),
        until: str | None = None,
        *,
        added: bool = False,
    ) -> fx.GraphModule:
        """The network itself, with a `SpikingProbe` at every layer if there are checkpoints.

        Args:
            checkpoints: For the probes.
            given: Layers whose outputs are inputs of the network, constant over time, in front of its own inputs.
            until: Return the output of this layer instead of the network's.
            added: Add the inputs to what the layers `given` emit, instead of replacing it.
        """
        swaps: dict[str, nn.Module] = {}
        if checkpoints:
            swaps = {one.target: SpikingProbe(self.modules[one.target], checkpoints) for one in self.layers}
        return self._build(swaps, given, until, added=added)

    def feeding(self, layer: Layer) -> list[Layer]:
        """The neurons whose spikes reach `layer` without passing another neuron."""
        return self._nearest(layer.node)

    def behind(self) -> dict[str, list[str]]:
        """By name of a neuron's layer, the names of those that its spikes reach without passing another neuron."""
        found: dict[str, dict[str, None]] = {layer.name: {} for layer in self.layers if layer.is_neuron}
        for layer in self.layers:
            for source in self.feeding(layer) if layer.is_neuron else ():
                found[source.name].setdefault(layer.name.removesuffix(NEGATIVE))
        return {name: list(names) for name, names in found.items()}

    def sources(self, target: str) -> list[Layer]:
        """The neurons whose spikes reach the operation `target` without passing another neuron."""
        found = [node for node in self.snn.graph.nodes if node.op == "call_module" and str(node.target) == target]
        return self._nearest(found[0]) if found else []

    def _nearest(self, node: fx.Node) -> list[Layer]:
        neurons = {layer.node: layer for layer in self.layers if layer.is_neuron}
        found: dict[fx.Node, None] = {}
        waiting, known = [*node.all_input_nodes], set()
        while waiting:
            source = waiting.pop()
            if source in known:
                continue
            known.add(source)
            if source in neurons:
                found[source] = None
            else:
                waiting += source.all_input_nodes
        return [layer for layer in self.layers if layer.node in found]

    def _layers(self) -> Iterator[Layer]:
        for node in self.snn.graph.nodes:
            if node.op != "call_module":
                continue
            target = str(node.target)
            module = self.modules[target]
            note = self.notes.sites.get(target)
            if note is not None or is_spiking(module):
                yield self._neuron(node, note or SiteNote(target, torch.ones(()), axis=_channel_axis(node, self)))
            elif node in self.flow.varying and (target in self.notes.approximate or _is_inexact(module)):
                stands_for = self.notes.approximate.get(target, type(module).__name__)
                if isinstance(module, MemoryModule) or _is_max_pool(module):
                    yield Layer(self.prefix + target, target, node, False, torch.ones(()), None, None, None, stands_for)

    def _neuron(self, node: fx.Node, note: SiteNote) -> Layer:
        before = node.args[0]
        potential = None
        if isinstance(before, fx.Node) and before.op == "call_module":
            module = self.modules[str(before.target)]
            potential = module.potential.detach() if isinstance(module, InitialPotential) else None
        unit = note.unit.double().to(self.device)
        maximum = None if note.maximum is None else note.maximum.double().to(self.device)
        return Layer(self.prefix + note.name, str(node.target), node, True, unit, maximum, note.axis, potential)

    def _build(
        self,
        swaps: Mapping[str, nn.Module],
        given: Collection[str],
        until: str | None = None,
        *,
        added: bool = False,
    ) -> fx.GraphModule:
        graph = fx.Graph()
        copies: dict[fx.Node, Any] = {}
        output: Any = graph.graph_copy(self.snn.graph, copies)
        if until is not None:
            output = next(copies[layer.node] for layer in self.layers if layer.target == until)
        graph.output(output)
        first = next(iter(graph.nodes))
        for index, layer in enumerate(one for one in self.layers if one.target in given):
            with graph.inserting_before(first):
                value = graph.placeholder(f"given_{index}")
            emitted = copies[layer.node]
            if added:
                with graph.inserting_after(emitted):
                    total = graph.call_module(f"{ADDED}{index}", (emitted, value))
                emitted.replace_all_uses_with(total, delete_user_cb=lambda user, total=total: user is not total)
                swaps = {**swaps, f"{ADDED}{index}": Stepwise(operator.add, (0, 1))}
            else:
                emitted.replace_all_uses_with(value)
                graph.erase_node(emitted)
        root: dict[str, Any] = {}
        for node in graph.nodes:
            target = str(node.target)
            if node.op == "call_module":
                root[target] = swaps[target] if target in swaps else self.modules[target]
            elif node.op == "get_attr":
                root[target] = operator.attrgetter(target)(self.snn)
        built = fx.GraphModule(root, graph, type(self.snn).__name__)
        built.graph.eliminate_dead_code()
        built.recompile()
        return built.eval()


def run_once(network: fx.GraphModule, inputs: Sequence[Any]) -> Any:
    """The output of a network without time, on ``[N, ...]``; layers with memory compute their first step."""
    for module in network.modules():
        if hasattr(module, "step_mode"):
            module.step_mode = "s"  # type: ignore[assignment]
    reset_net(network)
    with torch.no_grad():
        result = network(*inputs)
    reset_net(network)
    return result


def _why_not(snn: nn.Module) -> str:
    if isinstance(snn, fx.GraphModule):
        return (
            "No layer of the network spikes, so there is nothing to diagnose. Give the network that "
            "Converter(...)(ann) returns."
        )
    return (
        f"diagnose takes a converted network (a torch.fx.GraphModule), not {type(snn).__name__}. Give what "
        "Converter(...)(ann) or load_network(path) returns."
    )


def _is_inexact(module: nn.Module) -> bool:
    """True for what only approximates its operation over time, in a network that notes nothing."""
    return isinstance(module, MomentumMaxPool) or _is_max_pool(module)


def _is_max_pool(module: nn.Module) -> bool:
    operation = module.operation if isinstance(module, Stepwise) else module
    functions = (F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d)
    return isinstance(operation, MAX_POOLS) or operation in functions


def _with_bias(module: nn.Module, bias: Tensor) -> nn.Module:
    """A copy of a layer with another bias."""
    made = copy.copy(module)
    if isinstance(module, Stepwise):
        made._modules = {**module._modules, "operation": _with_bias(module.operation, bias)}  # type: ignore[arg-type]
        return made
    made._parameters = dict(module._parameters)
    made._parameters["bias"] = nn.Parameter(bias.to(module.bias.device), requires_grad=False)  # type: ignore[arg-type]
    return made


def _channel_axis(node: fx.Node, network: SpikingNetwork) -> int | None:
    """The dimension of a sample with the channels, for a network that notes nothing."""
    return None
