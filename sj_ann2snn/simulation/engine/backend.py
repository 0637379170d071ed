"""Which of SpikingJelly's implementations of a neuron runs the simulation.

On the CPU the package's own loops do (`firing`). On a CUDA device SpikingJelly's fast multi-step neurons do: 2.0
chooses Triton or native CUDA by itself, and 0.0.0.0.14 takes CuPy where it is told to, which happens here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ...compat import backend_is_open, cupy_backend, cupy_works, is_plain_if

__all__ = ["fastest_neurons"]


@contextmanager
def fastest_neurons(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Let the neurons of `network` run as fast as they can on `device` while the context is open.

    Neurons whose `backend` the caller has named keep it.
    """
    neurons: list[nn.Module] = []
    if device.type == "cuda" and cupy_works():
        neurons = [one for one in network.modules() if is_plain_if(one) and backend_is_open(one)]
    with cupy_backend(network, neurons):
        yield
