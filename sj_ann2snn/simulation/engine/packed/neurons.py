"""IF neurons as loops take them: potentials, thresholds, and where potentials end."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ....compat import is_plain_if
from ....layers import IntegerIF
from ..compiled.arrays import channels_innermost
from ..compiled.constants import BOUNDED, FREE, SILENT
from .modules import is_watched

__all__ = ["Limits", "fires_packed", "limits", "no_limits", "potential_of"]


def potential_of(
    neuron: Any, shape: tuple[int, ...], initial: Tensor | None = None, device: torch.device | None = None
) -> Tensor:
    """A neuron's membrane potential for currents of the `shape` ``(N, C, ...)``, channels innermost: memory of its own
    that may be written to, on a `device`. An `initial` potential ``(C, ...)`` is added."""
    potential = _potential(neuron, shape, device)
    if initial is not None:
        potential += initial.expand(shape[1:]).movedim(0, -1)
    return potential


def _potential(neuron: Any, shape: tuple[int, ...], device: torch.device | None) -> Tensor:
    v = neuron.v
    if isinstance(v, Tensor) and v.shape == shape:
        return channels_innermost(v, 1)
    if isinstance(neuron, IntegerIF):
        single = torch.empty(shape, dtype=torch.float32, device=device)
        return single.copy_(neuron.potential.expand(shape)).movedim(1, -1).contiguous()
    samples, channels, *places = shape
    start = float(v) if isinstance(v, (int, float)) else 0.0
    return torch.full((samples, *places, channels), start, dtype=torch.float32, device=device)


@dataclass(frozen=True)
class Limits:
    """Where the neurons of a layer fire, and where their potentials end.

    Attributes:
        thresholds: ``[channels]``, in single precision.
        same: They are all the same.
        fires: How the loops charge the neurons.
        ends: The smallest and the largest potential, for loops that heed them.
    """

    thresholds: Tensor
    same: bool
    fires: int
    ends: tuple[Any, Any]


def limits(neuron: Any, channels: int, device: torch.device | None = None) -> Limits:
    """The thresholds of a neuron with so many channels, on a `device`."""
    if isinstance(neuron, IntegerIF):
        thresholds = neuron.threshold.reshape(-1).expand(channels).contiguous()
        return Limits(thresholds, neuron.threshold.numel() == 1, BOUNDED, (_single(neuron.low), _single(neuron.high)))
    thresholds = _repeated(float(neuron.v_threshold), channels, device or torch.device("cpu"))
    return Limits(thresholds, True, FREE, (_single(0), _single(0)))


def no_limits() -> Limits:
    """Where there are no neurons."""
    return Limits(torch.zeros(1, dtype=torch.float32), True, SILENT, (_single(0), _single(0)))


@functools.lru_cache(maxsize=256)
def _repeated(number: float, times: int, device: torch.device) -> Tensor:
    """A number so many times; only to be read."""
    return torch.full((times,), number, dtype=torch.float32, device=device)


def _single(number: float) -> Any:
    return torch.tensor(float(number), dtype=torch.float32).numpy()[()]


def fires_packed(neuron: Any) -> bool:
    """True for a neuron that `fire_packed` can stand for: SpikingJelly's IF, or one of integers with a threshold for
    each channel."""
    if isinstance(neuron, IntegerIF):
        shape = tuple(neuron.threshold.shape)
        by_channel = neuron.threshold.numel() == 1 or (len(shape) in (1, 2, 3) and all(size == 1 for size in shape[1:]))
        return by_channel and neuron.threshold.dtype == torch.float32 and not is_watched(neuron)
    return is_plain_if(neuron) and neuron.v_threshold > 0
