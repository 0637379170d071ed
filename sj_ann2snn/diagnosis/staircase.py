"""What a neuron makes of constant currents: its staircase, and the largest value that it can represent.

Both are measured on the neuron itself, so they hold for neurons of any kind: one spike per step or several, of one size
or several, with an initial potential, or with what corrections add to it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..compat import reset_net
from .probes import run_steps

__all__ = ["largest_output", "mean_output"]

CHUNK = 8
"""Steps at a time."""

HARD = 1e4
"""A current, in spikes per step, that drives every neuron to its limit."""


@torch.no_grad()
def mean_output(neuron: nn.Module, drive: Tensor, steps: int, potential: Tensor | None = None) -> Tensor:
    """Q_T: the mean output of a neuron over `steps` steps of a constant current.

    >>> from sj_ann2snn import make_if_neuron
    >>> mean_output(make_if_neuron(initial_potential=0.5), torch.tensor([[0.2, 0.4, 2.0]]), 4)
    tensor([[0.2500, 0.5000, 1.0000]], dtype=torch.float64)

    Args:
        neuron: It is reset before and afterwards.
        drive: The currents, ``[N, ...]``, in spikes per step.
        steps: T.
        potential: Added to the current of the first step; broadcasts to a sample.
    """
    reset_net(neuron)
    total = torch.zeros(drive.shape, dtype=torch.float64, device=drive.device)
    done = 0
    while done < steps:
        count = min(CHUNK, steps - done)
        currents = drive.expand(count, *drive.shape).contiguous()
        if count == 1:
            currents = currents.clone()
        if potential is not None and not done:
            currents[0] += potential
        total += run_steps(neuron, currents).sum(0, dtype=torch.float64)
        done += count
    reset_net(neuron)
    return total / steps


def largest_output(neuron: nn.Module, sample: Tensor, steps: int, potential: Tensor | None = None) -> Tensor:
    """The largest mean output of a neuron over `steps` steps: 1 for an IF neuron, which emits one spike per step.

    Args:
        neuron: It is reset before and afterwards.
        sample: Currents of the neuron's shape and dtype, ``[N, ...]``; one sample is used.
        steps: T.
        potential: As for `mean_output`.

    Returns:
        ``[1, ...]``.
    """
    return mean_output(neuron, torch.full_like(sample[:1], HARD), steps, potential)
