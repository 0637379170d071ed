"""Diagnoses a network of which only parts were converted: each part on the inputs that the network gives it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..contracts.readout import Readout
from ..conversion.prepare import working_copy
from ..distributed.ranks import ALONE, Ranks
from ..errors import InputError
from ..simulation.answers import readout_for
from ..simulation.engine.numbers.firing import is_spiking
from ..simulation.partwise import PartwiseSimulator
from ..support.batches import Signature, count_samples, explain_rejection, rows_of_inputs
from ..support.structures import open_values, rebuild
from ..support.trees import map_tensors
from ..support.wording import shown
from .answers import AnswerSums, real
from .data import Chunk, read_samples
from .examining import Examination, examine
from .network import SpikingNetwork
from .result import Advice, Diagnosis, LayerDiagnosis
from .scores import Scores, Wanted
from .statistics import statistics_advice
from .summary import metric_figures

__all__ = ["diagnose_parts"]


@dataclass
class _Received:
    """What a part received.

    Attributes:
        chunks: The first samples of every call.
        rows: The rows of all calls.
        taken: By number of the call in a run of the network, how many rows `chunks` has.
    """

    chunks: list[Chunk]
    rows: int
    taken: dict[int, int]

    def add(self, number: int, inputs: tuple[Any, ...], most: int) -> None:
        """Take in the inputs of a call."""
        count = count_samples(inputs)
        self.rows += count
        left = min(count, most - self.taken.get(number, 0))
        if left > 0:
            self.taken[number] = self.taken.get(number, 0) + left
            inputs = tuple(map_tensors(value, Tensor.clone) for value in inputs)
            self.chunks.append(Chunk(rows_of_inputs(inputs, slice(0, left), count), slice(0, left)))


def diagnose_parts(
    ann: nn.Module,
    snn: nn.Module,
    parts: dict[str, fx.GraphModule],
    data: Iterable[Any],
    steps: int,
    most: int,
    wanted: Wanted,
    readout: str | Readout | None,
    plugins: Sequence[Any],
    ranks: Ranks = ALONE,
    *,
    progress: bool,
) -> Diagnosis:
    """As for `diagnose`.

    Args:
        ann: The ANN.
        snn: The network.
        parts: Its converted parts, by name.
        data: The batches.
        steps: T.
        most: Number of samples.
        wanted: What to measure.
        readout: As for `diagnose`.
        plugins: As for `diagnose`.
        ranks: The processes that share the layers.
        progress: Show a progress bar.
    """
    networks = _networks(parts)
    if not networks:
        raise InputError(
            "No layer of the network spikes, so there is nothing to diagnose: all of its activations are computed on "
            "analog values."
        )
    simulator = PartwiseSimulator(snn, parts, steps, "float32", readout, plugins)
    ann = working_copy(ann, simulator.device)
    pairs = {name: _submodule(ann, name) for name in networks}
    signature, chunks = read_samples(ann, data, most, wanted, simulator.device, ranks)
    whole = _Whole(ann, signature, simulator, chunks, wanted)
    received = {name: _Received([], 0, {}) for name in networks}
    for chunk in chunks:
        whole.run(chunk, received, most)
    examined: dict[str, Examination] = {}
    for name, network in networks.items():
        if not received[name].chunks:
            continue
        part, signature = pairs[name], Signature.of(parts[name])
        readouts = readout_for(parts[name], readout, steps, plugins), readout_for(parts[name], "mean", steps)
        with _named(name):
            caller = signature.caller(part)
            _require_callable(caller, received[name].chunks[0], part)
            found = received[name].chunks
            examined[name] = examine(
                network, part, caller, found, steps, readouts, None, plugins, wanted.arguments, ranks, progress=progress
            )
    if not examined:
        raise InputError("The network calls none of its converted parts on the given data, so nothing spikes.")
    own = whole.statistics(signature, chunks, wanted, next(iter(examined.values())).passes.network.call)
    return _joined(examined, received, whole, wanted, own, [name for name in networks if name not in examined])


class _Whole:
    """The answers of the whole network, and of the ANN."""

    def __init__(
        self, ann: nn.Module, signature: Signature, simulator: PartwiseSimulator, chunks: list[Chunk], wanted: Wanted
    ) -> None:
        self._ann, self._caller, self.simulator = ann, signature.caller(ann), simulator
        self._template: Any = None
        self.samples = sum(chunk.samples for chunk in chunks)
        first = self._of_ann(chunks[0].inputs)
        targets = [chunk.targets for chunk in chunks if chunk.targets is not None]
        by_default = wanted.is_default and not wanted.fit(targets, first)
        self.measured = bool(targets) and not by_default
        make = partial(Scores, wanted.measures, self._restored)
        self.scores, self.reference = (make() if self.measured else None for _ in range(2))
        self.sums: AnswerSums | None = AnswerSums()

    def run(self, chunk: Chunk, received: dict[str, _Received], most: int) -> None:
        """Run both on the samples of a batch, and keep what the parts receive."""
        calls: dict[str, int] = {}

        def seen(name: str, inputs: tuple[Any, ...]) -> None:
            number = calls[name] = calls.get(name, 0) + 1
            if name in received:
                received[name].add(number, inputs, most)

        answer = map_tensors(open_values(self.simulator.answer(chunk.inputs, seen))[0], lambda y: y.detach().cpu())
        output = self._of_ann(chunk.inputs)
        found, wanted = real(answer), real(output)
        if [x.shape for x in found] != [x.shape for x in wanted]:
            self.sums = None  # a detector finds other boxes
        if self.sums is not None:
            self.sums.add(answer, wanted)
        if self.scores is not None and self.reference is not None and chunk.targets is not None:
            targets = replace(chunk.targets, ragged=True)
            self.scores.add(answer, targets, chunk.rows)
            self.reference.add(output, targets, chunk.rows)
            # The next output may have another structure.
            self.scores.finish()
            self.reference.finish()

    def statistics(
        self, signature: Signature, chunks: Sequence[Chunk], wanted: Wanted, call: Mapping[str, Any]
    ) -> list[Advice]:
        """Advice on the ANN's own BatchNorms."""
        # A detector's answers cannot be cut into samples, and its statistics are judged by themselves.
        measures = wanted.measures if self.measured and self.sums is not None else ()
        found = statistics_advice(self._ann, signature, chunks, measures, self._restored, call)
        return [] if found is None else [found]

    def _restored(self, output: Any) -> Any:
        return rebuild(output, self._template)

    def _of_ann(self, inputs: tuple[Any, ...]) -> Any:
        """The ANN's output on the CPU."""
        with torch.no_grad(), explain_rejection(inputs, self._ann, errors=(Exception,)):
            opened, self._template = open_values(self._caller(*inputs))
        return map_tensors(opened, lambda y: y.detach().cpu())


def _networks(parts: dict[str, fx.GraphModule]) -> dict[str, SpikingNetwork]:
    """The parts with spiking layers."""
    names = list(parts)
    found = {}
    for name, part in parts.items():
        if any(is_spiking(module) for module in part.modules()):
            with _named(name):
                found[name] = SpikingNetwork(part, f"{name}.", {"convert_only": names[0] if len(names) == 1 else names})
    return found


def _submodule(ann: nn.Module, name: str) -> nn.Module:
    try:
        return ann.get_submodule(name)
    except AttributeError as error:
        raise InputError(
            f"The network is not made of this ANN: its part {shown(name)} was converted, and the ANN has no submodule "
            "of this name. Give the ANN that was converted."
        ) from error


def _require_callable(caller: Callable[..., Any], chunk: Chunk, part: nn.Module) -> None:
    with torch.no_grad(), explain_rejection(chunk.inputs, part, errors=(Exception,)):
        caller(*chunk.inputs)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Let errors begin with the part that they are about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"In the submodule {shown(name)} (convert_only): {error}") from error


def _joined(
    examined: dict[str, Examination],
    received: dict[str, _Received],
    whole: _Whole,
    wanted: Wanted,
    own: list[Advice],
    unused: list[str],
) -> Diagnosis:
    figures: list[LayerDiagnosis] = []
    advice, notes = [], []
    synops = 0.0
    for name, one in examined.items():
        layers = one.layers({})
        # Figures are per row of the part's inputs, of which a sample may give several.
        factor = received[name].rows / whole.samples
        figures += [
            replace(
                layer, spikes=layer.spikes * factor, emissions=layer.emissions * factor, synops=layer.synops * factor
            )
            for layer in layers
        ]
        synops += factor * sum(one.passes.measured.totals.events.values()) / one.passes.measured.samples
        advice += one.advice(layers)
        notes += list(one.notes(layers))
    values = {} if whole.scores is None else whole.scores.values()
    references = {} if whole.reference is None else whole.reference.values()
    steps = next(iter(examined.values())).passes.steps
    metrics, said = metric_figures(values, references, {steps: values}, wanted.measures)
    first = next(iter(metrics.values()), None)
    of_parts = _mean([one.passes.whole.divergence for one in examined.values()])
    divergence = of_parts if whole.sums is None else whole.sums.divergence
    notes.append(
        "only parts of the network were converted: errors and effects are those in the answer of the part, on the "
        "inputs that the network gives it"
    )
    if whole.sums is None:
        notes.append(
            "the network's answers have other shapes than the ANN's: the difference is that of the parts' answers"
        )
    notes += [f"{name} is not called on the given data" for name in unused]
    return Diagnosis(
        layers=tuple(figures),
        advice=(*sorted(advice, key=lambda one: (one.cause not in ("batchnorm", "mismatch"), -one.gain)), *own),
        T=steps,
        samples=whole.samples,
        readout=next(iter(examined.values())).readout,
        divergence=divergence,
        mismatch=_mean([one.mismatch for one in examined.values()]),
        accuracy=None if first is None else first.value,
        ann_accuracy=None if first is None else first.ann_value,
        divergence_over_time={steps: divergence},
        accuracy_over_time={} if first is None else first.over_time,
        spikes=sum(layer.spikes for layer in figures),
        synops=synops,
        not_counted=tuple(dict.fromkeys(what for one in examined.values() for what in one.passes.measured.not_counted)),
        notes=(*notes, *said),
        metrics=metrics,
        delay=max(one.delay for one in examined.values()),
    )


def _mean(values: Sequence[float]) -> float:
    """The root mean square."""
    return math.sqrt(sum(value**2 for value in values) / len(values))
