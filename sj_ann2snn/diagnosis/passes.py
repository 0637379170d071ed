"""Runs the network with all layers spiking, with one, and with all but one, and compares the answers with the ANN's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..distributed.ranks import ALONE, Ranks
from ..evaluation.given_networks import require_same_shapes
from ..simulation.answers import AnswerAtEnd, ChosenReadout
from ..simulation.engine import Simulator, concatenate, plain
from ..support.structures import open_values
from ..support.trees import map_tensors
from .answers import AnswerSums, real
from .data import Chunk
from .delay import longest_delay, some_elements
from .fitting import require_fitting_shapes
from .measuring import Measured, MeasuringCollector, TileResult
from .network import Layer, SpikingNetwork, run_once
from .observed import Raster
from .observing import LayerSampler, record_rasters
from .probes import ActivationProbe
from .scores import Scores
from .staircase import largest_output, mean_output

__all__ = ["Passes", "checkpoints_until"]


def checkpoints_until(steps: int) -> tuple[int, ...]:
    """The numbers of steps after which to look: the powers of two, and `steps`.

    >>> checkpoints_until(12)
    (1, 2, 4, 8, 12)
    """
    powers = [2**k for k in range(steps.bit_length()) if 2**k < steps]
    return (*powers, steps)


class Passes:
    """All runs of the networks, and what they yield.

    Args:
        network: The converted network.
        ann: Computes the ANN's output.
        steps: T.
        readout: The readout.
        mean: The readout "mean".
        scores: Makes the totals of the metrics for one way of running a network; None for no metrics.

    Attributes:
        measured: The figures of the layers.
        whole: The answers of the network, compared with the ANN's.
        spiking: The same, compared with those of the ANN in the network's units, like those below.
        folded: The answers of the ANN in the network's units.
        reference: The answers of the ANN itself.
        over_time: The answers of the mean after every checkpoint.
        delayed: The answers of the mean without the first steps, by their number; of some elements.
        alone: The answers with only one layer spiking, by target.
        without: The answers with every layer but one spiking, by target.
        corrected: The answers with all layers spiking, and the mean output of one corrected to f(x̄), by target: its
            spikes keep their times, so that what they do to the layers behind is not taken for its own error.
        samplers: Some activations and rates of every layer, by target.
        rasters: The spikes of some neurons for the first sample, by target.
    """

    def __init__(
        self,
        network: SpikingNetwork,
        ann: Callable[..., Any],
        steps: int,
        readout: ChosenReadout,
        mean: ChosenReadout,
        scores: Callable[[], Scores] | None = None,
    ) -> None:
        self.network, self.steps = network, steps
        self._ann, self._readout, self._mean = ann, readout, mean
        self.checkpoints = checkpoints_until(steps)
        self.measured = Measured(network.layers, self.checkpoints)

        def measured() -> AnswerSums:
            return AnswerSums(None if scores is None else scores())

        self.whole, self.folded, self.reference = (measured() for _ in range(3))
        self.spiking = AnswerSums()
        self.over_time = {steps: measured() for steps in self.checkpoints}
        self.delayed = {delay: AnswerSums() for delay in range(1, longest_delay(steps) + 1)}
        self.alone = {layer.target: measured() for layer in network.layers}
        self.without = {layer.target: measured() for layer in network.layers}
        self.corrected = {layer.target: AnswerSums() for layer in network.layers}
        self.samplers: dict[str, LayerSampler] = {}
        self.rasters: dict[str, Raster] = {}
        self._folded = network.ann()

    def run(self, chunks: Sequence[Chunk], ranks: Ranks = ALONE, *, progress: bool) -> None:
        """Run everything on all samples; every rank does it for some of the layers, and all get all figures."""
        layers = self.network.layers
        total = len(chunks) * (2 + 3 * len(layers))
        with tqdm(total=total, desc=f"diagnosing T={self.steps}", unit="pass", disable=not progress) as bar:
            for chunk in chunks:
                wanted, folded = self._ann_pass(chunk)
                activations = self.activations()
                bar.update()
                inner, missing = self._whole_pass(chunk, wanted, folded, activations)
                self._observe(chunk, activations, inner, missing)
                bar.update()
                for index, layer in enumerate(layers):
                    if not ranks.takes(index):
                        bar.update(3)
                        continue
                    value = self._alone_value(layer, chunk, activations)
                    network = self.network.ann([layer.target])
                    answer = open_values(run_once(network, (value, *chunk.inputs)))[0]
                    del network
                    self.alone[layer.target].add(answer, folded, chunk)
                    bar.update()
                    answer = self._simulated([layer.target], (inner[layer.target], *chunk.inputs))
                    self.without[layer.target].add(answer, folded, chunk)
                    bar.update()
                    values = (missing[layer.target], *chunk.inputs)
                    answer = self._simulated([layer.target], values, added=True)
                    self.corrected[layer.target].add(answer, folded)
                    bar.update()
        if ranks.several:
            self._exchange(ranks)

    def _exchange(self, ranks: Ranks) -> None:
        """Take over the figures of the layers that other ranks have run."""
        own = [layer.target for index, layer in enumerate(self.network.layers) if ranks.takes(index)]
        kinds = (self.alone, self.without, self.corrected)
        for found in ranks.exchanged({target: [kind[target].finished() for kind in kinds] for target in own}):
            for target, sums in found.items():
                for kind, one in zip(kinds, sums, strict=True):
                    kind[target] = one

    def activations(self) -> dict[str, Tensor]:
        """The ANN's activations of the last chunk, in units of a spike."""
        found = {}
        for layer in self.network.layers:
            probe = self._folded.get_submodule(layer.target)
            assert isinstance(probe, ActivationProbe)
            assert probe.seen is not None
            found[layer.target] = probe.seen
        return found

    def compare(self, chunk: Chunk) -> float:
        """The divergence of the network without time from the ANN, on some samples."""
        sums = AnswerSums()
        with torch.no_grad():
            wanted = real(open_values(self._ann(*chunk.inputs))[0])
        answers = real(open_values(run_once(self._folded, chunk.inputs))[0])
        require_same_shapes(answers, wanted)
        sums.add(answers, wanted)
        return sums.divergence

    def elements(self, chunk: Chunk) -> int:
        """Number of activations of one sample, over all layers."""
        run_once(self._folded, chunk.inputs)
        activations = self.activations()
        for layer in self.network.layers:
            require_fitting_shapes(layer.name, layer.unit, layer.axis, activations[layer.target])
        return max(1, sum(x.numel() for x in activations.values()) // chunk.samples)

    def _ann_pass(self, chunk: Chunk) -> tuple[list[Tensor], list[Tensor]]:
        """Run the ANN, and the ANN in the network's units; returns the outputs of both."""
        with torch.no_grad():
            output = open_values(self._ann(*chunk.inputs))[0]
        wanted = real(output)
        answer = open_values(run_once(self._folded, chunk.inputs))[0]
        self.reference.add(output, wanted, chunk)
        self.folded.add(answer, wanted, chunk)
        return wanted, real(answer)

    def _whole_pass(
        self,
        chunk: Chunk,
        wanted: Sequence[Tensor],
        folded: Sequence[Tensor],
        activations: Mapping[str, Tensor],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Run the network over time; returns f(x̄) and f(x̄) − r of every layer."""
        simulator = Simulator(self.network.spiking(self.checkpoints), self.steps)
        make = partial(MeasuringCollector, self.measured, activations, self._readout)
        tiles: list[TileResult] = simulator.run_all(chunk.inputs, make)
        answer = plain(concatenate([tile.answer for tile in tiles]))
        self.whole.add(answer, wanted, chunk)
        self.spiking.add(answer, folded)
        sums = [plain(concatenate(list(parts))) for parts in zip(*(tile.sums for tile in tiles), strict=True)]
        for steps, found in zip(self.checkpoints, sums, strict=True):
            self.over_time[steps].add(map_tensors(found, partial(_mean, steps)), wanted, chunk)
        self._delay(tiles, real(sums[-1]), wanted)
        targets = [layer.target for layer in self.network.layers]
        wanted_rates = {target: torch.cat([tile.wanted[target] for tile in tiles]) for target in targets}
        missing = {target: torch.cat([tile.missing[target] for tile in tiles]) for target in targets}
        return wanted_rates, missing

    def _delay(self, tiles: Sequence[TileResult], total: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
        """Compare the means without the first steps."""
        early = [torch.cat(parts, 1) for parts in zip(*(tile.early for tile in tiles), strict=True)]
        references = [some_elements(one) for one in wanted]
        totals = [some_elements(one) for one in total]
        for delay, sums in self.delayed.items():
            left = self.steps - delay
            sums.add([(a - b[delay - 1]) / left for a, b in zip(totals, early, strict=True)], references)

    def _observe(
        self,
        chunk: Chunk,
        activations: Mapping[str, Tensor],
        wanted: Mapping[str, Tensor],
        missing: Mapping[str, Tensor],
    ) -> None:
        """Keep some activations and rates, and once some spikes."""
        if not self.samplers:
            largest = {target: sums.largest for target, sums in self.measured.sums.items() if sums.largest is not None}
            for seed, layer in enumerate(self.network.layers):
                # What is no neuron passes on what the neurons in front of it emit.
                feeding = [largest[one.target].max() for one in self.network.feeding(layer) if one.target in largest]
                limit = largest.get(layer.target, max(feeding, default=None))
                self.samplers[layer.target] = LayerSampler(limit, self.steps, seed)
            self.rasters = record_rasters(self.network, chunk, activations, largest, self.steps)
        for target, sampler in self.samplers.items():
            sampler.add(activations[target], wanted[target] - missing[target])

    def _alone_value(self, layer: Layer, chunk: Chunk, activations: Mapping[str, Tensor]) -> Tensor:
        """The mean output of a layer that alone spikes in the ANN; for an operation, with the neurons in front."""
        activation = activations[layer.target]
        if layer.is_neuron:
            neuron = self.network.modules[layer.target]
            potential = None if layer.potential is None else layer.potential.to(activation.device)
            largest = largest_output(neuron, activation, self.steps, potential).to(activation.dtype)
            return mean_output(neuron, activation.minimum(largest), self.steps, potential).to(activation.dtype)
        feeding = {one.target for one in self.network.feeding(layer)}
        given = [one.target for one in self.network.layers if one.is_neuron and one.target not in feeding]
        values = tuple(activations[target] for target in given)
        found = self._simulated(given, (*values, *chunk.inputs), until=layer.target, mean=True)
        value: Tensor = found
        return value

    def _simulated(
        self,
        given: Iterable[str],
        inputs: tuple[Any, ...],
        *,
        until: str | None = None,
        mean: bool = False,
        added: bool = False,
    ) -> Any:
        """The answer of the network whose layers `given` emit constant values, or these in addition."""
        # Made anew each time: kept, each would keep the potentials of all its neurons.
        simulator = Simulator(self.network.spiking((), list(given), until, added=added), self.steps)
        readout = self._mean if mean else self._readout
        return plain(concatenate(simulator.run_all(inputs, lambda _: AnswerAtEnd(readout))))


def _mean(steps: int, total: Tensor) -> Tensor:
    return total / steps
