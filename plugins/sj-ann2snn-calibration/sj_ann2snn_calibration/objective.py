"""How far a network's answers are from the ANN's, for one output or several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sj_ann2snn import TrialOutput

__all__ = ["LOSSES", "Objective"]

LOSSES = ("auto", "divergence", "squares")

IN_COMMON = 0.02
"""Answers vary in what all classes have in common by at most this share of what independent numbers would."""

ROUNDING = 1e-3
"""Probabilities add up to one within this."""


class Objective:
    """The sum, over the outputs, of the divergence of class scores or of the relative squared error.

    Cross-entropy ignores what the scores of all classes have in common, so well-trained class scores hardly vary in it,
    and the divergence ignores it too. Answers ``[N, K]`` that do vary in it are coordinates, scores of independent
    classes or the like, or were trained briefly. They count by the squared error, as do dense outputs and single
    numbers.

    Args:
        outputs: The outputs of the network on trial. Integers and booleans do not count.
        targets: What the ANN returns, for one batch after the other.
        loss: "divergence" for class scores ``[N, K]``, "squares", or "auto" to decide for each output.
    """

    def __init__(self, outputs: Iterable[TrialOutput], targets: Iterable[Any], loss: str) -> None:
        known = tuple(outputs)
        seen: dict[str, list[Tensor]] = {}
        for target in targets:
            for output in known:
                value = output.of(target)
                if isinstance(value, Tensor) and value.is_floating_point():
                    seen.setdefault(output.name, []).append(value.detach())
        self.outputs = tuple(output for output in known if output.name in seen)
        self._spread: dict[str, Tensor | None] = {
            name: None if _is_divergence(torch.cat(values), loss) else _spread(torch.cat(values))
            for name, values in seen.items()
        }

    @property
    def has_squares(self) -> bool:
        """True if an output counts by its squared error."""
        return any(spread is not None for spread in self._spread.values())

    def __call__(self, answers: Mapping[str, Tensor], targets: Any) -> Tensor | None:
        """The loss of the mean answers ``[N, ...]`` by output; None if none of them has a gradient."""
        losses = [loss for loss in self._losses(answers, targets) if loss.requires_grad]
        return torch.stack(losses).sum() if losses else None

    def error(self, answers: Mapping[str, Tensor], targets: Any) -> float:
        """The value of the loss, whether or not anything has a gradient."""
        return float(sum(float(loss.detach()) for loss in self._losses(answers, targets)))

    def _losses(self, answers: Mapping[str, Tensor], targets: Any) -> Iterator[Tensor]:
        for output in self.outputs:
            answer, target, spread = answers[output.name], output.of(targets), self._spread[output.name]
            if spread is None:
                logarithms = answer.log_softmax(1), target.log_softmax(1)
                yield F.kl_div(*logarithms, reduction="batchmean", log_target=True)
            else:
                yield F.mse_loss(answer, target) / spread


def _is_divergence(targets: Tensor, loss: str) -> bool:
    if targets.dim() != 2 or targets.shape[1] < 2 or loss == "squares":
        return False
    if loss == "divergence":
        return True
    if bool((targets.logsumexp(1).abs() < ROUNDING).all()):
        return True  # logarithms of probabilities
    if bool((targets >= 0).all()) and bool(((targets.sum(1) - 1).abs() < ROUNDING).all()):
        return False  # probabilities, which vary in nothing in common either
    varying = targets - targets.mean(0)
    total = varying.square().mean()
    # With one sample nothing varies; it is then taken for class scores.
    return bool(varying.mean(1).square().mean() * targets.shape[1] <= IN_COMMON * total)


def _spread(targets: Tensor) -> Tensor:
    """The variance of the targets, or their mean square if they do not vary."""
    variance = targets.var(correction=0)
    found = variance if bool(variance > 0) else targets.square().mean()
    return found if bool(found > 0) else torch.ones_like(found)
