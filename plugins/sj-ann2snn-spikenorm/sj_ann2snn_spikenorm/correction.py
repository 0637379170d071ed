"""The correction: runs the network and sets every layer's threshold to the largest current that arrives there."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from torch import Tensor

from sj_ann2snn import (
    Correction,
    CorrectionError,
    QuantileSketch,
    Trial,
    TrialSite,
    fill_dead_channels,
    require_flag,
    require_integer,
    require_number,
)

__all__ = ["LargestCurrent"]

VALUES = 1 << 26
"""Currents of the largest layer to compute at a time: 256 MiB in single precision; a few such tensors are alive."""


class _Reached(Exception):  # noqa: N818 - not an error: the layers behind this one are not needed yet
    """A run has reached the layer whose currents are wanted."""


class LargestCurrent(Correction):
    """Sets every threshold to the largest current that arrives there in the spiking network, layer by layer.

    >>> import torch
    >>> from sj_ann2snn import Converter
    >>> _ = torch.manual_seed(0)
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU())
    >>> x = torch.rand(64, 4)
    >>> for corrections in ((), LargestCurrent(T=64)):
    ...     converter = Converter([x], mode="max", corrections=corrections, progress=False)
    ...     snn = converter(ann)
    ...     print({name: round(low, 2) for name, (low, high) in converter.report.scales.items()})
    {'1': 1.24, '3': 0.49}
    {'1': 1.24, '3': 0.6}

    The activation is the current's mean over time. At a single step, many spikes can coincide, and the current is
    larger; a threshold of that size loses nothing. The first layer's current is constant, so its threshold is that of
    the mode "max" on the same samples. Every later layer runs with the thresholds found before it. A layer that never
    receives a positive current keeps its λ.

    The result does not depend on how many samples are computed at a time. If the currents of all samples fit into
    256 MiB per layer, the network runs once, otherwise once up to every layer: keep T times `samples` small for large
    images.

    Args:
        T: Number of time steps to run the network for.
        samples: Maximum number of calibration samples to use.
        current_percentile: Use this percentile of the currents (over all steps, samples and neurons) instead of the
            largest: fewer steps to the same accuracy, as with the mode "99.9%".
        current_channel_wise: One threshold per channel, from its own currents, instead of one per layer.

    Raises:
        OptionError: An option is out of range.
        CorrectionError: The network has a neuron other than the plain IF neuron.

    Source: Sengupta et al. 2019, "Going deeper in spiking neural networks: VGG and residual architectures", the
    algorithm SPIKE-NORM; a percentile of the currents as in Lu & Sengupta 2020, "Exploring the connection between
    binary and spiking neural networks". There, the input is Poisson spikes. Here, as everywhere in sj-ann2snn, it is a
    constant current, neurons use a soft reset, and biases are part of the current.
    """

    name = "spike-norm"

    def __init__(
        self,
        *,
        T: int = 64,  # noqa: N803 - the field's name for the number of time steps
        samples: int = 64,
        current_percentile: float = 100.0,
        current_channel_wise: bool = False,
    ) -> None:
        self.T = require_integer("T", T, what="in correction 'spike-norm' it")
        self.samples = require_integer("samples", samples, what="in correction 'spike-norm' it")
        self.percentile = require_number("current_percentile", current_percentile, above=0, most=100)
        self.channel_wise = require_flag("current_channel_wise", current_channel_wise)

    @torch.no_grad()
    def correct(self, trial: Trial) -> None:
        for site in trial.sites:
            if not site.binary:
                raise CorrectionError(
                    f"Correction 'spike-norm' only supports the plain IF neuron, but {site.name} has another neuron, "
                    "which may emit several spikes in a step. Leave out neuron=, or use corrections=()."
                )
        if not trial.sites:
            return
        inputs = trial.inputs(self.samples)
        parts = _parts(inputs if isinstance(inputs, tuple) else (inputs,), self._at_a_time(trial))
        if len(parts) == 1:
            # With all samples at once, a layer's threshold is known before its spikes are computed.
            def emit(site: TrialSite, currents: Tensor) -> Tensor:
                counted = self._sketch(site)
                self._count(counted, site, currents)
                self._adjust(trial, site, counted)
                return site.fire(currents)

            trial.run(parts[0], self.T, emit)
            return
        for wanted in trial.progress(trial.sites, "thresholds from currents"):
            counted = self._sketch(wanted)
            for part in parts:
                self._run_up_to(trial, wanted, part, counted)
            self._adjust(trial, wanted, counted)

    def _run_up_to(self, trial: Trial, wanted: TrialSite, inputs: Any, counted: QuantileSketch) -> None:
        def emit(site: TrialSite, currents: Tensor) -> Tensor:
            if site is wanted:
                self._count(counted, site, currents)
                raise _Reached
            return site.fire(currents)

        with contextlib.suppress(_Reached):
            trial.run(inputs, self.T, emit)

    def _at_a_time(self, trial: Trial) -> int:
        largest = max(math.prod(site.shape) for site in trial.sites)
        return max(1, VALUES // (self.T * largest))

    def _sketch(self, site: TrialSite) -> QuantileSketch:
        return QuantileSketch(site.channels, bits=7, octaves=16) if self.channel_wise else QuantileSketch()

    def _count(self, counted: QuantileSketch, site: TrialSite, currents: Tensor) -> None:
        shifted = currents + site.along_channels(site.bias)
        counted.update(shifted.movedim(2, 0).flatten(1) if self.channel_wise else shifted.reshape(1, -1))

    def _adjust(self, trial: Trial, site: TrialSite, counted: QuantileSketch) -> None:
        layer = self._threshold(counted.collapsed())
        if not bool(layer > 0):
            return
        thresholds = fill_dead_channels(self._threshold(counted), layer)
        trial.adjust(site.name, scale=thresholds.expand(site.channels))

    def _threshold(self, counted: QuantileSketch) -> Tensor:
        largest = counted.maxima.double().clamp(min=0)
        if self.percentile == 100:
            return largest
        quantile = counted.quantile(self.percentile / 100)
        # If so few currents are positive that the percentile is zero, use the largest.
        return torch.where(quantile > 0, quantile, largest)


def _parts(inputs: tuple[Any, ...], size: int) -> list[Any]:
    """The inputs, `size` samples at a time, as `Trial.run` takes them."""
    count = max(len(value) for value in inputs if isinstance(value, Tensor) and value.dim())
    parts = []
    for start in range(0, count, size):
        part = tuple(
            value[start : start + size] if isinstance(value, Tensor) and value.dim() else value for value in inputs
        )
        parts.append(part[0] if len(part) == 1 else part)
    return parts
