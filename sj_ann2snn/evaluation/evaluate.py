"""Measures a network over time steps: its accuracy or another metric, its spikes and synaptic operations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from torch import fx, nn
from tqdm.auto import tqdm

from ..contracts.exit_rule import ExitRule
from ..contracts.readout import Readout
from ..errors import EvaluationInterrupted, InputError, NonFiniteError
from ..hooks.choice import choose, find
from ..hooks.discovery import load_plugins
from ..hooks.kinds import EXIT_RULES
from ..hooks.options import construct
from ..hooks.registry import culprit
from ..simulation.partwise import PartwiseSimulator, simulator_for
from ..support.batches import Signature, describe_batch, forward_signature, samples_of
from ..support.loaders import Batches
from ..support.neutral import neutrally
from ..support.quiet_layers import warn_of_quiet_layers
from ..support.trees import tensors
from .ann_outputs import AnnOutputs
from .metrics.measures import measures_of
from .metrics.targets import Targets
from .result import EvaluationResult
from .tally import Tally, metrics_of
from .tile import BatchMetric, ChosenRule, Tile, shown_once

__all__ = ["accuracy_of", "ann_values", "evaluate"]

MOST_STEPS = 100_000_000
"""Time steps whose values fit into memory in any case."""

EMPTY = "The loader is empty: it yields no batches to evaluate."


@neutrally
def evaluate(
    snn: nn.Module,
    loader: Iterable[Any],
    T: int,  # noqa: N803 - the field's name for the number of time steps
    *,
    readout: str | Readout | None = None,
    metric: Any = None,
    ann: nn.Module | None = None,
    early_exit: float | str | ExitRule | None = None,
    precision: str = "float32",
    plugins: Sequence[Any] = (),
    progress: bool = True,
) -> EvaluationResult:
    """Run all of `loader` and measure the network's accuracy, or another metric, after every number of steps.

    >>> import torch
    >>> from sj_ann2snn import Converter, evaluate
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x = torch.rand(64, 4)
    >>> snn = Converter([x], mode="max", progress=False)(ann)
    >>> result = evaluate(snn, [(x, ann(x).argmax(1))], T=100, progress=False)
    >>> len(result.accuracy), result.accuracy[-1] > 0.8
    (100, True)
    >>> evaluate(snn, [(x, ann(x).argmax(1))], T=100, early_exit=2.0, progress=False).steps_per_sample < 100
    True
    >>> result = evaluate(snn, [x], T=100, metric={"agreement": "agreement", "error": "mse"}, ann=ann, progress=False)
    >>> result.values["agreement"][-1] > 0.8, result.values["error"][-1] < result.values["error"][0]
    (True, True)

    Args:
        snn: A converted network.
        loader: Batches of inputs and targets: tuples, lists or dicts; the last batch may be smaller. What follows the
            inputs is the target, or stands in a dict under a key such as ``label``. For classes these are indices from
            0 up, ``[N]`` or ``[N, 1]``, of any integer type, or one-hot rows ``[N, classes]``; for other targets see
            `metric`.
        T: Number of time steps, at least 1.
        readout: How to turn the outputs over time into the answer: `"mean"`, `"delayed"`, `"exponential"`, `"last"`,
            `"potential"`, the name of any plugin's readout, or an instance with options,
            ``Delayed(delay=2)``. By default, the readout for which a correction adjusted the network,
            otherwise the mean.
        metric: What to measure; by default the accuracy. One of

            - a name: `"top1"`, `"top5"` (accuracy, also per position), `"mse"`, `"mae"`, `"r2"`, `"iou"`, `"dice"`,
              `"agreement"` (with the ANN, without any target); or an instance with options, ``IoU(threshold=0.5)``
            - a function of (output, target), called after every step with the outputs of a whole batch, as the network
              returns them, and the targets as the batch holds them (a tuple if several things follow the inputs), both
              on the CPU. It returns a number, the mean over the batch, or one number per sample, ``[N]``
            - a ``torchmetrics.Metric``, or another object with ``update(output, target)`` and ``compute()``
            - for a network with several outputs, a dict or tuple with one of these for each output:
              ``{"scores": "top1", "boxes": "mse"}``. For one output, a dict or list of several metrics
        ann: The ANN, in eval mode, whose outputs replace the targets: "mse" is then the distance from the ANN, and
            "top1" counts the ANN's answers as right. If `metric` is not given, it is "agreement".
        early_exit: Stop simulating a sample once its answer is settled; the others continue. Give the margin by which
            the summed output of the best class must lead the next (`Margin`), the name of a rule, or an
            `ExitRule`. If several outputs are measured, all of them must be settled.
        precision: Precision of the products, as for `simulate`.
        plugins: Plugin objects to use in addition to the installed ones, whose readouts and exit rules you may name.
        progress: Show a progress bar.

    Raises:
        InputError: `T` is not a positive integer; the loader is empty, fails, or is none; a batch does not fit the
            network, or has no targets, or targets that the metric cannot compare with the output.
        NonFiniteError: A batch or a weight holds NaN or infinite values, which the answers would hide.
        OptionError: `metric` is no metric; `early_exit` names no rule; `readout` is unknown, or has no answer after
            `T` steps; or `precision` is not available on the network's device.
        PluginError: The metric, a readout or an exit rule fails.
        EvaluationInterrupted: Ctrl-C was pressed. Its `result` covers the samples that were finished by then; metrics
            that need a whole batch cover the batches before. It is a `KeyboardInterrupt`.
    """
    measures = measures_of(metric, ann)
    rule = _exit_rule(early_exit, plugins)
    simulator, answering = simulator_for(snn, T, precision, readout, plugins)
    warn_of_quiet_layers(snn, T)
    signature = Signature.of(snn) if isinstance(snn, fx.GraphModule) else None
    if simulator.steps > MOST_STEPS:
        raise InputError(
            f"T={simulator.steps} is not allowed: evaluate keeps the accuracy after every step, of at most "
            f"{MOST_STEPS:,}."
        )
    totals = Tally(metrics_of(measures, T, simulator.restore))
    judge = None if ann is None else AnnOutputs(ann)
    batches = _batches(loader)
    metrics: list[BatchMetric] = []
    try:
        with tqdm(batches, desc=f"simulating T={T}", unit="batch", total=batches.length(), disable=not progress) as bar:
            for index, batch in enumerate(bar):
                signature = signature or forward_signature(snn, batch)
                with _named(index):
                    inputs = _inputs(signature, batch)
                    targets = _targets(signature, batch, inputs, judge)
                    metrics = totals.batch(replace(targets, ragged=isinstance(simulator, PartwiseSimulator)))
                with totals.timed(), _named(index):
                    tile = partial(Tile, metrics, T, answering, rule, totals.connections, totals.add)
                    simulator.run_all(inputs, tile)
                with _named(index):
                    totals.finish(metrics)
                metrics = []
                if progress:
                    bar.set_postfix({name: f"{value:.4g}" for name, value in totals.latest().items()})
    except KeyboardInterrupt as interrupt:
        if metrics:  # the batch at which the interrupt came
            totals.finish(metrics)
        if not totals.samples:
            raise
        raise EvaluationInterrupted(totals.result()) from interrupt
    if not totals.samples:
        raise InputError(EMPTY)
    return totals.result()


@neutrally
def ann_values(
    ann: nn.Module, loader: Iterable[Any], metric: Any = None, *, against: nn.Module | None = None
) -> dict[str, float]:
    """What the metrics say of an ANN; training modes are restored.

    Args:
        ann: The network.
        loader: As for `evaluate`.
        metric: As for `evaluate`.
        against: The network whose outputs replace the targets, as `ann` does for `evaluate`.

    Raises:
        InputError: As for `evaluate`.
        OptionError: `metric` is no metric.
    """
    network, judge = AnnOutputs(ann), None if against is None else AnnOutputs(against)
    metrics = metrics_of(measures_of(metric, against), 1, network.restore)
    samples = 0
    for index, batch in enumerate(_batches(loader)):
        with _named(index):
            signature = network.signature(batch)
            inputs = _inputs(signature, batch)
            targets = replace(_targets(signature, batch, inputs, judge), ragged=True)
        with _named(index):
            outputs = network(batch, inputs)
            samples += targets.samples
            for one in metrics:
                one.finish(shown_once(one.batch(targets), outputs))  # type: ignore[arg-type]
    if not samples:
        raise InputError(EMPTY)
    return {name: values[0] for one in metrics for name, values in one.values().items()}


def accuracy_of(ann: nn.Module, loader: Iterable[Any]) -> float:
    """Share of the samples in `loader` that an ANN classifies correctly; training modes are restored.

    Raises:
        InputError: As for `evaluate`.
    """
    return ann_values(ann, loader, "top1")["top1"]


def _exit_rule(given: object, plugins: Sequence[Any]) -> ChosenRule | None:
    """The rule that the argument `early_exit` means."""
    if given is None:
        return None
    registry = load_plugins() if plugins == () else load_plugins(plugins)
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        found = find(registry, EXIT_RULES, "margin")
        who, options = culprit(EXIT_RULES, found.name, found.owner), {"threshold": given}
        return ChosenRule(construct(found.cls, options, who), who)
    choice = choose(registry, EXIT_RULES, given)
    if choice.instance is not None:
        return ChosenRule(choice.instance, choice.culprit)
    return ChosenRule(construct(choice.found.cls, {}, choice.culprit), choice.culprit)


def _batches(loader: Any) -> Batches:
    return Batches(loader, "The loader", "evaluate(snn, loader, T)", InputError)


def _inputs(signature: Signature, batch: Any) -> tuple[Any, ...]:
    """The inputs of a batch."""
    inputs = signature.inputs_of(batch)
    if not tensors(inputs[0])[0].dim():
        raise InputError(f"It holds {describe_batch(batch)}; the inputs must be tensors [N, ...].")
    if not samples_of(inputs):
        raise InputError(f"It holds no samples: {describe_batch(batch)}.")
    return inputs


def _targets(signature: Signature, batch: Any, inputs: tuple[Any, ...], judge: AnnOutputs | None) -> Targets:
    """What the answers to a batch are compared with."""
    samples = samples_of(inputs)
    if judge is None:
        return Targets(signature.targets_of(batch), samples)
    return Targets(judge(batch, inputs), samples, of_ann=True, restore=judge.restore)


@contextmanager
def _named(index: int) -> Iterator[None]:
    """Let errors about a batch begin with its number: its inputs, its targets, or what the network makes of it."""
    try:
        yield
    except (InputError, NonFiniteError) as error:
        raise type(error)(f"Batch {index} cannot be evaluated. {error}") from error
