"""Starts kernels of Triton."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor

__all__ = ["KERNELS", "launch"]

KERNELS = "bytes on the device"
"""The name of all of them, for `bench`."""


def launch(kernel: str, blocks: tuple[int, ...], on: Tensor, *arguments: Any, **constants: Any) -> bool:
    """Start a kernel on the device of a tensor; False if Triton cannot compile it for this device, as where it has too
    little memory for a block."""
    from triton.errors import TritonError

    kernels = importlib.import_module(".kernels", __package__)
    with torch.cuda.device_of(on):  # type: ignore[no-untyped-call]
        try:
            getattr(kernels, kernel)[blocks](*arguments, **constants)
        except torch.OutOfMemoryError:
            raise
        except (TritonError, RuntimeError):  # passes of the compiler raise the latter
            return False
    return True
