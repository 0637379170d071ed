"""A layer with weights of a network on trial, which corrections may tune if the caller allows it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..support.wording import shown

__all__ = ["Arriving", "TrialLayer"]


class TrialLayer:
    """A Linear, Conv or ConvTranspose layer of the network on trial, with the weights that corrections gave it so far.

    >>> layer = TrialLayer("fc", torch.nn.Linear(3, 2))
    >>> layer.compute(torch.ones(5, 3)).shape, layer.change
    (torch.Size([5, 2]), 0.0)

    Weights, inputs and results are in the ANN's units, whatever the scales (λ) around the layer are. BatchNorm is
    absorbed. A module that the ANN calls several times is a layer per call, ``NAME``, ``NAME#2`` and so on, each with
    weights of its own.

    Attributes:
        name: Qualified name of the layer.
        module: The ANN's layer, for its stride, padding, groups and bias. Changing it changes nothing.
        shape: The shape of its weights.
        weight: The weights so far; at first, the ANN's.
    """

    def __init__(self, name: str, layer: nn.Module) -> None:
        self.name = name
        self.module = layer
        self._own: Tensor = layer.weight.detach().clone()  # type: ignore[operator]
        self.shape = tuple(self._own.shape)
        self.weight = self._own.clone()

    @property
    def changed(self) -> bool:
        """True if a correction gave it other weights than the ANN's."""
        return not torch.equal(self.weight, self._own)

    @property
    def change(self) -> float:
        """The norm of the change of the weights, relative to that of the ANN's weights."""
        own, now = self._own.double(), self.weight.double()
        norm = float(own.norm())
        return float((now - own).norm()) / norm if norm else float(now.norm())

    def compute(self, inputs: Tensor, weight: Tensor | None = None) -> Tensor:
        """What the layer makes of `inputs`, with the ANN's bias and with gradients.

        Args:
            inputs: ``[N, ...]``, in the ANN's units.
            weight: Instead of `weight`, in its shape.
        """
        given = self.weight if weight is None else weight
        result: Tensor = torch.func.functional_call(self.module, {"weight": given}, (inputs,))
        return result

    def __repr__(self) -> str:
        return f"TrialLayer({shown(self.name)}, {type(self.module).__name__}, {self.shape})"


Arriving = Callable[[TrialLayer, Tensor], None]
"""Takes a layer and the inputs that arrive there, ``[T, N, ...]`` in the ANN's units; it may change its weights."""
