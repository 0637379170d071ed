"""All passes of one converted graph, and what follows from them for its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..compat import starting_potential
from ..distributed.ranks import ALONE, Ranks
from ..errors import InputError
from ..evaluation.costs.result import Costs
from ..hooks.discovery import load_plugins
from ..hooks.kinds import NEURONS
from ..simulation.answers import ChosenReadout
from .advice import Advisor, readout_advice
from .comparing import compared
from .data import Chunk, cut
from .delay import best_delay
from .network import SpikingNetwork
from .passes import Passes
from .remedies import ActivationSample
from .result import Advice, LayerDiagnosis, MetricFigures
from .scores import Scores
from .summary import layer_figures

__all__ = ["Examination", "examine"]

VALUES = 1 << 24
"""Activations, over all layers, to hold at a time."""


@dataclass(frozen=True)
class Examination:
    """What the passes of a converted network, or of a converted part, yielded.

    Attributes:
        passes: All of them.
        readout: Name of the readout.
        mismatch: Divergence of the network without time from the ANN.
        mending: Advice on parts that compute something else than the ANN.
        plugins: Plugin objects in addition to the installed ones, whose neurons may be advised.
        measured: Arguments by which `evaluate` measures what was diagnosed, as text.
    """

    passes: Passes
    readout: str
    mismatch: float
    mending: tuple[Advice, ...]
    plugins: Sequence[Any] = ()
    measured: Sequence[str] = ()

    def layers(self, metrics: Mapping[str, MetricFigures], costs: Costs | None = None) -> tuple[LayerDiagnosis, ...]:
        """The figures of every layer, in order; what layers with weights cost is known of whole networks only."""
        return layer_figures(self.passes, {one.layer: one.gain for one in self.mending}, metrics, costs)

    def advice(self, layers: Sequence[LayerDiagnosis]) -> list[Advice]:
        """What to change, the most important first."""
        found = [*self.mending, *self._advice(layers)]
        return sorted(found, key=lambda one: (one not in self.mending, -one.gain))

    @property
    def delay(self) -> int:
        """The number of first steps without which the mean output is closest to the ANN's."""
        passes = self.passes
        return best_delay(passes.over_time[passes.steps].divergence, self._delayed())

    def _delayed(self) -> dict[int, float]:
        return {delay: sums.divergence for delay, sums in self.passes.delayed.items()}

    def notes(self, layers: Sequence[LayerDiagnosis]) -> Iterator[str]:
        """What is not known about the network."""
        if not self.passes.network.noted:
            yield (
                "the network says no λ and no bounds of activations (it was read from a file of version 2 or older, "
                "or its graph was made anew): norms are over units of a spike, and what corrections changed counts as "
                "a difference from the ANN. Convert the ANN again for figures in its units"
            )
        for layer in layers:
            yield from (f"{layer.name}: {term} is not known; {why}" for term, why in layer.missing.items())

    def _advice(self, layers: Sequence[LayerDiagnosis]) -> list[Advice]:
        passes = self.passes
        network, divergence = passes.network, passes.spiking.divergence
        activations = passes.activations()
        samples = {}
        for layer in network.layers:
            largest = passes.measured.sums[layer.target].largest
            if layer.is_neuron and largest is not None:
                start = starting_potential(network.modules[layer.target])
                samples[layer.target] = ActivationSample.of(
                    activations[layer.target], layer.unit, largest, layer.axis, start
                )
        targets = {layer.name: layer.target for layer in network.layers}
        neurons = {one.name for one in load_plugins(self.plugins).registered(NEURONS)}
        advisor = Advisor(
            layers, targets, samples, passes.steps, network.call, neurons, network.behind(), self.measured
        )
        found = list(advisor.advice(divergence))
        part = network.prefix.removesuffix(".")
        first = None
        if not self.mending:
            first = readout_advice(divergence, self._delayed(), self.readout, passes.steps, part, self.measured)
        return [*([] if first is None else [first]), *found]


def examine(
    network: SpikingNetwork,
    ann: nn.Module,
    caller: Callable[..., Any],
    chunks: Sequence[Chunk],
    steps: int,
    readouts: tuple[ChosenReadout, ChosenReadout],
    scores: Callable[[], Scores] | None,
    plugins: Sequence[Any] = (),
    measured: Sequence[str] = (),
    ranks: Ranks = ALONE,
    *,
    progress: bool,
) -> Examination:
    """Run everything.

    Args:
        network: The converted network.
        ann: The ANN, in eval mode.
        caller: The ANN as a function of its inputs in order.
        chunks: The samples.
        steps: T.
        readouts: The readout, and the mean.
        scores: As for `Passes`.
        plugins: Plugin objects in addition to the installed ones.
        measured: Arguments by which `evaluate` measures what is diagnosed, as text.
        ranks: The processes that share the layers.
        progress: Show a progress bar.

    Raises:
        InputError: The network is not made of this ANN.
    """
    passes = Passes(network, caller, steps, *readouts, scores)
    pieces = _that_fit(passes, chunks)
    mismatch, mending = compared(passes, ann, pieces)
    passes.run(pieces, ranks, progress=progress and ranks.is_first)
    return Examination(passes, readouts[0].readout.name, mismatch, tuple(mending), plugins, measured)


def _that_fit(passes: Passes, chunks: Sequence[Chunk]) -> list[Chunk]:
    """The chunks in pieces whose activations fit into memory."""
    known: dict[Any, int] = {}
    pieces = []
    for chunk in chunks:
        first = cut(chunk, 2)[0]
        shape = tuple(tuple(x.shape[1:]) for x in first.tensors)
        if shape not in known:
            try:
                known[shape] = passes.elements(first)
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                raise InputError(
                    "The network is not made of this ANN: it cannot take the inputs that the ANN takes "
                    f"({type(error).__name__}: {error}). Give the ANN that was converted."
                ) from error
        pieces += cut(chunk, max(1, VALUES // known[shape]))
    return pieces
