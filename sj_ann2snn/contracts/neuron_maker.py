"""The base class of neuron makers, which make the spiking neuron for a site."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..support.shapes import along_axis

__all__ = ["NeuronMaker", "NeuronSite"]


@dataclass(frozen=True)
class NeuronSite:
    """The site that a neuron is made for.

    >>> import torch
    >>> site = NeuronSite("relu", (10, 3), torch.ones(3), torch.float32, channel_axis=1)
    >>> site.along_channels(site.scale).shape
    torch.Size([1, 3])

    Attributes:
        name: Qualified name of the layer.
        shape: Shape of one sample's activation. Only the size of the channel axis is the same for every input.
        scale: λ, a scalar or ``[channels]``; the neuron itself works in units of `NeuronMaker.unit`.
        dtype: The network's dtype.
        maximum: Upper bound of the activation in the ANN's units (6 for ReLU6), or None. λ never exceeds it. A neuron
            that can emit more than λ on average must keep to it, otherwise the conversion is refused.
        channel_axis: The dimension of `shape` that holds the channels: 0 behind a convolution, the last one behind
            `nn.Linear`.
    """

    name: str
    shape: tuple[int, ...]
    scale: Tensor
    dtype: torch.dtype
    maximum: float | None = None
    channel_axis: int = 0

    def along_channels(self, value: Tensor) -> Tensor:
        """A scalar or vector ``[channels]``, reshaped to broadcast over `shape`, and over batches of it."""
        return along_axis(value, len(self.shape), self.channel_axis)


class NeuronMaker(abc.ABC):
    """Makes the spiking neuron for a site.

    The neuron receives ``current / unit``, and its mean output over time approximates
    ``clamp(activation, 0, λ) / unit``, where `unit` is λ unless the maker overrides it. It is a SpikingJelly module
    that `reset_net` resets, with the step modes "s" (``[N, ...]``) and "m" (``[T, N, ...]``). The base class
    `InPlaceNeuron` provides all of this at the simulator's full speed.
    """

    name: ClassVar[str]
    replaces: ClassVar[tuple[str, ...]] = ()
    exports: ClassVar[tuple[type[nn.Module], ...]] = ()
    """The neurons of this maker that can be written to a file.

    Each has a method `export_options()`, which returns the keywords with which to construct it: numbers, text, tensors,
    modules, functions of torch.
    """

    tunable: ClassVar[Mapping[str, Sequence[Any]]] = {}
    """The values of options that `tune` tries, by name: ``{"levels": (2, 4, 8)}``. All others stay at their
    defaults."""
    resolution: float = 0.0
    """Share of λ by which the mean output may differ from a constant current, however many steps run.

    Zero for a neuron whose error falls as 1/T: the core drives it with constant currents, and refuses a neuron that
    loses current. A neuron that represents a few values only sets it, as an attribute of the class or of the instance.
    A maker with an option T makes neurons for that number of steps, which the core does not check.
    """

    def readout(self) -> tuple[str, dict[str, Any]] | None:
        """Name and options of the readout that networks of these neurons need; None, as by default, for any.

        `simulate` and `evaluate` then use it by default, unless a correction suggests another. It is for neurons whose
        first steps are no answer yet: ``("delayed", {"delay": 4})``.
        """
        return None

    def unit(self, scale: Tensor) -> Tensor:
        """Value of one spike in the ANN's units, in the shape of `scale`.

        λ by default. A neuron that emits up to k spikes in a step can return λ / k: it then resolves activations k
        times as finely and still saturates at λ.

        Args:
            scale: λ, a scalar or ``[channels]``.
        """
        return scale

    @abc.abstractmethod
    def make(self, site: NeuronSite) -> nn.Module:
        """The neuron for `site`."""
