"""Runs neurons over many steps without temporaries.

For SpikingJelly's IF neuron on a CPU, this is the neuron's own arithmetic, step by step, but in place:
``v += x; s = v >= 1; v -= s``. On a CPU, SpikingJelly 2.0 stores the potential of every step, which costs more than the
update itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ....compat import is_neuron, is_plain_if
from ....layers import InPlaceNeuron, IntegerIF
from ....layers.neuron import active_per_step, sum_per_step
from ....support.compiled import compiled_loop
from ..bits.values import PackedSpikes
from ..changes.values import Changes
from ..compiled.arrays import empty_steps, flat_steps, is_dense
from ..compiled.neuron_loops import fire_compiled
from ..levels.values import Levels
from . import kernels

__all__ = ["Emissions", "can_fire_in_place", "count_emissions", "fire", "is_spiking"]


def is_spiking(module: nn.Module) -> bool:
    """True for any spiking neuron, SpikingJelly's own or another."""
    return is_neuron(module) or isinstance(module, InPlaceNeuron)


@dataclass(frozen=True)
class Emissions:
    """What neurons emitted at every step.

    Attributes:
        spikes: Number of spikes, ``[T]``; a graded spike of value k counts k times.
        emissions: Number of nonzero values, ``[T]``.
        timed: False if only the totals are known; they stand at the last step.
    """

    spikes: Tensor
    emissions: Tensor
    timed: bool = True


def count_emissions(neuron: nn.Module, spikes: Tensor | PackedSpikes | Levels | Changes) -> Emissions:
    """What the output ``[T, N, ...]`` of the last run of `neuron` holds."""
    if isinstance(spikes, (PackedSpikes, Changes)):
        count = spikes.per_step()
        return Emissions(count, count)
    if isinstance(spikes, Levels):
        if _counts_outputs(neuron):
            return Emissions(spikes.per_step(), spikes.active_per_step(torch.ones(spikes.codes[0, 0, ..., 0].shape)))
        spikes = spikes.unpacked()
    if isinstance(neuron, InPlaceNeuron):
        if _counts_totals_only(neuron):
            return _from_totals(neuron, spikes)
        return Emissions(neuron.spikes_per_step(spikes), neuron.emissions_per_step(spikes))
    if is_plain_if(neuron):
        count = sum_per_step(spikes)
        return Emissions(count, count)
    return Emissions(sum_per_step(spikes.abs()), active_per_step(spikes))


def _counts_outputs(neuron: nn.Module) -> bool:
    """True for a neuron whose outputs are its spikes."""
    names = ("count_spikes", "count_emissions", "spikes_per_step", "emissions_per_step")
    return all(getattr(type(neuron), name, None) is getattr(InPlaceNeuron, name) for name in names)


def _counts_totals_only(neuron: InPlaceNeuron) -> bool:
    """True for a neuron that overrides a count of the whole run, but not that of every step."""
    kind = type(neuron)
    return any(
        getattr(kind, whole) is not getattr(InPlaceNeuron, whole)
        and getattr(kind, steps) is getattr(InPlaceNeuron, steps)
        for whole, steps in (("count_spikes", "spikes_per_step"), ("count_emissions", "emissions_per_step"))
    )


def _from_totals(neuron: InPlaceNeuron, spikes: Tensor) -> Emissions:
    """The counts of a neuron that counts whole runs, step by step where that adds up."""
    found, timed = [], True
    for count in (neuron.count_spikes, neuron.count_emissions):
        total, steps = int(count(spikes)), torch.tensor([int(count(one.unsqueeze(0))) for one in spikes.unbind(0)])
        if int(steps.sum()) != total:  # it counts while it fires
            timed, steps = False, torch.zeros_like(steps)
            steps[-1] = total
        found.append(steps)
    return Emissions(found[0], found[1], timed)


def can_fire_in_place(neuron: nn.Module, x_seq: Tensor) -> bool:
    """True if `fire` does everything that the neuron itself would do."""
    if neuron._forward_hooks or neuron._forward_pre_hooks:
        return False
    if isinstance(neuron, InPlaceNeuron):
        return True
    return is_plain_if(neuron) and x_seq.device.type == "cpu" and x_seq.dtype in (torch.float32, torch.float64)


def fire(neuron: nn.Module, x_seq: Tensor, *, overwrite: bool) -> Tensor:
    """The spikes of `neuron` for the currents ``[T, N, ...]``; its membrane potential is updated.

    Args:
        neuron: A neuron for which `can_fire_in_place` is true.
        x_seq: The currents.
        overwrite: Overwrite the currents with the spikes.
    """
    laid_out = _laid_out_as_potential(neuron, x_seq)
    overwrite = overwrite or laid_out is not x_seq
    x_seq = laid_out
    spikes = x_seq if overwrite else empty_steps(x_seq, len(x_seq))
    if isinstance(neuron, IntegerIF) and _fire_integers(neuron, x_seq, spikes):
        return spikes
    if isinstance(neuron, InPlaceNeuron):
        if not fire_compiled(neuron, x_seq, spikes):
            neuron.fire(x_seq, spikes)
        return spikes
    first = x_seq[0]
    potential = neuron.v
    if not isinstance(potential, Tensor) or potential.shape != first.shape:
        start = float(potential) if isinstance(potential, (int, float)) else 0.0
        potential = torch.full_like(first, start)
    _integrate(x_seq, spikes, potential, float(neuron.v_threshold))  # type: ignore[arg-type]
    neuron.v = potential
    return spikes


def _fire_integers(neuron: IntegerIF, x_seq: Tensor, spikes: Tensor) -> bool:
    """Fire in one pass through memory, if that is possible."""
    loop = compiled_loop(kernels.fire_integers)
    if loop is None or x_seq.device.type != "cpu" or not x_seq.numel():
        return False
    if not isinstance(neuron.v, Tensor) or neuron.v.shape != x_seq.shape[1:]:
        neuron.start(x_seq[0])
    potential: Any = neuron.v
    if not potential.stride() == x_seq.stride()[1:] == spikes.stride()[1:] or not is_dense(potential):
        return False
    thresholds = torch.empty_like(potential).copy_(neuron.threshold.expand(potential.shape))
    ends = torch.tensor([neuron.low, neuron.high], dtype=potential.dtype).numpy()
    v, limits = flat_steps(potential.unsqueeze(0)), flat_steps(thresholds.unsqueeze(0))
    loop(flat_steps(x_seq), flat_steps(spikes), v, limits, ends, len(x_seq), x_seq.stride(0), spikes.stride(0))
    return True


def _integrate(x_seq: Tensor, spikes: Tensor, potential: Tensor, threshold: float) -> None:
    """``v += x; s = v >= threshold; v -= threshold * s`` for every step."""
    if potential.stride() == x_seq.stride()[1:] == spikes.stride()[1:] and potential.numel() and is_dense(potential):
        v, steps = flat_steps(potential.unsqueeze(0)), x_seq.shape[0]
        limit = v.dtype.type(threshold)
        if x_seq is spikes and (loop := compiled_loop(kernels.fire_in_place)):
            loop(flat_steps(x_seq), v, limit, steps, x_seq.stride(0))
            return
        if x_seq is not spikes and (loop := compiled_loop(kernels.fire)):
            loop(flat_steps(x_seq), flat_steps(spikes), v, limit, steps, x_seq.stride(0), spikes.stride(0))
            return
    # A tensor is not converted again at every step.
    limit = torch.tensor(threshold, dtype=potential.dtype)
    for x, s in zip(x_seq.unbind(0), spikes.unbind(0), strict=True):
        potential += x
        torch.ge(potential, limit, out=s)
        potential.sub_(s, alpha=threshold)


def _laid_out_as_potential(neuron: nn.Module, x_seq: Tensor) -> Tensor:
    """The currents, copied into the memory layout of the potential if that is another.

    Torch convolves a single image on a single core into the default layout, whatever layout its input has, so the
    layout changes where a large image leaves room for one step at a time. A copy costs less than integrating across two
    layouts, and the layers behind get channels_last images again.
    """
    potential: Any = getattr(neuron, "v", None)
    step = x_seq[0]
    if not isinstance(potential, Tensor) or potential.shape != step.shape or potential.stride() == step.stride():
        return x_seq
    strides = (step.numel(), *potential.stride())
    return torch.empty_strided(x_seq.shape, strides, dtype=x_seq.dtype, device=x_seq.device).copy_(x_seq)
