"""Measures a network over time steps: its accuracy or another metric, its spikes and synaptic operations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from ..contracts.exit_rule import ExitRule
from ..contracts.readout import Readout
from ..distributed.ranks import Place
from ..distributed.session import together
from ..distributed.settings import Distributed
from ..errors import InputError
from ..support.neutral import neutrally
from ..support.paths import AnyPath
from ..support.wording import shown
from .ann_outputs import AnnOutputs
from .batchwise import EMPTY, batches_of, inputs_of, named, run_batches, targets_of
from .checkpoints.file import require_one_process
from .checkpoints.progress import progress_in
from .metrics.measures import measures_of
from .result import EvaluationResult
from .tally import Metrics, metrics_of
from .tile import shown_once

__all__ = ["accuracy_of", "ann_values", "evaluate"]

ALIKE = "Every process must load or train the same weights, or convert the network with distributed= as well."


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
    checkpoint: AnyPath | None = None,
    distributed: bool | str | Distributed = False,
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
        readout: How to turn the outputs over time into the answer: `"mean"`, `"delayed"`, `"recent"`, `"exponential"`,
            `"last"`, `"potential"`, the name of any plugin's readout, or an instance with options,
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
        progress: Show a progress bar; of several processes, the first one does.
        checkpoint: A file in which finished batches are kept. Killed at any moment and started again with the same
            arguments, the run goes on behind them and ends in the same numbers, to the bit; `seconds` is the sum of all
            runs. The loader must yield the same batches in the same order. The file is written at most as often as
            takes 1 % of the time, and stays at the end: the next run returns its result without simulating.
        distributed: Share the batches between the processes of a torch.distributed group, all of which call `evaluate`
            and get the same result: True if they pass the same loader, `"sharded"` if each passes its own part of the
            data, or a `Distributed`.

    Raises:
        DistributedError: Another process failed, is lost, or was given another network.
        InputError: `T` is not a positive integer; the loader is empty, fails, or is none; a batch does not fit the
            network, or has no targets, or targets that the metric cannot compare with the output.
        NonFiniteError: A batch or a weight holds NaN or infinite values, which the answers would hide.
        OptionError: `metric` is no metric; `early_exit` names no rule; `readout` is unknown, or has no answer after
            `T` steps; or `precision` is not available on the network's device; or a metric is an object whose state
            `checkpoint` cannot hold.
        CheckpointError: `checkpoint` belongs to another run (its `differences` say how), is damaged, or cannot be read
            or written.
        PluginError: The metric, a readout or an exit rule fails.
        EvaluationInterrupted: Ctrl-C was pressed. Its `result` covers the samples that were finished by then; metrics
            that need a whole batch cover the batches before. It is a `KeyboardInterrupt`.
    """
    measures = measures_of(metric, ann)
    judge = None if ann is None else AnnOutputs(ann)
    require_one_process(checkpoint, distributed)
    with together(distributed, f"evaluate(T={shown(T)})") as ranks:
        ranks.require_same("has another network", ALIKE, snn, *([] if ann is None else [ann]))
        kept = progress_in(
            checkpoint, snn, T, measures, ann, readout=readout, early_exit=early_exit, precision=precision
        )
        totals = run_batches(
            snn,
            loader,
            T,
            measures,
            judge,
            readout=readout,
            early_exit=early_exit,
            precision=precision,
            plugins=plugins,
            progress=progress,
            kept=kept,
            ranks=ranks,
        )
        return ranks.from_first(totals.result)


@neutrally
def ann_values(
    ann: nn.Module,
    loader: Iterable[Any],
    metric: Any = None,
    *,
    against: nn.Module | None = None,
    distributed: bool | str | Distributed = False,
) -> dict[str, float]:
    """What the metrics say of an ANN; training modes are restored.

    Args:
        ann: The network.
        loader: As for `evaluate`.
        metric: As for `evaluate`.
        against: The network whose outputs replace the targets, as `ann` does for `evaluate`.
        distributed: As for `evaluate`.

    Raises:
        InputError: As for `evaluate`.
        OptionError: `metric` is no metric.
    """
    network, judge = AnnOutputs(ann), None if against is None else AnnOutputs(against)
    metrics = metrics_of(measures_of(metric, against), 1, network.restore)
    found: list[tuple[Place, list[Any]]] = []
    with together(distributed, "ann_values()") as ranks:
        share = ranks.share(batches_of(loader))
        for batch in share:
            with named(share.place[1]):
                signature = network.signature(batch)
                inputs = inputs_of(signature, batch)
                targets = replace(targets_of(signature, batch, inputs, judge), ragged=True)
            with named(share.place[1]):
                outputs = network(batch, inputs)
                parts = [one.part_of(shown_once(one.batch(targets), outputs)) for one in metrics]  # type: ignore[arg-type]
            if ranks.several:
                found.append((share.place, parts))
            else:
                _take(metrics, parts)
        joined, batches = ranks.joined(found, share)
        if not batches:
            raise InputError(EMPTY)
        for parts in joined:
            _take(metrics, parts)
        return ranks.from_first(lambda: {name: values[0] for one in metrics for name, values in one.values().items()})


def _take(metrics: Metrics, parts: Sequence[Any]) -> None:
    """Add what a batch adds to every metric."""
    for one, part in zip(metrics, parts, strict=True):
        one.take(part)


def accuracy_of(ann: nn.Module, loader: Iterable[Any]) -> float:
    """Share of the samples in `loader` that an ANN classifies correctly; training modes are restored.

    Raises:
        InputError: As for `evaluate`.
    """
    return ann_values(ann, loader, "top1")["top1"]
