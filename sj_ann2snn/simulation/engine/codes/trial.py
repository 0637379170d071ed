"""Whether the kernels run on a device: they are tried once."""

from __future__ import annotations

import functools
import importlib
import importlib.util

import torch
from torch import nn

from ....layers import CumulativeMaxPool, IntegerIF
from .convolutions import triton_convolution
from .layers import fire_codes, pool_codes
from .values import Codes

__all__ = ["passes_trial", "triton_works"]

COMPUTE_CAPABILITY = (8, 0)
"""From which on tensor cores multiply bytes as the kernels do."""


def triton_works(device: torch.device) -> bool:
    """True if the kernels run on that device."""
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    try:
        return _kernels_run(torch.cuda.current_device() if device.index is None else device.index)
    except torch.OutOfMemoryError:  # which says nothing of the next time
        return False


@functools.cache
def _kernels_run(index: int) -> bool:
    if importlib.util.find_spec("triton") is None or torch.cuda.get_device_capability(index) < COMPUTE_CAPABILITY:
        return False
    with torch.cuda.device(index):
        return passes_trial(torch.device("cuda"))


def passes_trial(device: torch.device) -> bool:
    """True if each kernel gives the right spikes there. Triton compiles C on its way, which needs a compiler, and other
    versions of it may refuse the kernels."""
    conv, neurons = nn.Conv2d(8, 8, 1, bias=False), [IntegerIF(torch.ones(1)).to(device) for _ in range(2)]
    nn.init.dirac_(conv.weight)
    currents = torch.full((2, 1, 8, 2, 2), 0.5, dtype=torch.float32, device=device)
    try:
        convolution = triton_convolution(conv.to(device))
        spikes = fire_codes(neurons[0], currents)
        if spikes is None or convolution is None:
            return False
        pooled, passed = pool_codes(CumulativeMaxPool(2, 2), spikes), convolution(spikes, neuron=neurons[1])
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return False
    if pooled is None or not isinstance(passed, Codes):
        return False
    return [int(found.codes.sum()) for found in (spikes, pooled, passed)] == [32, 8, 32]
