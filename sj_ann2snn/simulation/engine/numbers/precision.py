"""Layers with weights in fewer bits, only if the user asks for it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ....errors import OptionError
from ....support.locks import exclusive
from ....support.shapes import along_axis
from ....support.wording import shown

__all__ = [
    "PRECISIONS",
    "check_precision",
    "likes_channels_last",
    "product_precision",
    "rounded_layer",
    "type_of_products",
]

PRECISIONS = ("float32", "tf32", "bfloat16")
"""The allowed values of `precision=`. "float32" rounds no product to fewer bits than the network's own."""


def check_precision(precision: object, device: torch.device) -> str:
    """Check that `precision` is available on `device`, and return it.

    Raises:
        OptionError: It is unknown or not available.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"precision={shown(precision)} is not known. Allowed are {', '.join(map(repr, PRECISIONS))}.")
    if precision == "tf32" and device.type != "cuda":
        raise OptionError(
            f"precision='tf32' is a format of CUDA devices, but the network is on {device}. Move it with "
            'snn.to("cuda"), or leave the argument out.'
        )
    return str(precision)


def type_of_products(precision: str) -> torch.dtype | None:
    """The dtype in which layers behind the first neuron multiply; None for the network's own."""
    return torch.bfloat16 if precision == "bfloat16" else None


def likes_channels_last(precision: str, device: torch.device) -> bool:
    """True if convolutions are fastest on channels_last images, as they are on a CPU and on tensor cores.

    In full single precision, cuDNN converts such images back and forth and uses Fourier transforms for some layers: on
    an H100, a ResNet-20 took 2.4 times as long with 100 samples, although 0.55 times as long with 1,000 samples
    (benchmarks/results/cuda_layout.txt).
    """
    return device.type != "cuda" or precision != "float32"


@contextmanager
def product_precision(precision: str, device: torch.device) -> Iterator[None]:
    """On CUDA, allow TF32 only for "tf32"; by default, torch uses it for convolutions.

    The setting belongs to the whole process, so simulations in other threads wait.
    """
    if device.type != "cuda":
        yield
        return
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    with exclusive(torch.backends.cudnn):
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
        try:
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before


def rounded_layer(module: nn.Module, dtype: torch.dtype) -> Callable[[Any, Tensor, bool], Tensor] | None:
    """A shortcut that computes `module` with weights and inputs of `dtype`; None for a module without weights.

    Spikes are exact in any dtype, so behind a neuron only the weights and the sums are rounded; the bias is added in
    the network's own dtype.
    """
    if not isinstance(module, (nn.Linear, _ConvNd)) or not hasattr(module, "step_mode"):
        return None
    low: Any = copy.copy(module)
    low._parameters = {"weight": nn.Parameter(module.weight.detach().to(dtype), requires_grad=False), "bias": None}
    low.step_mode = "m"
    bias = module.bias
    if bias is not None and isinstance(module, _ConvNd):
        bias = along_axis(bias, 1 + len(module.kernel_size))

    def compute(_: Any, x_seq: Tensor, overwrite: bool) -> Tensor:
        y: Tensor = low(x_seq.to(dtype)).to(x_seq.dtype)
        return y if bias is None else y.add_(bias)

    return compute
