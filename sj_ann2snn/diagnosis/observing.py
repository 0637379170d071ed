"""Draws samples of rates and activations in bounded memory, and records the spikes of some neurons."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..simulation.engine import Call, Collector, Simulator
from .data import Chunk, cut
from .network import Layer, SpikingNetwork
from .observed import Histogram, LayerObservation, Raster
from .probes import SpikingProbe

__all__ = ["LayerSampler", "record_rasters"]

POINTS = 2000
"""Neurons and samples of a layer to keep."""

BINS = 24
"""Bins of a histogram, at most."""

NEURONS = 30
"""Neurons of a raster."""

STEPS = 256
"""Steps of a raster, at most."""

AT_ONCE = 1 << 20
"""Elements to look at, at a time: the copies that it takes stay small."""


@dataclass
class _Counts:
    """Counts of values in levels, `width` of them in a bin; in the first place those at zero, in the last above λ."""

    bins: Tensor
    below: int = 0

    def add(self, shares: Tensor, levels: int, width: int) -> None:
        level = (shares * levels).round()
        self.below += int((level < 0).sum())
        index = ((level - 1) / width).floor() + 1
        index = index.where(level > 0, torch.zeros_like(index)).where(
            level <= levels, torch.full_like(index, len(self.bins) - 1)
        )
        self.bins += torch.bincount(index.long().flatten(), minlength=len(self.bins)).cpu()


class LayerSampler:
    """Keeps some of a layer's activations and rates, and counts them all.

    Args:
        largest: The largest mean output of the neurons, λ in units of a spike; broadcasts over samples.
        steps: T.
        seed: Of the random choice.
    """

    def __init__(self, largest: Tensor | None, steps: int, seed: int) -> None:
        self._largest = torch.ones(()) if largest is None else largest
        self.levels = max(1, steps * max(1, round(float(self._largest.max()))))
        self.width = math.ceil(self.levels / BINS)
        count = math.ceil(self.levels / self.width)
        self._activations, self._rates = (_Counts(torch.zeros(count + 2, dtype=torch.int64)) for _ in range(2))
        self._random = torch.Generator().manual_seed(seed)
        self._points = torch.zeros(2, 0, dtype=torch.float64)
        self._seen = 0

    def add(self, activation: Tensor, rate: Tensor) -> None:
        """Take in activations and rates ``[N, ...]``, in units of a spike."""
        largest = self._fitting(activation)
        rows = max(1, AT_ONCE // max(1, activation[:1].numel()))
        for a, r in zip(torch.split(activation, rows), torch.split(rate, rows), strict=True):
            shares, rates = a / largest, r / largest
            self._activations.add(shares, self.levels, self.width)
            self._rates.add(rates, self.levels, self.width)
            self._draw(shares.reshape(-1), rates.reshape(-1))

    def _fitting(self, activation: Tensor) -> Tensor:
        """λ for activations of this shape: a part of a network may be called with several sizes."""
        largest = self._largest.to(activation.device, activation.dtype)
        other = [axis for axis in range(largest.dim()) if largest.shape[axis] not in (1, activation.shape[axis])]
        return largest.amax(other, keepdim=True) if other else largest

    def _draw(self, shares: Tensor, rates: Tensor) -> None:
        """Let every active element so far have the same chance to be among the points."""
        count = len(shares)
        chosen = (
            torch.randint(count, (4 * POINTS,), generator=self._random)
            if count > 4 * POINTS
            else torch.randperm(count, generator=self._random)
        ).to(shares.device)
        found = torch.stack([shares[chosen], rates[chosen]]).double().cpu()
        found = found[:, (found != 0).any(0)]
        active = round(count * found.shape[1] / max(1, len(chosen)))
        self._seen += active
        free = POINTS - self._points.shape[1]
        self._points = torch.cat([self._points, found[:, :free]], 1)
        rest = found[:, free:]
        if rest.shape[1]:
            replaced = torch.rand(POINTS, generator=self._random) < active / self._seen
            places = replaced.nonzero().flatten()[: rest.shape[1]]
            self._points[:, places] = rest[:, : len(places)]

    def result(self, raster: Raster | None) -> LayerObservation:
        """What was seen."""
        rates, activations = self._rates.bins.tolist(), self._activations.bins.tolist()
        ends = [min(self.levels, self.width * index) / self.levels for index in range(len(rates) - 1)]
        below = self._rates.below, self._activations.below
        histogram = Histogram(
            edges=tuple(ends),
            rates=tuple(rates[1:-1]),
            activations=tuple(activations[1:-1]),
            zero=(rates[0] - below[0], activations[0] - below[1]),
            below=below,
            above=(rates[-1], activations[-1]),
        )
        shares, found = (tuple(round(value, 6) for value in row) for row in self._points.tolist())
        return LayerObservation(shares, found, histogram, raster)


def record_rasters(
    network: SpikingNetwork, chunk: Chunk, activations: Mapping[str, Tensor], largest: Mapping[str, Tensor], steps: int
) -> dict[str, Raster]:
    """The spikes of some neurons of every layer for the first sample, by target.

    Args:
        network: The converted network.
        chunk: Samples.
        activations: The ANN's activations of these samples, by target, in units of a spike.
        largest: λ in units of a spike, by target.
        steps: T.
    """
    steps = min(steps, STEPS)
    neurons = [layer for layer in network.layers if layer.is_neuron]
    chosen = {layer.target: _strongest(activations[layer.target][0]) for layer in neurons}
    few = cut(chunk, min(2, chunk.samples))[0]
    simulator = Simulator(network.spiking((steps,)), steps)
    found: dict[str, Tensor] = {}
    for tile in simulator.run_all(few.inputs, lambda samples: _Recorder(chosen, first=samples.start == 0)):
        found.update(tile)
    return {
        layer.target: _raster(found[layer.target], chosen[layer.target], activations, largest, layer)
        for layer in neurons
        if layer.target in found
    }


class _Recorder(Collector):
    """Keeps what some neurons emit for the first sample of a tile."""

    def __init__(self, chosen: Mapping[str, Tensor], *, first: bool) -> None:
        self._chosen = chosen if first else {}
        self._seen: dict[str, list[Tensor]] = {}

    def watch(self, call: Call) -> None:
        """Keep the spikes."""
        if isinstance(call.operation, SpikingProbe) and call.name in self._chosen:
            spikes = call.result[:, 0].flatten(1)[:, self._chosen[call.name]]
            self._seen.setdefault(call.name, []).append(spikes)

    def add(self, outputs: Any) -> None:
        """The answer does not matter."""

    def result(self) -> dict[str, Tensor]:
        return {target: torch.cat(stretches).cpu() for target, stretches in self._seen.items()}


def _strongest(activation: Tensor) -> Tensor:
    """Indices of neurons from the strongest to the weakest that is active."""
    order = activation.flatten().argsort(descending=True, stable=True)
    count = min(NEURONS, len(order))
    among = max(count, int((activation > 0).sum()))
    places = (torch.arange(count, device=order.device) * (among - 1)).div(max(1, count - 1), rounding_mode="floor")
    return order[places]


def _raster(
    spikes: Tensor,
    chosen: Tensor,
    activations: Mapping[str, Tensor],
    largest: Mapping[str, Tensor],
    layer: Layer,
) -> Raster:
    activation = activations[layer.target][0].cpu()
    limit = largest[layer.target].expand(activation[None].shape)[0]
    shares = (activation / limit).flatten()[chosen.cpu()]
    rows = [(row.nonzero().flatten(), row) for row in spikes.T]
    return Raster(
        steps=len(spikes),
        neurons=tuple(_positions(chosen.tolist(), activation.shape)),
        activations=tuple(round(value, 6) for value in shares.tolist()),
        times=tuple(tuple((times + 1).tolist()) for times, _ in rows),
        values=tuple(tuple(row[times].tolist()) for times, row in rows),
    )


def _positions(flat: list[int], shape: torch.Size) -> Iterator[tuple[int, ...]]:
    for index in flat:
        place: list[int] = []
        for size in reversed(shape):
            index, inside = divmod(index, size)
            place.append(inside)
        yield tuple(reversed(place))
