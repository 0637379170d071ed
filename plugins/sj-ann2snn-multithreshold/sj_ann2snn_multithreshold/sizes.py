"""The sizes of the spikes at every step, and what a sequence of them can represent."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sj_ann2snn import OptionError, require_integer

__all__ = ["REFINED", "Sizes", "sizes_from"]

RATIOS = (1, 2, 4, 8, 16)
"""Allowed ratios of the sizes of two steps. With powers of two all values are exact, whatever their precision."""

REFINED = 4
"""Steps at which the sizes become finer; later steps keep the last ones."""


@dataclass(frozen=True)
class Sizes:
    """Spikes of `levels` sizes and both signs, `finer` times as fine at every step.

    >>> sizes = Sizes(levels=8, steps=2, finer=4, rest=False)
    >>> [sizes.smallest(step) for step in (1, 2, 3)]
    [1.0, 0.25, 0.25]

    Values are in units of the smallest size of the first step.

    Attributes:
        levels: Number of sizes: once to `levels` times the smallest.
        steps: Number of time steps, T.
        finer: Ratio of the sizes of one step to those of the next.
        rest: A neuron that is silent at the first step represents λ / 2 instead of zero.
    """

    levels: int
    steps: int
    finer: int
    rest: bool

    @property
    def start(self) -> float:
        """The value of a neuron before its first spike."""
        return float(self.levels) if self.rest else 0.0

    @property
    def scale(self) -> int:
        """λ, the largest value that the first spike can represent."""
        return 2 * self.levels if self.rest else self.levels

    def smallest(self, step: int) -> float:
        """The smallest size at `step`, counted from 1."""
        return float(self.finer) ** -(min(step, self.steps, REFINED) - 1)

    def represented(self, x: Tensor, steps: int | None = None) -> Tensor:
        """What a neuron represents after `steps` steps, by default T, with the constant currents `x`."""
        value = x.new_full((), self.start).expand_as(x)
        for step in range(1, (self.steps if steps is None else steps) + 1):
            size = self.smallest(step)
            value = value + (x - value).div(size).round_().clamp_(-self.levels, self.levels).mul_(size)
        return value


def sizes_from(*, T: int, levels: int, finer: int, rest: bool) -> Sizes:  # noqa: N803
    """The sizes for the options that the neuron and the mode have in common.

    Raises:
        OptionError: An option is out of range.
    """
    steps = require_integer("T", T, what="the number of time steps")
    levels = require_integer("levels", levels, what="the number of sizes of a spike")
    if isinstance(finer, bool) or finer not in RATIOS:
        raise OptionError(
            f"finer={finer!r} is not allowed: the ratio of the sizes of two successive steps must be one of "
            f"{', '.join(map(str, RATIOS))}."
        )
    if not isinstance(rest, bool):
        raise OptionError(
            f"rest={rest!r} is not allowed: it must be True, if a neuron that is silent at the first step shall mean "
            "λ / 2, or False, if it shall mean zero."
        )
    return Sizes(levels, steps, finer, rest)
