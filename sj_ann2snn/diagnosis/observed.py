"""What a diagnosis keeps to draw: samples of rates and activations, some spikes, and the graph of the layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["GraphNode", "Histogram", "LayerObservation", "Observed", "Raster"]


@dataclass(frozen=True)
class Histogram:
    """How often rates, and the ANN's activations, lie where: counts over all samples and neurons.

    Both are shares of λ, rounded to the levels that T steps can represent, so that bins and levels do not beat.

    Attributes:
        edges: Of the bins above zero, as shares of λ; a bin contains its upper edge.
        rates, activations: Counts per bin.
        zero: Rates and activations that round to zero.
        below: Rates and activations below zero.
        above: Rates and activations above λ.
    """

    edges: tuple[float, ...]
    rates: tuple[int, ...]
    activations: tuple[int, ...]
    zero: tuple[int, int]
    below: tuple[int, int]
    above: tuple[int, int]


@dataclass(frozen=True)
class Raster:
    """The spikes of some neurons for the first sample.

    Attributes:
        steps: Number of steps that were recorded, from the first.
        neurons: Position of every neuron in the layer, `(channel, row, column)` behind a convolution; the strongest
            activation first.
        activations: The ANN's activation of every neuron, as a share of λ.
        times: For every neuron, the steps, from 1, at which it emitted something.
        values: For every neuron, what it emitted then, in spikes.
    """

    steps: int
    neurons: tuple[tuple[int, ...], ...]
    activations: tuple[float, ...]
    times: tuple[tuple[int, ...], ...]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class LayerObservation:
    """What one layer did.

    Attributes:
        activations, rates: Some neurons and samples, drawn at random among those that are active: the ANN's activation
            and the firing rate, both as shares of λ.
        histogram: Over all neurons and samples.
        raster: None for an operation that has no neurons.
    """

    activations: tuple[float, ...]
    rates: tuple[float, ...]
    histogram: Histogram
    raster: Raster | None = None


@dataclass(frozen=True)
class GraphNode:
    """An input, a layer or an output of the network, and what feeds it.

    Attributes:
        name: Its name.
        kind: `"input"`, `"layer"` or `"output"`.
        sources: The inputs and layers whose values reach it without passing another layer.
        through: The layers with weights in between.
    """

    name: str
    kind: str
    sources: tuple[str, ...] = ()
    through: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observed:
    """What `Diagnosis.to_html` and `Diagnosis.figure` draw beside the figures of the layers.

    Attributes:
        network: Name of the network's class.
        layers: By name.
        graph: In order of execution.
        call: The arguments of the conversion that are known, for `Converter(...)`.
        made_by: The call that made the network; empty if it is not known.
        versions: Of the packages that computed all this.
        plugins: The installed plugins, with their versions.
    """

    network: str = ""
    layers: Mapping[str, LayerObservation] = field(default_factory=dict)
    graph: tuple[GraphNode, ...] = ()
    call: Mapping[str, Any] = field(default_factory=dict)
    made_by: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
