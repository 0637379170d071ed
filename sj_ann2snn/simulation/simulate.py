"""Running a converted network for its answer."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..contracts.readout import Readout
from .answers import AnswerAtEnd, readout_for
from .engine import Simulator, concatenate, plain

__all__ = ["simulate"]


def simulate(
    snn: nn.Module,
    x: Any,
    T: int,  # noqa: N803 - the field's name for the number of time steps
    *,
    readout: str | Readout | None = None,
    precision: str = "float32",
) -> Any:
    """Run the network for `T` steps on a constant input; the mean of its output over time, or another readout.

    >>> import torch
    >>> from sj_ann2snn import Converter, simulate
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
    >>> snn = Converter([torch.rand(64, 4)], mode="max", progress=False)(ann)
    >>> simulate(snn, torch.rand(5, 4), T=20).shape
    torch.Size([5, 3])

    Args:
        snn: A converted network. Any other stateful module of SpikingJelly layers is run step by step.
        x: The input ``[N, ...]``, the same at every step; a tuple for a network with several inputs.
        T: Number of time steps, at least 1.
        readout: What makes the answer of the outputs over time: `"mean"`, `"delayed"`, `"exponential"`, `"last"`,
            `"potential"`, the name of any plugin's readout, or an instance with options,
            ``builtin.readouts.Delayed(delay=2)``; by default the one that a correction adjusted the network for, or
            the mean.
        precision: `"float32"` rounds no product. `"tf32"` (on CUDA) and `"bfloat16"` compute the layers behind the
            first neuron with weights of 11 and 8 significant bits; the membrane potentials stay as they are. The
            spikes are not quite the same then.

    Returns:
        What the network returns, averaged over time: ``[N, ...]``, in the ANN's own units. The network
        is reset before and after; its step mode is as it was. With another readout, its answer after `T` steps; where
        the network returns several tensors, one for each.

    On a CPU as many tiles run side by side as torch has threads (`torch.set_num_threads`); a network with hooks or with
    layers of your own takes one at a time.

    Raises:
        InputError: `T` is not a positive integer, or the network cannot take `x`.
        OptionError: `readout` is not known, or has no answer after `T` steps; there is no such `precision` where the
            network lies.
        OutOfMemoryError: There is not enough memory even for a single sample; before that, smaller tiles are tried.
    """
    inputs = x if isinstance(x, tuple) else (x,)
    simulator = Simulator(snn, T, precision)
    rule = readout_for(snn, readout, T)
    return plain(concatenate(simulator.run_all(inputs, lambda _: AnswerAtEnd(rule))))
