"""The base classes of normalization strategies: how activation statistics become a scale λ."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

__all__ = [
    "CalibrationSite",
    "Normalization",
    "Observer",
    "channels_first_2d",
    "channels_last_2d",
    "fill_dead_channels",
]


@dataclass(frozen=True)
class CalibrationSite:
    """The spiking site that an observer watches.

    Attributes:
        name: Qualified name of the layer.
        channel_axis: 1 for one scale per channel, None for one scale per layer. Wherever the network has its channels,
            the observer is shown activations that have them in dimension 1.
        channels: Number of channels, or None.
        maximum: Upper bound of the activation (6 for ReLU6), or None.
        index: Position among the network's spiking sites, in order of execution.
    """

    name: str
    channel_axis: int | None = None
    channels: int | None = None
    maximum: float | None = None
    index: int = 0


class Observer(abc.ABC):
    """Watches the activations of one site and returns its scale.

    An observer may return a tensor from `observe` to change what the rest of the network sees, and may ask for further
    passes over the data. It must not write to what it is shown: the layers behind read it as well.

    Observers are mergeable: merging observers that each saw a part of the data gives the same result as one observer
    that saw all of it. Several passes: after each one, the observers of all parts are merged into one, whose `end_pass`
    is called; every part then continues with a copy of it. So `end_pass` keeps its conclusions from the pass and clears
    what it counted, and `merge` adds up what was counted since the last `end_pass`.

    At an activation that passes both signs (LeakyReLU, PReLU, abs), an observer is shown the magnitudes of the currents
    instead of the activation, because λ bounds the spikes of either sign.
    """

    exact_merge: ClassVar[bool] = False
    """True if merging gives the same bits in any order and however the data was shared out: extremes, counts and a
    `QuantileSketch` do, sums of floating-point numbers do not. Several processes then send one observer each; otherwise
    they keep one for every batch, and merge them in the order of the batches."""

    def __init__(self, site: CalibrationSite) -> None:
        self.site = site

    @abc.abstractmethod
    def observe(self, x: Tensor) -> Tensor | None:
        """Take in the activations of one batch, ``[N, ...]``; return what to pass on, or None for `x`.

        For one scale per channel, `x` is ``[N, channels, ...]``: behind `nn.Linear`, whose channels are in the last
        dimension, that dimension is moved to the front. A returned tensor has the shape of `x`.

        Args:
            x: The activations; at an activation of both signs, the magnitudes of its currents. Do not write to it.
        """

    @abc.abstractmethod
    def scale(self) -> Tensor:
        """λ in the ANN's units: finite, > 0, a scalar or ``[channels]``."""

    @abc.abstractmethod
    def merge(self, other: Self) -> None:
        """Take in everything that `other` saw since its last `end_pass`; both ended the same passes.

        An observer that cannot be merged raises `NotImplementedError`; its mode then works in one process only.
        """

    def end_pass(self) -> bool:
        """Called after each pass over the data; True asks for one more.

        An observer that asks for another pass clears what it counted, so that observers can be merged in every pass.
        """
        return False


class Normalization(abc.ABC):
    """A normalization strategy, a "mode".

    >>> import torch
    >>> from sj_ann2snn import Normalization, Observer
    >>> class MeanObserver(Observer):
    ...     total, count = 0.0, 0
    ...     def observe(self, x):
    ...         self.total, self.count = self.total + x.sum().item(), self.count + x.numel()
    ...     def merge(self, other):
    ...         self.total, self.count = self.total + other.total, self.count + other.count
    ...     def scale(self):
    ...         return torch.tensor(self.times * self.total / self.count)
    >>> class TimesMean(Normalization):
    ...     name = "times-mean"
    ...     def __init__(self, *, times=10.0):
    ...         self.times = times
    ...     def observer(self, site):
    ...         observer = MeanObserver(site)
    ...         observer.times = self.times
    ...         return observer
    >>> TimesMean.parse("Times-Mean", times=8.0).times
    8.0

    Options are the keyword-only parameters of the constructor; users pass them to `Converter`.
    """

    name: ClassVar[str]
    """The name that users write; case is ignored."""
    replaces: ClassVar[tuple[str, ...]] = ()
    """Names of other modes that this one replaces."""
    example: ClassVar[str | None] = None
    """An example of how to write the mode, if that is not its name (``"99.9%"``)."""
    suggests: ClassVar[Mapping[str, Any]] = {}
    """Arguments that the mode is best used with, unless the caller gives others: the converter's `channel_wise`,
    `neuron` and `corrections`, and options of neurons and corrections. A neuron or a correction may also be a class,
    which is then constructed with the caller's options, and with those of the mode where the caller gives the mode as
    an instance."""
    tunable: ClassVar[Mapping[str, Sequence[Any]]] = {}
    """The values of options that `tune` tries, by name, and under ``"mode"`` the modes as users write them:
    ``{"mode": ("99%", "99.9%")}``. Without the latter it tries `example` or `name`. All other options stay at their
    defaults."""
    anytime: ClassVar[Mapping[str, Any]] = {}
    """Options with which the converter's T is the largest number of steps of one network that suits fewer steps, too:
    ``{"earliest": 4}``. `tune` then also makes one network for all numbers of steps, besides one for each of them."""

    @classmethod
    def parse(cls, mode: object, **options: Any) -> Self | None:
        """An instance if `mode` means this strategy, otherwise None.

        Args:
            mode: The mode as the user wrote it: a string or a number.
            options: The user's keywords that this class declares.

        Raises:
            ModeError: `mode` means this strategy but is out of its range.
        """
        # A class that replaces another mode also answers to that mode's name.
        names = {name.lower() for name in (cls.name, *cls.replaces)}
        if isinstance(mode, str) and mode.strip().lower() in names:
            return cls(**options)
        return None

    @abc.abstractmethod
    def observer(self, site: CalibrationSite) -> Observer:
        """A fresh observer for one site."""

    def __str__(self) -> str:
        return self.name


def channels_first_2d(x: Tensor, axis: int) -> Tensor:
    """`x` as ``[channels, everything else]``, without a copy if the layout allows it.

    >>> channels_first_2d(torch.zeros(2, 3, 4, 4), axis=1).shape
    torch.Size([3, 32])

    Args:
        x: Activations.
        axis: The channel axis, `CalibrationSite.channel_axis`.
    """
    return x.movedim(axis, 0).flatten(1)


channels_last_2d = channels_first_2d
"""The old name of `channels_first_2d`, which did not say what it does."""


def fill_dead_channels(scale: Tensor, layer_scale: Tensor) -> Tensor:
    """Give the layer's scale to channels that never fired.

    A channel that was zero over the whole calibration set must still pass a signal at test time.

    Args:
        scale: ``[channels]``, zero where the channel never fired.
        layer_scale: Scalar, the same statistic over all channels.
    """
    return torch.where(scale > 0, scale, layer_scale.to(scale))
