"""Says why a converted network does not answer like its ANN, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ..compat import starting_potential
from ..contracts.option_checks import require_integer
from ..contracts.readout import Readout
from ..conversion.prepare import working_copy
from ..errors import InputError
from ..simulation.answers import readout_for
from ..simulation.engine.firing import is_spiking
from ..support.batches import explain_rejection
from ..support.neutral import neutrally
from ..support.structures import open_values, rebuild
from ..support.wording import listed
from .advice import call_of, layer_advice, readout_advice
from .data import Chunk, cut, read_samples, without_targets
from .mismatch import ALLOWED, find_mismatches, not_of_this_ann
from .network import SpikingNetwork
from .passes import Passes
from .remedies import ActivationSample
from .result import Advice, Diagnosis, LayerDiagnosis
from .scores import Scores, Wanted
from .summary import layer_figures, metric_figures
from .table import percent

__all__ = ["diagnose"]

VALUES = 1 << 24
"""Activations, over all layers, to hold at a time."""

ALLOWED_OF_FILES = 0.3
"""Difference from the ANN, without time, of a network without notes: it may have been corrected, or have bounds."""


@neutrally
def diagnose(
    ann: nn.Module,
    snn: nn.Module,
    data: Iterable[Any],
    T: int,  # noqa: N803 - the field's name for the number of time steps
    *,
    samples: int = 200,
    labels: bool | None = None,
    metric: Any = None,
    against_ann: bool = False,
    readout: str | Readout | None = None,
    plugins: Sequence[Any] = (),
    progress: bool = True,
) -> Diagnosis:
    """Find out which layers of a converted network lose the ANN's answer, by what, and what mends it.

    >>> import torch
    >>> from sj_ann2snn import Converter, diagnose
    >>> _ = torch.manual_seed(0)
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x = torch.rand(64, 4)
    >>> snn = Converter([x], mode=0.25, progress=False)(ann)
    >>> diagnosis = diagnose(ann, snn, [x], T=32, progress=False)
    >>> diagnosis.worst[0].name, diagnosis.advice[0].cause
    ('1', 'clipping')

    The error of a spiking layer, the ANN's activation a minus λ times the firing rate r, is split into four terms that
    add up to it, with x̄ the mean current that really arrived, f the activation and Q_T the staircase that T steps make
    of it: *inherited* a − f(x̄), *clipping* f(x̄) − min(f(x̄), λ), *rounding* min(f(x̄), λ) − Q_T(min(f(x̄), λ)) and
    *unevenness* Q_T(min(f(x̄), λ)) − λ·r. λ and Q_T are measured on the neuron itself, so that the split holds for
    neurons of any kind. In addition, the network runs with only one layer spiking and with all layers but one spiking,
    the others as in the ANN.

    The network runs for T steps at most three times for every layer.

    Args:
        ann: The ANN that was converted.
        snn: What `Converter` or `load_network` returned.
        data: Batches in the form that the network takes, with or without labels; their first `samples` are used.
        T: Number of time steps, at least 1.
        samples: Number of samples, at least 1.
        labels: True if the data must have class labels, False to ignore them; by default they are used if there are
            any and the network is a classifier.
        metric: What else than the accuracy to measure, as for `evaluate`: a name, a `Metric`, a function of (output,
            target), a torchmetrics.Metric, or a dict with one for each output. Drops are losses: of an error such as
            ``"mse"`` the rise, which a metric says by `higher_is_better = False`.
        against_ann: Compare with the ANN's outputs in place of targets, by default by ``"agreement"``.
        readout: As for `evaluate`.
        plugins: Plugin objects to use in addition to the installed ones, whose readouts you may name.
        progress: Show a progress bar.

    Returns:
        A `Diagnosis`.

    Raises:
        InputError: `T` or `samples` is not a positive integer; the data is empty, does not fit the network, or has no
            labels although `labels` is true; `snn` is no converted network, has no spiking layer, or is not made of
            `ann`.
        OptionError: `readout` is unknown, or has no answer after `T` steps; `metric` is no metric; or `labels` is given
            together with `metric` or `against_ann`.
        PluginError: The metric fails.
    """
    steps = require_integer("T", T, what="the number of time steps", error=InputError)
    most = require_integer("samples", samples, what="the number of samples", error=InputError)
    _require_ann(ann)
    network = SpikingNetwork(snn)
    wanted = Wanted.of(metric, labels, against_ann)
    chosen, mean = readout_for(snn, readout, steps, plugins), readout_for(snn, "mean", steps)
    copied = working_copy(ann, network.device)
    signature, chunks = read_samples(copied, data, most, wanted, network.device)
    caller = signature.caller(copied)
    first = cut(chunks[0], 2)[0]
    with torch.no_grad(), explain_rejection(first.inputs, copied, errors=(Exception,)):
        output, template = open_values(caller(*first.inputs))
    if metric is None and not wanted.against_ann:
        chunks = _with_labels(chunks, wanted, output)
    scores = None if chunks[0].targets is None else partial(Scores, wanted.measures, partial(_restored, template))
    passes = Passes(network, caller, steps, chosen, mean, scores)
    chunks = _that_fit(passes, chunks)
    mismatch, mending = _compared(passes, copied, chunks)
    passes.run(chunks, progress=progress)
    return _result(passes, chosen.readout.name, mismatch, mending, wanted)


def _require_ann(ann: Any) -> None:
    if not isinstance(ann, nn.Module):
        raise InputError(
            f"diagnose(ann, snn, data, T) takes the ANN first, a torch.nn.Module, not {type(ann).__name__}."
        )
    if any(is_spiking(module) for module in ann.modules()):
        raise InputError(
            f"diagnose(ann, snn, data, T) takes the ANN first, but this {type(ann).__name__} has spiking neurons. Give "
            "the network that was converted, and behind it what the converter returned."
        )


def _with_labels(chunks: list[Chunk], wanted: Wanted, output: Any) -> list[Chunk]:
    """The chunks, without labels if they cannot be compared with the output."""
    found = [chunk.targets for chunk in chunks if chunk.targets is not None]
    return chunks if wanted.fit(found, output) else without_targets(chunks)


def _restored(template: Any, output: Any) -> Any:
    """An output with the classes that the ANN gives it."""
    return rebuild(output, template)


def _that_fit(passes: Passes, chunks: list[Chunk]) -> list[Chunk]:
    """The chunks in pieces whose activations fit into memory."""
    first = cut(chunks[0], 2)[0]
    try:
        elements = passes.elements(first)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise InputError(
            "The network is not made of this ANN: it cannot take the inputs that the ANN takes "
            f"({type(error).__name__}: {error}). Give the ANN that was converted."
        ) from error
    return [piece for chunk in chunks for piece in cut(chunk, max(1, VALUES // elements))]


def _compared(passes: Passes, ann: nn.Module, chunks: Sequence[Chunk]) -> tuple[float, list[Advice]]:
    """How far the network without time is from the ANN, and advice on the parts that differ.

    Raises:
        InputError: They have little in common.
    """
    some = cut(chunks[0], 64)[0]
    error = passes.compare(some)
    if error <= (ALLOWED if passes.network.noted else ALLOWED_OF_FILES):
        return error, []
    notes = passes.network.notes
    pools = [name for name, what in notes.approximate.items() if "Pool" in what or "pool" in what]
    exchanged = [name for name in pools if name not in {layer.target for layer in passes.network.layers}]
    call = dict(notes.call)
    if exchanged:
        arguments = {"maxpool": "cumulative"}
        text = (
            f"average pools stand for the ANN's max pools ({listed(exchanged)}), which changes the answer by "
            f'{percent(error)} before a neuron spikes: maxpool="cumulative" computes the maximum'
        )
        return error, [Advice(exchanged[0], "maxpool", text, arguments, call_of(call, arguments), error)]
    found = find_mismatches(passes.network, ann, some.inputs)
    if not found:
        raise not_of_this_ann(error)
    return error, [_mismatch_advice(one.layer, one.error, one.batchnorm, error, call) for one in found]


def _mismatch_advice(layer: str, here: float, batchnorm: str, error: float, call: dict[str, Any]) -> Advice:
    where = layer or "the output"
    part = f"{batchnorm} in front of {where}" if batchnorm else f"what leads to {where}"
    text = (
        f"{part} is not that of this ANN: {where} differs by {percent(here)} although everything in front of it is "
        "right, without a single spike. The network was converted with other weights or statistics"
        f"{' (a BatchNorm in training mode changes them)' if batchnorm else ''}: convert the ANN again"
    )
    return Advice(layer, "batchnorm" if batchnorm else "mismatch", text, {}, call_of(call, {}), error)


def _result(passes: Passes, readout: str, mismatch: float, mending: list[Advice], wanted: Wanted) -> Diagnosis:
    divergence = passes.whole.divergence
    metrics, notes = metric_figures(passes, wanted.measures)
    layers = layer_figures(passes, {one.layer: one.gain for one in mending}, metrics)
    found = [*mending, *_advice(passes, layers, readout, bool(mending))]
    measured = passes.measured
    first = next(iter(metrics.values()), None)
    return Diagnosis(
        layers=layers,
        advice=tuple(sorted(found, key=lambda one: (one not in mending, -one.gain))),
        T=passes.steps,
        samples=measured.samples,
        readout=readout,
        divergence=divergence,
        mismatch=mismatch,
        accuracy=None if first is None else first.value,
        ann_accuracy=None if first is None else first.ann_value,
        divergence_over_time={steps: sums.divergence for steps, sums in passes.over_time.items()},
        accuracy_over_time={} if first is None else first.over_time,
        spikes=sum(layer.spikes for layer in layers),
        synops=sum(measured.operations.values()) / measured.samples,
        not_counted=tuple(measured.not_counted),
        notes=(*_notes(passes, layers), *notes),
        metrics=metrics,
    )


def _advice(passes: Passes, layers: tuple[LayerDiagnosis, ...], readout: str, mended: bool) -> list[Advice]:
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
    ranked = sorted(layers, key=lambda one: -one.effect)
    targets = {layer.name: layer.target for layer in network.layers}
    found = list(layer_advice(ranked, targets, samples, passes.steps, divergence, network.notes.call))
    delayed = {steps: sums.divergence for steps, sums in passes.delayed.items()}
    first = None if mended else readout_advice(divergence, delayed, readout, passes.steps, "")
    return [*([] if first is None else [first]), *found]


def _notes(passes: Passes, layers: Sequence[LayerDiagnosis]) -> Iterable[str]:
    if not passes.network.noted:
        yield (
            "the network says no λ and no bounds of activations (it was read from a file of version 2 or older, or its "
            "graph was made anew): norms are over units of a spike, and what corrections changed counts as a "
            "difference from the ANN. Convert the ANN again for figures in its units"
        )
    for layer in layers:
        yield from (f"{layer.name}: {term} is not known; {why}" for term, why in layer.missing.items())
