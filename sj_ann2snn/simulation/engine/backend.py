"""Chooses the implementation of neurons that runs the simulation.

On a CPU, the package's own loops run (`firing`). On a CUDA device, neurons for which there is no kernel (`packers`) are
SpikingJelly's fast multi-step ones: 2.0 chooses Triton or native CUDA by itself; 0.0.0.0.14 uses CuPy only on request,
which this module makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ...compat import backend_is_open, cupy_backend, cupy_works, is_plain_if

__all__ = ["fastest_neurons"]


@contextmanager
def fastest_neurons(modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """While the context is open, run the neurons among `modules` on their fastest implementation for `device`.

    Neurons whose `backend` the caller has named keep it.
    """
    neurons: list[nn.Module] = []
    if device.type == "cuda" and cupy_works():
        neurons = [one for one in modules if is_plain_if(one) and backend_is_open(one)]
    with cupy_backend(modules, neurons):
        yield
