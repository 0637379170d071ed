"""Runs a converted network and returns its answer."""

from __future__ import annotations

from collections.abc import Sequence
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
    plugins: Sequence[Any] = (),
) -> Any:
    """Run the network for `T` steps on a constant input and return its mean output, or another readout.

    >>> import torch
    >>> from sj_ann2snn import Converter, simulate
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
    >>> snn = Converter([torch.rand(64, 4)], mode="max", progress=False)(ann)
    >>> simulate(snn, torch.rand(5, 4), T=20).shape
    torch.Size([5, 3])

    Args:
        snn: A converted network. Any other stateful module of SpikingJelly layers runs step by step.
        x: The input ``[N, ...]``, the same at every step; a tuple for a network with several inputs.
        T: Number of time steps, at least 1.
        readout: How to turn the outputs over time into the answer: `"mean"`, `"delayed"`, `"exponential"`, `"last"`,
            `"potential"`, the name of any plugin's readout, or an instance with options,
            ``Delayed(delay=2)``. By default, the readout for which a correction adjusted the network,
            otherwise the mean.
        precision: `"float32"` keeps the network's own precision. `"tf32"` (on CUDA) and `"bfloat16"` compute the layers
            behind the first neuron with weights of 11 and 8 significant bits. Membrane potentials keep their
            precision; the spikes differ slightly.
        plugins: Plugin objects to use in addition to the installed ones, whose readouts you may name.

    Returns:
        The network's output averaged over time: ``[N, ...]``, in the ANN's own units. With another readout, its answer
        after `T` steps. If the network returns several tensors, one answer for each. The network is reset before and
        after the simulation, and keeps its step mode.

    On a CPU, as many tiles run side by side as torch has threads (`torch.set_num_threads`). A network with hooks or
    with your own layers runs one tile at a time.

    Raises:
        InputError: `T` is not a positive integer, or the network cannot take `x`.
        OptionError: `readout` is unknown, or has no answer after `T` steps; or `precision` is not available on the
            network's device.
        OutOfMemoryError: There is not enough memory even for a single sample; smaller tiles are tried first.
    """
    inputs = x if isinstance(x, tuple) else (x,)
    simulator = Simulator(snn, T, precision)
    chosen = readout_for(snn, readout, T, plugins)
    return plain(concatenate(simulator.run_all(inputs, lambda _: AnswerAtEnd(chosen))))
