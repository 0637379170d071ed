"""What the stages of a conversion pass to each other: a network on its way from ANN to SNN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..contracts.replacements import Analog, Replacement, Spike
from ..contracts.site import Site, Varies
from ..errors import UnsupportedError
from ..support.batches import Signature
from ..support.blame import Culprit
from ..support.wording import shown
from .graph.channel_map import ChannelMap
from .graph.records import Record, TensorRecord
from .problems import Problem, lines_of

__all__ = [
    "APPROXIMATED",
    "COMMUTED",
    "YOU",
    "Adjustment",
    "Decision",
    "Draft",
    "NegativeNeuron",
    "Plan",
    "ScalePlan",
    "TunedLayer",
]

APPROXIMATED = "ann2snn_approximated"
"""Key of a node's meta: the ANN's operation, if the node computes another function."""

COMMUTED = "ann2snn_commuted"
"""Key of a node's meta: True for a max pool that was moved in front of its neuron."""

YOU = "you"
"""The owner of a decision that the caller made by an argument."""


@dataclass(frozen=True)
class Decision:
    """What one node becomes, and who decided it."""

    site: Site
    replacement: Replacement | None
    """None if no mapper claims the operation (it then runs on values that do not vary)."""
    mapper: str
    owner: str
    varies: Varies
    """How the node's own result varies."""

    @property
    def culprit(self) -> Culprit:
        """The mapper in messages."""
        return Culprit(f"Mapper {shown(self.mapper)}", self.owner)


@dataclass(frozen=True)
class Plan:
    """The decisions for a whole graph."""

    decisions: Mapping[fx.Node, Decision] = field(default_factory=dict)
    varies: Mapping[fx.Node, Varies] = field(default_factory=dict)
    batched: frozenset[fx.Node] = frozenset()
    """Nodes whose tensors have the samples in dimension 0."""
    raw: frozenset[fx.Node] = frozenset()
    """Nodes whose values are made of the network's inputs without any weights."""
    problems: tuple[Problem, ...] = ()
    exchanged: tuple[Decision, ...] = ()
    """What was decided about pools before others took their places; `decisions` tells of these others."""

    @cached_property
    def unclaimed(self) -> list[Decision]:
        """The operations between weights and the first neurons that no mapper claims."""
        leading: set[fx.Node] = {node for node in self.spikes if self.decisions[node].site.varies is Varies.STATIC}
        for node in reversed(list(self.decisions)):
            if any(user in leading for user in node.users):
                leading.add(node)
        return [
            decision
            for node, decision in self.decisions.items()
            if node in leading
            and decision.replacement is None
            and any(map(self._is_behind_weights, node.all_input_nodes))
        ]

    def _is_behind_weights(self, node: fx.Node) -> bool:
        return self.varies[node] is not Varies.CONSTANT and node not in self.raw

    @cached_property
    def spikes(self) -> dict[fx.Node, Spike]:
        """The nodes that become neurons, in order of execution."""
        return {
            node: decision.replacement
            for node, decision in self.decisions.items()
            if isinstance(decision.replacement, Spike)
        }

    @cached_property
    def analog(self) -> dict[fx.Node, Decision]:
        """The nodes that become modules with memory but without spikes, in order of execution."""
        return {node: one for node, one in self.decisions.items() if isinstance(one.replacement, Analog)}

    def require_exact(self) -> None:
        """Raises:
        UnsupportedError: The network cannot be converted exactly; the message lists every obstacle.
        """
        if self.problems:
            count = len(self.problems)
            raise UnsupportedError(
                f"{count} operation{'s' if count > 1 else ''} of the network cannot be converted exactly:\n"
                + "\n".join(f"  - {line}" for line in lines_of(self.problems)),
                self.problems,
            )


@dataclass(frozen=True)
class ScalePlan:
    """The scale in which every value is carried, and the folds and scalers that bring it there.

    Scales are float64: 0-dimensional, or of the value's rank with a first dimension of one.
    """

    scales: Mapping[fx.Node, Any] = field(default_factory=dict)
    folds: Mapping[fx.Node, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """For a weighted layer, the factors of its input and output channels."""
    scalers: Mapping[tuple[fx.Node, fx.Node], Tensor] = field(default_factory=dict)
    """For (user, argument), the factor by which the user's argument is multiplied."""


@dataclass(frozen=True)
class Adjustment:
    """What corrections add to the current of a neuron.

    Attributes:
        bias: Added at every step, per channel, in the ANN's units; None if a layer's bias contains it.
        steps: Added at the first T steps, ``[T, C]``, in the ANN's units; None for none.
        potential: Added at the first step, in units of the threshold, without a sample dimension.
        negative: For an activation of both signs, what the neuron for negative currents receives; None if that is
            just the negated current, and its λ is the site's.
    """

    bias: Tensor | None = None
    steps: Tensor | None = None
    potential: Tensor | None = None
    negative: NegativeNeuron | None = None


@dataclass(frozen=True)
class NegativeNeuron:
    """How the neuron for negative currents differs from the one for positive currents.

    Attributes:
        scale: Its λ.
        unit: The value of one of its spikes.
        bias: Added to its (negated) current at every step, per channel, in the ANN's units; None for none.
        steps: Added to that current at the first T steps, ``[T, C]``, in the ANN's units; None for none.
        potential: Added at the first step, in units of its threshold, without a sample dimension.
    """

    scale: Tensor
    unit: Tensor
    bias: Tensor | None = None
    steps: Tensor | None = None
    potential: Tensor | None = None


@dataclass(frozen=True)
class TunedLayer:
    """A layer whose weights corrections changed.

    Attributes:
        name: Qualified name of the layer.
        by: The corrections that changed them, each with its distribution.
        change: The norm of the change, relative to that of the ANN's weights (with BatchNorm absorbed).
    """

    name: str
    by: tuple[str, ...]
    change: float


@dataclass(frozen=True)
class Draft:
    """A network on its way from ANN to SNN: every stage takes a draft and returns a new one; none changes its own.

    Attributes:
        module: The ANN in canonical form; shares nothing with the caller's network.
        signature: Its inputs.
        device: Device of the conversion.
        samples: Two samples, one value per input.
        more: Three samples.
        answer: Output of the caller's network for the two samples.
        structure: The classes of the outputs, as a template for `rebuild`; the graph returns plain dicts for them.
        problems: In-place operations that could not be made out of place.
        record: What every node yields for the two samples.
        plan: What every node becomes.
        activity: Sums over the activations of every spiking node in the calibration data.
        channels: The channels of every node's result.
        lambdas: λ of every spiking node.
        sharing: Spiking nodes that share a λ, with the number of each of their λ; equal numbers have the same λ.
        units: Value of one spike at every spiking node.
        scales: Scales, folds and scalers.
        adjustments: What corrections add to the currents of neurons.
        layers: Layers to which corrections gave another bias or other weights, by qualified name; see `layer`.
        tuned: The layers whose weights corrections changed.
        readout: Name and options of the readout for which corrections adjusted the network, or that its neurons need.
        notes: What corrections say in the report.
    """

    module: fx.GraphModule
    signature: Signature
    device: torch.device
    samples: tuple[Any, ...]
    more: tuple[Any, ...]
    answer: Any
    problems: tuple[Problem, ...] = ()
    structure: Any = None
    record: Record = field(default_factory=lambda: Record({}))
    plan: Plan = field(default_factory=Plan)
    activity: Mapping[fx.Node, Any] = field(default_factory=dict)
    channels: ChannelMap = field(default_factory=ChannelMap.empty)
    lambdas: Mapping[fx.Node, Tensor] = field(default_factory=dict)
    sharing: Mapping[fx.Node, Tensor] = field(default_factory=dict)
    units: Mapping[fx.Node, Tensor] = field(default_factory=dict)
    scales: ScalePlan = field(default_factory=ScalePlan)
    adjustments: Mapping[fx.Node, Adjustment] = field(default_factory=dict)
    layers: Mapping[str, nn.Module] = field(default_factory=dict)
    tuned: tuple[TunedLayer, ...] = ()
    readout: tuple[str, dict[str, Any]] | None = None
    notes: tuple[str, ...] = ()

    def evolve(self, **changes: Any) -> Draft:
        """A copy of the draft with these attributes changed."""
        return replace(self, **changes)

    def layer(self, node: fx.Node) -> nn.Module:
        """The module that a ``call_module`` node calls."""
        name = str(node.target)
        return self.layers[name] if name in self.layers else self.module.get_submodule(name)

    def tensor(self, node: fx.Node) -> TensorRecord | None:
        """The record of a node's only result; None if it yields several, or no tensor."""
        found = self.record[node]
        return found if isinstance(found, TensorRecord) else None

    def inputs(self, node: fx.Node) -> list[fx.Node]:
        """The arguments of `node` whose tensors depend on the network's input."""
        return [
            source
            for source in node.all_input_nodes
            if self.plan.varies[source] > Varies.CONSTANT and self.record.is_tensor(source)
        ]

    @property
    def output(self) -> Any:
        """The nodes that the network returns, nested as it returns them."""
        (output,) = (node for node in self.module.graph.nodes if node.op == "output")
        return output.args[0]
