"""Runs a converted network and returns its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..contracts.readout import Readout
from ..support.neutral import neutrally
from ..support.quiet_layers import warn_of_quiet_layers
from .answers import AnswerAtEnd
from .engine import concatenate, plain
from .partwise import PartwiseSimulator, simulator_for

__all__ = ["simulate"]


@neutrally
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
        snn: A converted network, or a network with converted parts (`Converter(convert_only=...)`): each part runs for
            `T` steps wherever the network calls it, and hands its answer to the rest, which runs once. Any other
            stateful module of SpikingJelly layers runs step by step.
        x: The input ``[N, ...]``, the same at every step; a tuple for a network with several inputs. An input may be a
            list or a dict of tensors, such as the images of a detector.
        T: Number of time steps, at least 1.
        readout: How to turn the outputs over time into the answer: `"mean"`, `"delayed"`, `"recent"`, `"exponential"`,
            `"last"`, `"potential"`, the name of any plugin's readout, or an instance with options,
            ``Delayed(delay=2)``. By default, the readout for which a correction adjusted the network,
            otherwise the mean.
        precision: `"float32"` keeps the network's own precision. `"tf32"` (on CUDA) and `"bfloat16"` compute the layers
            behind the first neuron with weights of 11 and 8 significant bits. Membrane potentials keep their
            precision; the spikes differ slightly.
        plugins: Plugin objects to use in addition to the installed ones, whose readouts you may name.

    Returns:
        The network's output averaged over time: ``[N, ...]``, in the ANN's own units. With another readout, its answer
        after `T` steps. If the network returns several tensors, one answer for each, in the tuple, dict, named tuple or
        dataclass that the network returns. The simulation starts from a reset network, and leaves the network as it is:
        its memories and its step mode are not changed.

    On a CPU, as many tiles run side by side as torch has threads (`torch.set_num_threads`), each on copies of the
    layers that share the weights, so several threads may simulate one network at the same time. A network with hooks or
    with your own layers, and one that runs step by step, is run itself: one tile, and one simulation, at a time.

    The caller's inference mode, autocast, gradients and torch modes have no effect; see `precision` for autocast.

    Raises:
        InputError: `T` is not a positive integer, or the network cannot take `x`.
        NonFiniteError: `x` or a weight holds NaN or infinite values that matter, which the answer would hide.
        OptionError: `readout` is unknown, or has no answer after `T` steps; or `precision` is not available on the
            network's device.
        OutOfMemoryError: There is not enough memory even for a single sample; smaller tiles are tried first.
    """
    inputs = x if isinstance(x, tuple) else (x,)
    simulator, chosen = simulator_for(snn, T, precision, readout, plugins)
    warn_of_quiet_layers(snn, T)
    if isinstance(simulator, PartwiseSimulator):
        return simulator.answer(inputs)
    return simulator.restore(plain(concatenate(simulator.run_all(inputs, lambda _: AnswerAtEnd(chosen)))))
