"""SpikingJelly's IF neuron over many steps on a CPU, without temporaries.

The same arithmetic as the neuron's own, step by step: ``v += x; s = v >= 1; v -= s``, but in place.
SpikingJelly 2.0 stores the potential of every step on a CPU, which costs more than the update itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .compat import is_plain_if

__all__ = ["can_fire_in_place", "fire"]


def can_fire_in_place(neuron: nn.Module, x_seq: Tensor) -> bool:
    """True if `fire` does all that the neuron itself would do."""
    return (
        is_plain_if(neuron)
        and x_seq.device.type == "cpu"
        and x_seq.dtype in (torch.float32, torch.float64)
        and not (neuron._forward_hooks or neuron._forward_pre_hooks)
    )


def fire(neuron: nn.Module, x_seq: Tensor, *, overwrite: bool) -> Tensor:
    """The spikes of `neuron` for the currents ``[T, N, ...]``; its membrane potential is carried on.

    Args:
        neuron: For which `can_fire_in_place` holds.
        x_seq: The currents.
        overwrite: Write the spikes where the currents are.
    """
    first = x_seq[0]
    potential = neuron.v
    if not isinstance(potential, Tensor) or potential.shape != first.shape:
        start = float(potential) if isinstance(potential, (int, float)) else 0.0
        potential = torch.full_like(first, start)
    spikes = x_seq if overwrite else _empty_like_steps(x_seq)
    threshold = float(neuron.v_threshold)  # type: ignore[arg-type]
    for x, s in zip(x_seq.unbind(0), spikes.unbind(0), strict=True):
        potential += x
        torch.ge(potential, threshold, out=s)
        potential.sub_(s, alpha=threshold)
    neuron.v = potential
    return spikes


def _empty_like_steps(x_seq: Tensor) -> Tensor:
    """Memory for as many steps, each laid out as one step of `x_seq` is (which may be one step repeated)."""
    step = torch.empty_like(x_seq[0])
    return torch.empty_strided(x_seq.shape, (step.numel(), *step.stride()), dtype=x_seq.dtype, device=x_seq.device)
