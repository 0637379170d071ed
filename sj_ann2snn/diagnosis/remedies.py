"""Which setting would make the error of the layers smallest, predicted from the ANN's activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["ActivationSample", "Setting", "best_setting", "predicted_error"]

MODES = {"max": 1.0, "99.99%": 0.9999, "99.9%": 0.999, "99%": 0.99}
"""Modes, the safest first, and the shares of the activations that they keep."""

MOST = 1 << 18
"""Values of a layer to look at."""


@dataclass(frozen=True)
class ActivationSample:
    """Activations of one layer, in the ANN's units.

    Attributes:
        values: ``[C, samples]``, or ``[1, samples]`` if the channels are not known.
        scale: λ per channel, or one.
        levels: Largest number of spikes in a step.
        start: The initial potential.
    """

    values: Tensor
    scale: Tensor
    levels: float
    start: float

    @classmethod
    def of(cls, activation: Tensor, unit: Tensor, largest: Tensor, axis: int | None, start: float) -> ActivationSample:
        """From the activations ``[N, ...]`` of a layer, in units of a spike."""
        values = (activation.double() * unit).cpu()
        scale = (largest * unit.cpu()).expand(values[:1].shape)
        if axis is None:
            rows, scales = values.reshape(1, -1), scale.reshape(1, -1)
        else:
            rows, scales = values.transpose(0, axis + 1).flatten(1), scale.transpose(0, axis + 1).flatten(1)
        step = max(1, rows.numel() // MOST)
        # A copy: a view would keep all of them.
        return cls(rows[:, ::step].clone(), scales.amax(1, keepdim=True), float(largest.max()), start)

    @property
    def usual(self) -> float:
        """The median of the activations that are not zero, as a share of λ."""
        shares = (self.values / self.scale)[self.values > 0]
        return float(shares.median()) if shares.numel() else 0.0


@dataclass(frozen=True)
class Setting:
    """Arguments, and the predicted error of one layer, of all together, and of each by its target."""

    arguments: Mapping[str, Any]
    here: float
    everywhere: float
    layers: Mapping[str, float]


def predicted_error(sample: ActivationSample, scale: Tensor, steps: int, start: float) -> float:
    """The error of clipping at λ and of rounding to T steps, relative to the activation.

    >>> import torch
    >>> sample = ActivationSample(torch.tensor([[0.25, 4.0]]), torch.tensor([[4.0]]), 1, 0.0)
    >>> predicted_error(sample, torch.tensor([[4.0]]), 16, 0.0)
    0.0
    """
    counts = steps * max(1.0, sample.levels)
    rates = ((sample.values / scale).clamp(0, 1) * counts + start).floor().clamp(0, counts) / counts
    norm = float(sample.values.norm())
    return float((sample.values - rates * scale).norm()) / norm if norm else 0.0


def scale_of(sample: ActivationSample, keep: float, *, channel_wise: bool) -> Tensor:
    """λ of a percentile of the activations, per channel or for the layer."""
    rows = sample.values if channel_wise else sample.values.reshape(1, -1)
    place = min(rows.shape[1] - 1, int(keep * rows.shape[1]))
    found = rows.sort(1).values[:, place : place + 1]
    largest = rows.amax(1, keepdim=True)
    found = torch.where(found > 0, found, largest)
    return torch.where(found > 0, found, torch.full_like(found, max(float(largest.max()), 1e-30)))


def best_setting(
    samples: Mapping[str, ActivationSample],
    target: str,
    steps: int,
    *,
    channel_wise: bool,
    if_neurons: bool,
) -> tuple[Setting, list[Setting]]:
    """The present setting as predicted, and others, the best for the whole network first.

    Args:
        samples: Of every layer, by target.
        target: The layer to mend.
        steps: T.
        channel_wise: True if the network has one λ per channel.
        if_neurons: True if the neurons take an initial potential as an argument.
    """
    now = Setting({}, *_errors(samples, target, steps, None, None, None))
    starts: Sequence[float | None] = [None]
    if if_neurons and all(sample.start == 0 for sample in samples.values()):
        starts = [None, 0.5]
    found = []
    for wise in (channel_wise, True):
        for mode, keep in MODES.items():
            for start in starts:
                arguments: dict[str, Any] = {"mode": mode}
                if wise and not channel_wise:
                    arguments["channel_wise"] = True
                if start is not None:
                    arguments["initial_potential"] = start
                errors = _errors(samples, target, steps, keep, wise, start)
                found.append(Setting(arguments, *errors))
        if channel_wise:
            break
    if len(starts) > 1:
        found.append(Setting({"initial_potential": 0.5}, *_errors(samples, target, steps, None, None, 0.5)))
    return now, sorted(found, key=lambda one: (round(one.everywhere, 3) + 0.002 * len(one.arguments), one.here))


def _errors(
    samples: Mapping[str, ActivationSample],
    target: str,
    steps: int,
    keep: float | None,
    channel_wise: bool | None,
    start: float | None,
) -> tuple[float, float, dict[str, float]]:
    errors = {}
    for name, sample in samples.items():
        scale = sample.scale if keep is None else scale_of(sample, keep, channel_wise=bool(channel_wise))
        errors[name] = predicted_error(sample, scale, steps, sample.start if start is None else start)
    squares = [error**2 for error in errors.values()]
    return errors[target], (sum(squares) / len(squares)) ** 0.5, errors
