"""Mappers for pooling and resampling."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sj_ann2snn import (
    Average,
    CumulativeMaxPool,
    LayerMapper,
    Linear,
    MomentumMaxPool,
    NeuronAfterPool,
    OptionError,
    Refuse,
    Replacement,
    Site,
    Spike,
    Stateful,
    Value,
    hookimpl,
)

ANN2SNN_API = 1

MAXPOOLS = ("cumulative", "momentum", "pre-spike", "avg")


class AveragePoolMapper(LayerMapper):
    """Average pooling averages spikes over space, with an optional neuron behind it.

    Args:
        avgpool_neuron: Put an IF neuron behind every average pool, so that the next layer receives spikes.
    """

    name = "average-pool"
    claims = (
        nn.AvgPool1d,
        nn.AvgPool2d,
        nn.AvgPool3d,
        nn.AdaptiveAvgPool1d,
        nn.AdaptiveAvgPool2d,
        nn.AdaptiveAvgPool3d,
        F.avg_pool1d,
        F.avg_pool2d,
        F.avg_pool3d,
        F.adaptive_avg_pool1d,
        F.adaptive_avg_pool2d,
        F.adaptive_avg_pool3d,
    )

    def __init__(self, *, avgpool_neuron: bool = False) -> None:
        self.avgpool_neuron = avgpool_neuron

    def map(self, site: Site) -> Replacement:
        return Spike(keep=True) if self.avgpool_neuron else Average()


class ReductionMapper(LayerMapper):
    """Means and sums over dimensions of one sample."""

    name = "reduction"
    claims = (torch.mean, torch.sum, "mean", "sum")

    def map(self, site: Site) -> Replacement:
        ndim = len(site.values[0].shape)
        dims = site.argument("dim", 1)
        if dims is None:
            return Refuse("it reduces over all samples of the batch", "name the dimensions, without 0")
        reduced = {dim % ndim for dim in ([dims] if isinstance(dims, int) else dims)}
        if 0 in reduced:
            return Refuse("it reduces over the samples of the batch (dimension 0)", "leave dimension 0 out")
        return Linear() if 1 in reduced else Average()


class UpsampleMapper(LayerMapper):
    """Interpolation in space."""

    name = "upsample"
    claims = (nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, F.interpolate, F.upsample)

    def map(self, site: Site) -> Replacement:
        return Average()


class MaxPoolMapper(LayerMapper):
    """Max pooling of spike trains, in one of four ways.

    Args:
        maxpool: `"cumulative"` (exact at every step), `"momentum"` (gate on momentum-averaged rates),
            `"pre-spike"` (pool the currents, then fire; an approximation) or `"avg"` (average instead, which is not
            the ANN's function).
        maxpool_momentum: Momentum of the gate, in [0, 1).
    """

    name = "max-pool"
    claims = (
        nn.MaxPool1d,
        nn.MaxPool2d,
        nn.MaxPool3d,
        F.max_pool1d,
        F.max_pool2d,
        F.max_pool3d,
        torch.max_pool1d,
        torch.max_pool2d,
        torch.max_pool3d,
    )

    def __init__(self, *, maxpool: str = "cumulative", maxpool_momentum: float = 0.9) -> None:
        if maxpool not in MAXPOOLS:
            raise OptionError(f"maxpool={maxpool!r:.300} is not known. Allowed are {', '.join(map(repr, MAXPOOLS))}.")
        number = isinstance(maxpool_momentum, Real)
        if not number or not 0 <= maxpool_momentum < 1:
            raise OptionError(f"maxpool_momentum={maxpool_momentum!r:.300} is not allowed: it must be in [0, 1).")
        self.maxpool = maxpool
        self.momentum = maxpool_momentum

    def map(self, site: Site) -> Replacement:
        if site.argument("return_indices", 6, False) or not isinstance(site.output, Value):
            return Refuse(
                "it returns the indices of the maxima, which change with every spike",
                "pool without return_indices",
            )
        geometry = _geometry(site)
        spatial = int(site.operation_name[-2])
        cumulative = Stateful(partial(CumulativeMaxPool, spatial, **geometry), "cumulative max pool")
        if self.maxpool == "cumulative":
            return cumulative
        if self.maxpool == "momentum":
            gate = partial(MomentumMaxPool, spatial, momentum=self.momentum, **geometry)
            return Stateful(gate, "momentum max pool", exact=False)
        if self.maxpool == "pre-spike":
            return NeuronAfterPool(otherwise=cumulative)
        if any(dilation != 1 for dilation in _tuple(geometry["dilation"])):
            return Refuse(
                f"maxpool='avg' does not support the dilation {geometry['dilation']}: average pooling has no dilation",
                "use maxpool='cumulative'",
            )
        return Average(make=_average_pool(spatial, geometry), exact=False)


def _geometry(site: Site) -> dict[str, Any]:
    kernel_size = site.argument("kernel_size", 1)
    return {
        "kernel_size": kernel_size,
        # torch.max_pool2d writes an empty stride for the kernel size.
        "stride": site.argument("stride", 2) or kernel_size,
        "padding": site.argument("padding", 3, 0),
        "dilation": site.argument("dilation", 4, 1),
        "ceil_mode": site.argument("ceil_mode", 5, False),
    }


def _average_pool(spatial: int, geometry: dict[str, Any]) -> Callable[[], nn.Module]:
    pools: dict[int, Callable[..., nn.Module]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
    arguments = {name: value for name, value in geometry.items() if name != "dilation"}
    return partial(pools[spatial], **arguments, count_include_pad=False)


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


@hookimpl
def ann2snn_layer_mappers() -> list[type[LayerMapper]]:
    return [AveragePoolMapper, MaxPoolMapper, ReductionMapper, UpsampleMapper]
