"""Keeps the convolutions of a network from one simulation to the next, while its weights stay what they were.

Looking whether sums are exact and ordering weights as loops read them takes longer than a small network runs, and on a
CUDA device waits for that many times. Comparing the weights with a copy costs one look at each.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ....support.exact_sums import Range
from .packers import Convolution

__all__ = ["KnownConvolutions", "remembered_convolutions"]

KnownConvolutions = dict[tuple[str, int | Range | str], Convolution | None]
"""Convolutions by name of the layer and by what is averaged in front of it, the range of the graded spikes there, or
that there are changes; None for a layer that is none."""

SETTINGS = "stride", "padding", "output_padding", "padding_mode", "dilation", "groups"
"""Of a convolution, besides its weights."""

LARGEST = 1 << 28
"""Bytes of weights to keep on a CPU, at most: a copy to compare with, and another as loops read them."""

MOST = 2
"""Networks to remember on a CPU: tables of sums take many times the memory of the weights that they are made of, and a
diagnosis has a network for every layer."""


class _Known:
    """The convolutions of a network, and what the network was when they were made."""

    def __init__(self, snn: nn.Module) -> None:
        self.convolutions: KnownConvolutions = {}
        self._settings = _settings(snn)
        self._weights = [weight.clone() for weight in _weights(snn)]
        self.on_cpu = all(weight.device.type == "cpu" for weight in self._weights)

    def fits(self, snn: nn.Module) -> bool:
        """True if the network has not changed since."""
        now = _weights(snn)
        if _settings(snn) != self._settings or list(map(_kind, now)) != list(map(_kind, self._weights)):
            return False
        return _equal(now, self._weights)


_KNOWN: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()
"""The network that was simulated last comes last."""

_LOCK = threading.Lock()


def remembered_convolutions(snn: nn.Module) -> KnownConvolutions:
    """The convolutions found in `snn` so far; none if its weights have changed since or take too much memory, or if
    many others have been simulated."""
    weights = _weights(snn)
    if sum(one.nbytes for one in weights if one.device.type == "cpu") > LARGEST:
        return {}
    try:
        known = _KNOWN.get(snn)
        if known is None or not known.fits(snn):
            known = _Known(snn)
        with _LOCK:
            _KNOWN.pop(snn, None)
            _KNOWN[snn] = known
            for other in [one for one, what in _KNOWN.items() if what.on_cpu][:-MOST]:
                del _KNOWN[other]
    except torch.OutOfMemoryError:  # what is kept takes as much memory as the weights
        _KNOWN.pop(snn, None)
        return {}
    return known.convolutions


def _layers(snn: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in snn.named_modules() if isinstance(module, (nn.Linear, _ConvNd)))


def _settings(snn: nn.Module) -> list[tuple[Any, ...]]:
    return [
        (name, type(module), *(repr(getattr(module, setting, None)) for setting in SETTINGS))
        for name, module in _layers(snn)
    ]


def _weights(snn: nn.Module) -> list[Tensor]:
    """The weights and biases of its layers, which may be parameters or buffers."""
    both = ((module.weight, module.bias) for _, module in _layers(snn))
    return [one.detach() for pair in both for one in pair if isinstance(one, Tensor)]


def _kind(x: Tensor) -> tuple[Any, ...]:
    return x.shape, x.dtype, x.device


def _equal(those: list[Tensor], others: list[Tensor]) -> bool:
    """True if all pairs of tensors are equal; the device is waited for once."""
    pairs = list(zip(those, others, strict=True))
    if all(one.device.type == "cpu" for one in those):
        return all(torch.equal(one, other) for one, other in pairs)
    away = torch.stack([(one != other).any().to(those[0].device) for one, other in pairs])
    return not bool(away.any())
