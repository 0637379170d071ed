"""Keeps the convolutions of a network from one simulation to the next, while its weights stay what they were.

On a CUDA device, taking weights apart into digits waits for the device many times, longer than a small network runs.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ...support.exact_sums import Range
from .packers import Convolution

__all__ = ["KnownConvolutions", "remembered_convolutions"]

KnownConvolutions = dict[tuple[str, int | Range], Convolution | None]
"""Convolutions by name of the layer and by what is averaged in front of it, or the range of the graded spikes there;
None for a layer that is none."""

SETTINGS = "stride", "padding", "padding_mode", "dilation", "groups"
"""Of a convolution, besides its weights."""


class _Known:
    """The convolutions of a network, and what the network was when they were made."""

    def __init__(self, snn: nn.Module) -> None:
        self.convolutions: KnownConvolutions = {}
        self._settings = _settings(snn)
        self._parameters = [parameter.detach().clone() for parameter in snn.parameters()]

    def fits(self, snn: nn.Module) -> bool:
        """True if the network has not changed since."""
        now = [parameter.detach() for parameter in snn.parameters()]
        if _settings(snn) != self._settings or list(map(_kind, now)) != list(map(_kind, self._parameters)):
            return False
        return _equal(now, self._parameters)


_KNOWN: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def remembered_convolutions(snn: nn.Module) -> KnownConvolutions:
    """The convolutions found in `snn` so far; none if its weights have changed since."""
    known = _KNOWN.get(snn)
    if known is None or not known.fits(snn):
        known = _KNOWN[snn] = _Known(snn)
    return known.convolutions


def _settings(snn: nn.Module) -> list[tuple[Any, ...]]:
    return [
        (name, type(module), *(getattr(module, setting, None) for setting in SETTINGS), bool(module._forward_hooks))
        for name, module in snn.named_modules()
    ]


def _kind(x: Tensor) -> tuple[Any, ...]:
    return x.shape, x.dtype, x.device


def _equal(those: list[Tensor], others: list[Tensor]) -> bool:
    """True if all pairs of tensors are equal; the device is waited for once."""
    if not those:
        return True
    pairs = zip(those, others, strict=True)
    away = torch.stack([(one != other).any().to(those[0].device) for one, other in pairs])
    return not bool(away.any())
