"""Finds the cheapest conversion that loses little enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from tqdm.auto import tqdm

from ..contracts.option_checks import require_integer, require_number
from ..contracts.readout import Readout
from ..conversion.converter import Converter
from ..distributed.ranks import ALONE
from ..distributed.session import together
from ..distributed.settings import Distributed
from ..errors import Ann2SnnError, ConversionError, InputError, OptionError, TuningInterrupted
from ..evaluation.checkpoints.file import require_one_process
from ..evaluation.checkpoints.identity import text_of
from ..evaluation.costs.energy import EnergyPerOperation
from ..evaluation.given_networks import require_ann
from ..hooks.choice import choose
from ..hooks.discovery import load_plugins
from ..hooks.kinds import READOUTS
from ..support.calls import call_text, literal
from ..support.neutral import neutrally
from ..support.paths import AnyPath
from .checkpoint import file_of
from .data import read_samples
from .journal import Journal
from .measuring import NANO, Measurements, Point, require_budget
from .result import TunedPoint, Tuning, frontier
from .search import Search
from .space import Space

__all__ = ["tune"]

NOT_SEARCHED = ("device", "plugins", "prefer", "leaf_modules", "convert_only", "fuse_flag", "verify")
"""Arguments of the converter that are passed on as they are and do not appear among the arguments of a candidate."""


@neutrally
def tune(
    ann: nn.Module,
    data: Iterable[Any],
    max_drop: float = 1.0,
    budget: str = "steps",
    T: int = 32,  # noqa: N803 - the field's name for the number of time steps
    *,
    calibration: Iterable[Any] | None = None,
    metric: Any = None,
    against_ann: bool | None = None,
    readout: str | Readout | None = None,
    energy: str | EnergyPerOperation | None = None,
    samples: int = 1000,
    held_out: float = 0.3,
    layers: bool = True,
    seconds: float | None = None,
    progress: bool = True,
    checkpoint: AnyPath | None = None,
    distributed: bool | str | Distributed = False,
    **fixed: Any,
) -> Tuning:
    """Search for the cheapest conversion that loses at most `max_drop` points.

    >>> import torch
    >>> from sj_ann2snn import tune
    >>> _ = torch.manual_seed(0)
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x = torch.rand(200, 4)
    >>> found = tune(ann, [(x, ann(x).argmax(1))], max_drop=5.0, T=64, progress=False)
    >>> found.reached, found.call.startswith("Converter(calibration, ")
    (True, True)

    It tries what the installed plugins offer: modes, neurons, channel-wise scales, corrections, readouts and the
    options that their classes declare as `tunable`, and other modes in the layers that `diagnose` ranks first. One run
    of a network tells about every number of steps; where a mode or a correction depends on T, the steps are bisected.
    All candidates are measured on few samples, the best of them on more, and the last ones on all. The result is the
    cheapest that loses at most `max_drop` with a standard error to spare, more if many compete, if there is one. It is
    measured again on samples that no choice depended on.

    Args:
        ann: The ANN.
        data: Batches of inputs and targets as for `evaluate`, in random order; their first `samples` are used. Without
            targets, the ANN's own answers take their place. Data that was not used for training says more.
        max_drop: Points that may be lost against the ANN: hundredths of the metric, such as percent of accuracy.
        budget: What to save: `"steps"`, `"spikes"`, `"synops"` (synaptic operations) or `"energy"` (nJ, as `costs`
            estimates it), per sample.
        T: The largest number of time steps.
        calibration: Calibration data, which must be iterable repeatedly; by default, the inputs of the data that the
            search chooses by.
        metric: As for `evaluate`; of several, the one that loses most counts.
        against_ann: True to compare with the ANN's outputs even if there are targets; by default, only without.
        readout: A readout for all networks; by default, it is searched, too.
        energy: The energy of single operations, as for `costs`, for the budget `"energy"`.
        samples: Number of samples, at least 10.
        held_out: Share of the samples to judge by and not to choose by; 0 for none.
        layers: Try other modes in single layers, too.
        seconds: Stop after about that time, with the best so far. The result then depends on the processor.
        progress: Show a progress bar.
        checkpoint: A file in which finished measurements are kept. Killed at any moment and started again with the
            same arguments, the search repeats its decisions without the work, goes on and ends in the same result, to
            the bit. The time of all runs counts for `seconds`. The file stays at the end; the next run only makes the
            network again. All data must be the same in every run, in the same order.
        distributed: Share the candidates between the processes of a torch.distributed group, all of which call `tune`
            and get the same result: True if they pass the same data, `"sharded"` if each passes its own part, or a
            `Distributed`.
        fixed: Arguments of `Converter` that every conversion has and that are not searched:
            ``neuron="if", channel_wise=True``.

    Returns:
        A `Tuning`. If everything loses more than `max_drop`, it is what loses least, and `reached` is False.

    Raises:
        InputError: The data is empty, does not fit the network or cannot be shared out; `T` or `samples` is too small;
            `ann` is a spiking network.
        OptionError, ModeError: `budget`, `metric`, `readout`, `energy` or an argument of the converter is not known, or
            `max_drop`, `held_out` or `seconds` is out of range.
        CheckpointError: `checkpoint` belongs to another run (its `differences` say how), is damaged, or cannot be read
            or written.
        ConversionError: The network cannot be converted in any way; the message is that of the first.
        DistributedError: Another process failed, is lost, or was given another ANN.
        TuningInterrupted: Ctrl-C was pressed. Its `result` is the best so far. It is a `KeyboardInterrupt`.
    """
    steps = require_integer("T", T, what="the largest number of time steps", error=InputError)
    most = require_integer("samples", samples, 10, what="the number of samples", error=InputError)
    budget = require_budget(budget)
    max_drop = require_number("max_drop", max_drop, what="points that may be lost")
    share = require_number("held_out", held_out, least=0, below=0.9, what="the share of the samples to hold out")
    limit = None if seconds is None else require_number("seconds", seconds, least=0, what="the time to search")
    require_ann(ann, "tune(ann, data) takes the ANN", "Give the network that is to be converted.")
    _refuse(fixed)
    require_one_process(checkpoint, distributed)
    with together(distributed, f"tune(T={steps}, max_drop={max_drop:g}, budget={budget!r})") as ranks:
        ranks.require_same("has another ANN", "Every process must load or train the same weights.", ann)
        found = read_samples(ann, data, most, share, ranks)
        if calibration is not None and ranks.sharded:
            calibration = list(ranks.whole(calibration))
        given = {name: fixed[name] for name in NOT_SEARCHED if name in fixed}
        searched = {name: value for name, value in fixed.items() if name not in given}
        plugins: Sequence[Any] = given.get("plugins", ())
        registry = load_plugins(plugins)
        Converter(**fixed)  # says what is wrong with the caller's own arguments
        if readout is not None:
            choose(registry, READOUTS, readout)
        measurements = Measurements(
            ann,
            registry,
            budget,
            metric=metric,
            against_ann=not found.labelled if against_ann is None else against_ann,
            given=given,
            readout=readout,
            energy=energy,
            plugins=plugins,
        )
        journal = Journal(
            file_of(
                checkpoint,
                ann,
                registry,
                found,
                calibration,
                T=steps,
                max_drop=max_drop,
                budget=budget,
                metric=metric,
                against_ann=measurements.judge is not None,
                readout=readout,
                energy=measurements.per_operation,
                samples=most,
                held_out=share,
                layers=layers,
                seconds=limit,
                fixed=fixed,
            )
        )
        journal.begin()
        with tqdm(desc="tuning", unit="network", disable=not (progress and ranks.is_first)) as bar:

            def tell(trials: int, best: Point | None) -> None:
                bar.update(trials - bar.n)
                if best is not None:
                    bar.set_postfix_str(f"T={best.T}, {best.cost:.4g} {budget}, {best.drop:.2f} points")

            search = Search(
                measurements,
                Space(registry, searched, readout=readout is not None),
                found,
                calibration=calibration,
                steps=steps,
                max_drop=max_drop,
                layers=layers,
                seconds=limit,
                journal=journal,
                tell=tell,
                ranks=ranks,
            )
            try:
                search.run()
            except KeyboardInterrupt as interrupt:
                journal.save()
                if search.best() is None:
                    raise
                raise TuningInterrupted(_result(search, max_drop, journal.apart())) from interrupt
        found_out = _result(search, max_drop, journal)
        journal.save()
        return found_out


def _result(search: Search, max_drop: float, journal: Journal) -> Tuning:
    best = search.best()
    if best is None:
        raise _nothing(search)
    measurements, samples = search.measurements, search.samples
    calibration = search.calibration[-1]
    network = measurements.convert(best.candidate, best.T, calibration)

    def judged() -> tuple[float | None, float]:
        held_out, cost = None, best.cost
        if samples.held_out:
            result = measurements.run(network, best.candidate, best.T, samples.held_out)
            held_out = measurements.drops(result, samples.held_out)[-1]
        if measurements.budget == "energy":  # while searching, it was estimated from one batch
            cost = measurements.energy(network, best.T, samples.search).energy / NANO
        return held_out, cost

    held_out, cost = journal.entry(f"result {best.candidate.key} after {best.T} steps", judged)
    points = [point for records in search.records for record in records.values() for point in record.points.values()]
    return Tuning(
        network=network,
        T=best.T,
        call=_call(measurements, best),
        evaluate_call=_evaluate_call(measurements, best),
        arguments={**measurements.given, **measurements.arguments(best.candidate, best.T)},
        readout=best.candidate.readout,
        drop=best.drop,
        drop_error=best.error,
        held_out_drop=held_out,
        cost=cost,
        budget=measurements.budget,
        max_drop=max_drop,
        reached=best.drop <= max_drop,
        frontier=tuple(TunedPoint.of(point, _call(measurements, point)) for point in frontier(points)),
        ann_values=measurements.ann_values(search.rounds[-1]),
        samples=best.samples,
        held_out_samples=samples.count(samples.held_out),
        trials=measurements.trials,
        # Not by the common clock: where the search was interrupted, the other processes do not answer.
        seconds=search.passed(ALONE) if search.ranks.several else journal.seconds,
        failures={_call_of(candidate.arguments): reason for reason, candidate in search.failures.items()},
        calibration=calibration,
    )


def _nothing(search: Search) -> Ann2SnnError:
    """The error that prevented every conversion."""
    first = next(iter(search.failures))
    return ConversionError(f"None of {len(search.records[0])} conversions that were tried works. The first: {first}")


def _call(measurements: Measurements, point: Point) -> str:
    return _call_of({**measurements.given, **measurements.arguments(point.candidate, point.T)})


def _call_of(arguments: Mapping[str, Any]) -> str:
    return f"{call_text('Converter', arguments, 'calibration')}(ann)"


def _evaluate_call(measurements: Measurements, point: Point) -> str:
    readout = point.candidate.readout
    if readout is None:
        given = measurements.readout
        chosen = "" if given is None else f", readout={literal(given) if isinstance(given, str) else text_of(given)}"
    else:
        chosen = f", readout={call_text(type(measurements.readout_of(readout)).__name__, readout[1])}"
    return f"evaluate(snn, test_loader, T={point.T}{chosen})"


def _refuse(fixed: Mapping[str, Any]) -> None:
    for name, instead in (("dataloader", "calibration"), ("momentum", "nothing")):
        if name in fixed:
            raise OptionError(f"tune does not take {name}=...; give {instead} instead.")
