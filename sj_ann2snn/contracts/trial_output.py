"""One of the tensors that a network on trial returns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..support.shapes import along_axis
from ..support.trees import leaves

__all__ = ["TrialOutput"]


class TrialOutput:
    """One tensor that the network returns, with the adjustment of its bias so far.

    Attributes:
        name: Where it is among the outputs, as in Python: ``""`` for the only one, ``"['mask']"``, ``"[1][0]"``.
        adjustable: True if it comes from one layer, whose bias can be adjusted.
        channels: C, the length of `bias`; zero if it is not adjustable.
        bias: Added at every step, ``[C]``, in the ANN's units.
    """

    def __init__(self, name: str, places: tuple[int, ...], axis: int | None, channels: int, like: Tensor) -> None:
        self.name, self.adjustable, self.channels = name, axis is not None, channels
        self.bias = torch.zeros(channels, dtype=like.dtype, device=like.device)
        self._places, self._axis = places, axis

    def of(self, outputs: Any) -> Any:
        """This tensor in `outputs`, which `Trial.run` or `Trial.activations` returned."""
        return list(leaves(outputs))[self._places[0]]

    def along_channels(self, value: Tensor, ndim: int) -> Tensor:
        """A vector ``[C]``, reshaped to broadcast over this output with `ndim` dimensions, samples included."""
        return value if self._axis is None else along_axis(value, ndim - 1, self._axis)

    def mean_per_channel(self, value: Tensor) -> Tensor:
        """The mean ``[C]`` over samples and positions of a value ``[N, ...]`` in the shape of this output."""
        return value.movedim(1 + (self._axis or 0), 0).flatten(1).mean(1)
