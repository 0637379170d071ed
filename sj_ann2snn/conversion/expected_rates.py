"""Firing rates that the calibration data promises, and a warning where a layer is too quiet for the number of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from ..compat import is_neuron, starting_potential
from ..support.quiet_layers import HEALTHY
from ..support.site_notes import note_conversion, notes_of
from .draft import Adjustment, Draft

__all__ = ["ActivitySums", "note_quiet_layers"]


SOME = 1 << 16
"""Activations of a batch to look at for the share that is not zero."""


class ActivitySums:
    """Sums over the activations of one site, for the firing rates that follow once λ is known.

    >>> sums = ActivitySums(None)
    >>> sums.see(torch.tensor([[0.0, 1.0], [0.0, 3.0]]))
    >>> sums.mean_rate(torch.tensor(4.0)), sums.active_rate(torch.tensor(4.0))
    (0.25, 0.5)

    Args:
        axis: The channel axis, if λ is per channel; None for one λ per layer.
    """

    def __init__(self, axis: int | None) -> None:
        self._axis = axis
        self._count, self._active = 0, 0.0
        self._sum = torch.zeros((), dtype=torch.float64)

    def see(self, x: Tensor) -> None:
        """Take in the activations of one batch."""
        others = [axis for axis in range(x.dim()) if self._axis is not None and axis != self._axis]
        self._count += x.numel()
        # A share needs no more than some samples, and the sign is 15 times as fast as count_nonzero on a CPU.
        some = x[: max(1, SOME * len(x) // max(1, x.numel()))] if x.dim() else x
        self._active += float(some.sign().abs_().sum()) / max(1, some.numel()) * x.numel()
        self._sum = self._sum + x.sum(others or None).double().cpu()

    def merge(self, other: ActivitySums) -> None:
        """Take in the sums of other batches; in the order of the batches, the bits are those of one object."""
        self._count += other._count
        self._active += other._active
        self._sum = self._sum + other._sum

    def mean_rate(self, unit: Tensor) -> float:
        """Spikes per neuron and step: the mean activation in units of a spike."""
        return self._in_units(unit) / max(1, self._count)

    def active_rate(self, unit: Tensor) -> float:
        """The same, over the activations that are not zero; those that are say nothing about λ."""
        return self._in_units(unit) / self._active if self._active else 0.0

    def _in_units(self, unit: Tensor) -> float:
        unit = unit.double().cpu()
        return float((self._sum / (unit.flatten() if unit.dim() else unit)).sum())


def note_quiet_layers(draft: Draft, network: fx.GraphModule, neurons: Mapping[fx.Node, nn.Module]) -> None:
    """Add to the network's notes how many steps its quiet layers need; see `warn_of_quiet_layers`.

    Only SpikingJelly's own neurons count: they emit one spike or none. Of graded spikes, one says more.

    Args:
        draft: As built.
        network: What was built from it.
        neurons: The neurons that were made for it.
    """
    needed: dict[str, int] = {}
    for node, neuron in neurons.items():
        if node not in draft.activity or not is_neuron(neuron):
            continue
        rate = draft.activity[node].active_rate(draft.units[node])
        if not 0 < rate < HEALTHY:
            continue
        adjustment = draft.adjustments.get(node, Adjustment())
        added = 0.0 if adjustment.potential is None else float(adjustment.potential.mean())
        missing = 1.0 - starting_potential(neuron) - added
        steps = _steps_to_fire(missing, rate, _mean_steps(adjustment.steps, draft.units[node]))
        if steps:
            needed[draft.plan.decisions[node].site.name] = steps
    notes = notes_of(network)
    if needed and notes is not None:
        note_conversion(network, replace(notes, quiet=needed))


def _mean_steps(steps: Tensor | None, unit: Tensor) -> list[float]:
    """The bias of every step, in spikes, as a mean over channels."""
    if steps is None:
        return []
    unit = unit.to(steps)
    return [float(row) for row in (steps / (unit.flatten() if unit.dim() else unit)).mean(1)]


def _steps_to_fire(missing: float, rate: float, added: Sequence[float] = ()) -> int:
    """Steps after which a current of `rate` per step, and what is added at the first of them, make up what is missing.

    >>> _steps_to_fire(0.5, 0.125), _steps_to_fire(0.5, 0.125, [0.2, 0.2]), _steps_to_fire(0.0, 0.125)
    (4, 2, 0)
    """
    if missing <= 0:
        return 0
    for step, bias in enumerate(added, 1):
        missing -= bias
        if missing <= step * rate:
            return step
    return math.ceil(missing / rate)
