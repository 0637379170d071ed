"""Whether the running statistics of the ANN's own BatchNorms are those of the data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..evaluation.metrics.measures import Measure
from ..support.batches import Signature
from ..support.structures import open_values
from .advice import call_of
from .data import Chunk, cut
from .result import Advice
from .scores import Scores
from .summary import metric_figures

__all__ = ["statistics_advice"]

FEWEST = 32
"""Samples below which statistics say little."""

SHIFT = 1.0
"""Distance of the means of a channel, in standard deviations, from which its statistics are others."""

FACTOR = 4.0
"""The same for the ratio of the variances."""

MOST = 1 / 3
"""Share of the channels with other statistics from which a layer's are not those of the data."""

POINTS = 1.0
"""Points, or percents of the value of another metric, that other statistics must gain."""

PIECE = 32
"""Samples at a time."""


@dataclass
class _Statistics:
    """Sums over the inputs of a BatchNorm, per channel."""

    count: int = 0
    total: Tensor | None = None
    squares: Tensor | None = None

    def add(self, x: Tensor) -> None:
        others = [dim for dim in range(x.dim()) if dim != 1]
        x = x.detach().double()
        total, squares = x.sum(others), x.square().sum(others)
        self.total = total if self.total is None else self.total + total
        self.squares = squares if self.squares is None else self.squares + squares
        self.count += x.numel() // max(1, x.shape[1])

    def far(self, norm: _BatchNorm) -> tuple[float, float, float]:
        """The share of channels with other statistics, the median distance of the means, and of the variances."""
        assert self.total is not None
        assert self.squares is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0) + norm.eps
        noted = norm.running_var.double() + norm.eps
        shift = (mean - norm.running_mean.double()).abs() / noted.sqrt()
        factor = (variance / noted).maximum(noted / variance)
        share = float(((shift > SHIFT) | (factor > FACTOR)).double().mean())
        return share, float(shift.median()), float(factor.median())


def statistics_advice(
    ann: nn.Module,
    signature: Signature,
    chunks: Sequence[Chunk],
    measures: Sequence[Measure],
    restore: Callable[[Any], Any],
    call: Mapping[str, Any],
) -> Advice | None:
    """Advice to estimate the ANN's statistics again, if they are not those of the data.

    With targets, only if the ANN itself answers better with the statistics of these samples.

    Args:
        ann: The ANN, in eval mode.
        signature: Its inputs.
        chunks: The samples.
        measures: The metrics, of which the first counts; empty for none.
        restore: As for `Scores`.
        call: The arguments of the conversion.
    """
    norms = {
        name: one
        for name, one in ann.named_modules()
        if isinstance(one, _BatchNorm) and one.running_mean is not None and one.running_var is not None
    }
    if not norms or sum(chunk.samples for chunk in chunks) < FEWEST:
        return None
    pieces = [piece for chunk in chunks for piece in cut(chunk, PIECE)]
    found: dict[str, _Statistics] = {}
    with _noted(norms, found):
        _run(signature.caller(ann), pieces)
    figures = {name: one.far(norms[name]) for name, one in found.items() if one.count >= FEWEST}
    far = [name for name, (share, _, _) in figures.items() if share > MOST]
    if not far:
        return None
    own = ""
    if measures and all(piece.targets is not None and not piece.targets.of_ann for piece in pieces):
        gained = _gained(ann, signature, pieces, measures, restore)
        if gained is None:
            return None
        own = f", so that the ANN itself answers worse than it could ({gained})"
    return _advice(far, norms[far[0]], figures[far[0]], own, call)


def _advice(
    far: list[str], norm: _BatchNorm, figures: tuple[float, float, float], own: str, call: Mapping[str, Any]
) -> Advice:
    _, shift, factor = figures
    never = norm.num_batches_tracked is not None and not int(norm.num_batches_tracked)
    behind = f", and those of {len(far) - 1} BatchNorms behind it" if len(far) > 1 else ""
    text = (
        f"{far[0]}: the running statistics of the ANN{' were never updated and' if never else ''} are not those of the "
        f"data (median over the channels: the mean is off by {shift:.2g} standard deviations, the variance by a factor "
        f"of {factor:.2g}){behind}{own}. Estimate them again before the conversion: reset_running_stats() and "
        "momentum=None for every BatchNorm, then training data through the ANN with its BatchNorms in train mode, and "
        "eval() at the end"
    )
    return Advice(far[0], "batchnorm", text, {}, call_of(call, {}), 0.0)


def _gained(
    ann: nn.Module,
    signature: Signature,
    pieces: Sequence[Chunk],
    measures: Sequence[Measure],
    restore: Callable[[Any], Any],
) -> str | None:
    """What the first metric says of the ANN, and with the statistics of the samples; None if it gains nothing."""
    again = copy.deepcopy(ann)
    norms = [one for one in again.modules() if isinstance(one, _BatchNorm) and one.running_mean is not None]
    for one in norms:
        one.reset_running_stats()
        one.momentum = None  # the mean of all batches
        one.train()
    try:
        _run(signature.caller(again), [piece for piece in pieces if piece.samples > 1])
    except ValueError:  # one value per channel has no variance
        return None
    again.eval()
    values = [_values(signature.caller(one), pieces, Scores(measures, restore)) for one in (ann, again)]
    metrics, _ = metric_figures(values[0], values[1], {}, measures)
    first = next(iter(metrics.values()))
    enough = POINTS if first.unit == "points" else POINTS / 100 * abs(first.value)
    if not first.drop > enough:
        return None
    return f"{first.name} {first.value:.4g}, and {first.ann_value:.4g} with statistics of these samples"


def _values(caller: Callable[..., Any], pieces: Sequence[Chunk], scores: Scores) -> dict[str, float]:
    for piece in pieces:
        assert piece.targets is not None
        with torch.no_grad():
            scores.add(open_values(caller(*piece.inputs))[0], piece.targets, piece.rows)
    return scores.values()


def _run(caller: Callable[..., Any], pieces: Sequence[Chunk]) -> None:
    with torch.no_grad():
        for piece in pieces:
            caller(*piece.inputs)


@contextmanager
def _noted(norms: Mapping[str, nn.Module], found: dict[str, _Statistics]) -> Iterator[None]:
    """While the context is open, what the BatchNorms receive is added up, in the order of their first calls."""

    def note(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor) and args[0].dim() > 1:
            found.setdefault(name, _Statistics()).add(args[0])

    handles = [module.register_forward_pre_hook(partial(note, name)) for name, module in norms.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
