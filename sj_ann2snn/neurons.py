"""The base class of neuron makers: which spiking neuron stands at a site."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

__all__ = ["NeuronMaker", "NeuronSite"]


@dataclass(frozen=True)
class NeuronSite:
    """Where a neuron is to stand.

    Attributes:
        name: Qualified name of the layer.
        shape: Shape of one sample's activation.
        scale: λ, a scalar or ``[channels]``; the neuron itself works in units of λ.
        dtype: The network's dtype.
    """

    name: str
    shape: tuple[int, ...]
    scale: Tensor
    dtype: torch.dtype


class NeuronMaker(abc.ABC):
    """Makes the spiking neuron for a site.

    The neuron is driven by ``current / λ``; the mean of its output over time approximates
    ``clamp(activation / λ, 0, 1)``. It is a SpikingJelly module: cleared by `reset_net`, with the step
    modes "s" (``[N, ...]``) and "m" (``[T, N, ...]``).
    """

    name: ClassVar[str]
    replaces: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def make(self, site: NeuronSite) -> nn.Module:
        """The neuron for `site`."""
