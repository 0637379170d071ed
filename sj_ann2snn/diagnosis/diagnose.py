"""Says why a converted network does not answer like its ANN, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from ..contracts.option_checks import require_integer
from ..contracts.readout import Readout
from ..conversion.prepare import working_copy
from ..distributed.ranks import Ranks
from ..distributed.session import together
from ..distributed.settings import Distributed
from ..errors import InputError
from ..evaluation.costs.dense import DensePasses
from ..evaluation.costs.energy import energy_per_operation
from ..evaluation.costs.layers import Layers
from ..evaluation.costs.result import Costs
from ..evaluation.costs.summary import summed_up
from ..evaluation.given_networks import require_ann
from ..layers import IntegerIF
from ..simulation.answers import readout_for
from ..simulation.partwise import converted_parts
from ..support.batches import explain_rejection
from ..support.neutral import neutrally
from ..support.structures import open_values, rebuild
from .data import Chunk, cut, read_samples, without_targets
from .examining import Examination, examine
from .network import SpikingNetwork
from .parts import diagnose_parts
from .passes import Passes
from .result import Advice, Diagnosis
from .scores import Scores, Wanted
from .statistics import statistics_advice
from .summary import metric_figures, observed

__all__ = ["diagnose"]


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
    distributed: bool | str | Distributed = False,
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
        plugins: Plugin objects to use in addition to the installed ones: their readouts may be named, their neurons
            advised.
        progress: Show a progress bar.
        distributed: Share the layers between the processes of a torch.distributed group, all of which call `diagnose`
            and get the same diagnosis: True if they pass the same data, `"sharded"` if each passes its own part, or a
            `Distributed`.

    Returns:
        A `Diagnosis`.

    Raises:
        InputError: `T` or `samples` is not a positive integer; the data is empty, does not fit the network, or has no
            labels although `labels` is true; `snn` is no converted network, has no spiking layer, computes with
            integers, or is not made of `ann`.
        OptionError: `readout` is unknown, or has no answer after `T` steps; `metric` is no metric; or `labels` is given
            together with `metric` or `against_ann`.
        PluginError: The metric fails.
        DistributedError: Another process failed, is lost, or was given other networks.
    """
    steps = require_integer("T", T, what="the number of time steps", error=InputError)
    most = require_integer("samples", samples, what="the number of samples", error=InputError)
    require_ann(
        ann,
        "diagnose(ann, snn, data, T) takes the ANN first",
        "Give the network that was converted, and behind it what the converter returned.",
    )
    _require_floating_point(snn)
    wanted = Wanted.of(metric, labels, against_ann)
    with together(distributed, f"diagnose(T={steps})") as ranks:
        ranks.require_same("has other networks", "Every process must load or train the same weights.", ann, snn)
        found = _diagnosed(ann, snn, data, steps, most, wanted, readout, plugins, ranks, progress=progress)
        return ranks.from_first(lambda: found)


def _diagnosed(
    ann: nn.Module,
    snn: nn.Module,
    data: Iterable[Any],
    steps: int,
    most: int,
    wanted: Wanted,
    readout: str | Readout | None,
    plugins: Sequence[Any],
    ranks: Ranks,
    *,
    progress: bool,
) -> Diagnosis:
    parts = converted_parts(snn) if isinstance(snn, nn.Module) else {}
    if parts:
        return diagnose_parts(ann, snn, parts, data, steps, most, wanted, readout, plugins, ranks, progress=progress)
    network = SpikingNetwork(snn)
    readouts = readout_for(snn, readout, steps, plugins), readout_for(snn, "mean", steps)
    copied = working_copy(ann, network.device)
    signature, chunks = read_samples(copied, data, most, wanted, network.device, ranks)
    caller = signature.caller(copied)
    first = cut(chunks[0], 2)[0]
    with torch.no_grad(), explain_rejection(first.inputs, copied, errors=(Exception,)):
        output, template = open_values(caller(*first.inputs))
    if wanted.is_default:
        chunks = _with_labels(chunks, wanted, output)
    restore = partial(_restored, template)
    scores = None if chunks[0].targets is None else partial(Scores, wanted.measures, restore)
    dense = DensePasses(copied, snn, signature)
    for chunk in chunks:
        dense.add(chunk.inputs, signature, chunk.inputs)
    asked = wanted.arguments
    found = examine(network, copied, caller, chunks, steps, readouts, scores, plugins, asked, ranks, progress=progress)
    own = statistics_advice(copied, signature, chunks, wanted.measures, restore, network.call)
    made = _result(found, wanted, [] if own is None else [own], _costs(found.passes, dense))
    return replace(made, observed=observed(found.passes, type(ann).__name__, plugins))


def _with_labels(chunks: list[Chunk], wanted: Wanted, output: Any) -> list[Chunk]:
    """The chunks, without labels if they cannot be compared with the output."""
    found = [chunk.targets for chunk in chunks if chunk.targets is not None]
    return chunks if wanted.fit(found, output) else without_targets(chunks)


def _restored(template: Any, output: Any) -> Any:
    """An output with the classes that the ANN gives it."""
    return rebuild(output, template)


def _costs(passes: Passes, dense: DensePasses) -> Costs:
    measured, network = passes.measured, dense.snn
    spikes = sum(sums.spikes for sums in measured.sums.values()) / measured.samples
    figures = energy_per_operation(None)
    return summed_up(Layers.of(network), dense, measured.totals, figures, passes.steps, measured.samples, spikes)


def _result(found: Examination, wanted: Wanted, own: list[Advice], costs: Costs) -> Diagnosis:
    passes = found.passes
    over_time = {steps: sums.values for steps, sums in passes.over_time.items()}
    metrics, notes = metric_figures(passes.whole.values, passes.reference.values, over_time, wanted.measures)
    layers = found.layers(metrics, costs)
    measured = passes.measured
    first = next(iter(metrics.values()), None)
    return Diagnosis(
        layers=layers,
        advice=(*found.advice(layers), *own),
        T=passes.steps,
        samples=measured.samples,
        readout=found.readout,
        divergence=passes.whole.divergence,
        mismatch=found.mismatch,
        accuracy=None if first is None else first.value,
        ann_accuracy=None if first is None else first.ann_value,
        divergence_over_time={steps: sums.divergence for steps, sums in passes.over_time.items()},
        accuracy_over_time={} if first is None else first.over_time,
        spikes=sum(layer.spikes for layer in layers),
        synops=costs.synops,
        not_counted=tuple(measured.not_counted),
        notes=(*found.notes(layers), *notes),
        metrics=metrics,
        costs=costs,
        delay=found.delay,
    )


def _require_floating_point(snn: object) -> None:
    """Raises:
    InputError: `snn` computes with integers, in which no value has the ANN's units.
    """
    modules = snn.named_modules() if isinstance(snn, nn.Module) else ()
    found = next((name for name, module in modules if isinstance(module, IntegerIF)), None)
    if found is not None:
        raise InputError(
            f"The network computes with integers ({found} is an IntegerIF), and diagnose compares values in the ANN's "
            "units. Diagnose the same conversion without weights=: its spikes differ by what rounding the weights "
            "changes, and evaluate tells how much accuracy that costs."
        )
