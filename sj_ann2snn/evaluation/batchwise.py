"""Runs all batches of a loader through a spiking network, and adds up what its tiles measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from torch import fx, nn
from tqdm.auto import tqdm

from ..contracts.exit_rule import ExitRule
from ..contracts.readout import Readout
from ..distributed.ranks import ALONE, Place, Ranks
from ..errors import EvaluationInterrupted, InputError, NonFiniteError
from ..hooks.choice import choose, find
from ..hooks.discovery import load_plugins
from ..hooks.kinds import EXIT_RULES
from ..hooks.options import construct
from ..hooks.registry import culprit
from ..simulation.partwise import PartwiseSimulator, simulator_for
from ..support.batches import Signature, describe_batch, first_samples, forward_signature, samples_of
from ..support.loaders import Batches
from ..support.quiet_layers import warn_of_quiet_layers
from ..support.trees import tensors
from .ann_outputs import AnnOutputs
from .checkpoints.progress import NoProgress, Progress
from .first_tiles import FirstTiles
from .metrics.measures import Measure
from .metrics.targets import Targets
from .tally import BatchFigures, Tally, metrics_of
from .tile import BatchMetric, ChosenRule, Tile

__all__ = ["EMPTY", "batches_of", "inputs_of", "named", "run_batches", "targets_of"]

MOST_STEPS = 100_000_000
"""Time steps whose values fit into memory in any case."""

EMPTY = "The loader is empty: it yields no batches to evaluate."


def run_batches(
    snn: nn.Module,
    loader: Iterable[Any],
    steps: int,
    measures: Sequence[Measure],
    judge: AnnOutputs | None,
    *,
    readout: str | Readout | None,
    early_exit: float | str | ExitRule | None,
    precision: str,
    plugins: Sequence[Any],
    progress: bool,
    samples: int | None = None,
    make_tile: Callable[..., Tile] = Tile,
    shown: Callable[[Any, Signature, tuple[Any, ...]], None] | None = None,
    kept: Progress | None = None,
    ranks: Ranks = ALONE,
) -> Tally:
    """Simulate `steps` steps of every batch, and return the totals; of several ranks, the first one has them.

    Args:
        snn: The network.
        loader: The batches.
        steps: Number of steps.
        measures: What to measure; if nothing, the batches need no targets.
        judge: The ANN whose outputs replace the targets.
        readout: As for `evaluate`.
        early_exit: As for `evaluate`.
        precision: As for `evaluate`.
        plugins: As for `evaluate`.
        progress: As for `evaluate`.
        samples: Stop after so many; None for all.
        make_tile: Called like `Tile`.
        shown: Called with every batch, the network's signature and its inputs, before they are simulated.
        kept: Where the totals are kept, for a run that is continued; None for nowhere.
        ranks: The processes that share the batches.

    Raises:
        As `evaluate`.
    """
    rule = _exit_rule(early_exit, plugins)
    simulator, answering = simulator_for(snn, steps, precision, readout, plugins)
    warn_of_quiet_layers(snn, steps)
    signature = Signature.of(snn) if isinstance(snn, fx.GraphModule) else None
    if simulator.steps > MOST_STEPS:
        raise InputError(
            f"T={simulator.steps} is not allowed: evaluate keeps the accuracy after every step, of at most "
            f"{MOST_STEPS:,}."
        )
    totals = Tally(metrics_of(measures, steps, simulator.restore))
    kept = kept or NoProgress()
    kept.begin(totals, simulator)
    batches = batches_of(loader)
    metrics: list[BatchMetric] = []
    own: list[tuple[Place, BatchFigures]] = []
    progress = progress and ranks.is_first
    try:
        description = f"simulating T={steps}"
        with tqdm(batches, desc=description, unit="batch", total=batches.length(), disable=not progress) as bar:
            tiles = FirstTiles(snn, simulator, ranks) if ranks.several else None
            if tiles is None:
                share = ranks.share(bar)
            else:
                share = ranks.share(tiles.of_parts(bar) if ranks.sharded else bar, tiles.of)
            for batch in share:
                index = share.place[1]
                if kept.has(batch):
                    continue
                signature = signature or forward_signature(snn, batch)
                with named(index):
                    inputs = inputs_of(signature, batch)
                    if samples is not None:
                        inputs = first_samples(inputs, samples - totals.samples)
                    if measures:
                        targets = targets_of(signature, batch, inputs, judge)
                        metrics = totals.batch(replace(targets, ragged=isinstance(simulator, PartwiseSimulator)))
                if tiles is not None:
                    tiles.note(inputs)
                with totals.timed(), named(index):
                    if shown is not None:
                        shown(batch, signature, inputs)
                    tile = partial(make_tile, metrics, steps, answering, rule, totals.connections, totals.add)
                    simulator.run_all(inputs, tile)
                with named(index):
                    figures = totals.figures(metrics)
                    if not ranks.several:
                        totals.take(figures)
                metrics = []
                if ranks.several:
                    own.append((share.place, figures))
                    continue
                kept.add()
                if progress:
                    bar.set_postfix({name: f"{value:.4g}" for name, value in totals.latest().items()})
                if totals.samples == samples:
                    break
    except KeyboardInterrupt as interrupt:
        if metrics:  # the batch at which the interrupt came
            totals.take(totals.figures(metrics))
        if not totals.samples or not measures or ranks.several:
            raise
        raise EvaluationInterrupted(totals.result()) from interrupt
    if ranks.several:
        for figures in ranks.joined(own, share)[0]:  # in the order of the batches, as one process adds them up
            totals.take(figures)
        totals.seconds = max(ranks.exchanged(totals.seconds))
    if ranks.is_first and not totals.samples:
        raise InputError(EMPTY)
    kept.finish()
    return totals


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


def batches_of(loader: Any) -> Batches:
    return Batches(loader, "The loader", "evaluate(snn, loader, T)", InputError)


def inputs_of(signature: Signature, batch: Any) -> tuple[Any, ...]:
    """The inputs of a batch."""
    inputs = signature.inputs_of(batch)
    if not tensors(inputs[0])[0].dim():
        raise InputError(f"It holds {describe_batch(batch)}; the inputs must be tensors [N, ...].")
    if not samples_of(inputs):
        raise InputError(f"It holds no samples: {describe_batch(batch)}.")
    return inputs


def targets_of(signature: Signature, batch: Any, inputs: tuple[Any, ...], judge: AnnOutputs | None) -> Targets:
    """What the answers to a batch are compared with."""
    samples = samples_of(inputs)
    if judge is None:
        return Targets(signature.targets_of(batch), samples)
    return Targets(judge(batch, inputs), samples, of_ann=True, restore=judge.restore)


@contextmanager
def named(index: int) -> Iterator[None]:
    """Let errors about a batch begin with its number: its inputs, its targets, or what the network makes of it."""
    try:
        yield
    except (InputError, NonFiniteError) as error:
        raise type(error)(f"Batch {index} cannot be evaluated. {error}") from error
