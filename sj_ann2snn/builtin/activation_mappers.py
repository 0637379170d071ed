"""Mappers for activations: what becomes a spiking neuron."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sj_ann2snn import LayerMapper, Refuse, Replacement, Site, Spike, Value, hookimpl

ANN2SNN_API = 1


class ReLUMapper(LayerMapper):
    """ReLU becomes a soft-reset IF neuron."""

    name = "relu"
    claims = (nn.ReLU, F.relu, torch.relu, "relu")

    def map(self, site: Site) -> Replacement:
        return Spike()


class BoundedReLUMapper(LayerMapper):
    """ReLU6 and clamps at zero become IF neurons whose λ never exceeds the bound."""

    name = "bounded-relu"
    claims = (
        nn.ReLU6,
        nn.Hardtanh,
        F.relu6,
        F.hardtanh,
        torch.clamp,
        torch.clamp_min,
        torch.clip,
        "clamp",
        "clamp_min",
        "clip",
    )

    def map(self, site: Site) -> Replacement:
        low, high = self._bounds(site)
        if isinstance(low, (int, float)) and low == 0 and (high is None or isinstance(high, (int, float))):
            return Spike(maximum=None if high is None else float(high))
        return Refuse(
            f"it clamps to [{low}, {high}], but a spike train carries values of at least 0",
            "clamp at 0 below, or use ReLU or ReLU6",
        )

    def _bounds(self, site: Site) -> tuple[Any, Any]:
        if site.operation in (nn.ReLU6, F.relu6):
            return 0.0, 6.0
        if site.operation in (nn.Hardtanh, F.hardtanh):
            return site.argument("min_val", 1, -1.0), site.argument("max_val", 2, 1.0)
        if site.operation in (torch.clamp_min, "clamp_min"):
            return site.argument("min", 1), None
        return site.argument("min", 1), site.argument("max", 2)


class ThresholdMapper(LayerMapper):
    """``Threshold(0, 0)`` is another way to write ReLU."""

    name = "threshold"
    claims = (nn.Threshold, F.threshold, torch.threshold)

    def map(self, site: Site) -> Replacement:
        threshold, value = site.argument("threshold", 1), site.argument("value", 2)
        if threshold == 0 and value == 0:
            return Spike()
        return Refuse(
            f"it jumps from {value} to {threshold} at its threshold, but a firing rate is continuous in its current",
            "use Threshold(0, 0) or ReLU",
        )


class LeakyReLUMapper(LayerMapper):
    """Activations with a nonzero slope below zero become the difference of two neurons."""

    name = "leaky-relu"
    claims = (
        nn.LeakyReLU,
        nn.PReLU,
        nn.RReLU,
        F.leaky_relu,
        F.prelu,
        F.rrelu,
        torch.prelu,
        torch.rrelu,
        torch.abs,
        "abs",
        "prelu",
    )

    def map(self, site: Site) -> Replacement:
        if site.operation in (torch.abs, "abs"):
            return Spike(negative_slope=-1.0)
        if site.operation in (nn.RReLU, F.rrelu, torch.rrelu):
            if site.module is None and site.argument("training", 3, False):
                return Refuse("it draws its slope at random even at inference", "pass training=self.training")
            return Spike(negative_slope=(site.argument("lower", 1, 1 / 8) + site.argument("upper", 2, 1 / 3)) / 2)
        if site.operation in (nn.LeakyReLU, F.leaky_relu):
            return Spike(negative_slope=float(site.argument("negative_slope", 1, 0.01)))
        weight = site.argument("weight", 1)
        slope = weight.constant if isinstance(weight, Value) else weight
        if slope is None:
            return Refuse("its slope is computed from the input", "use a parameter as the slope")
        return Spike(negative_slope=slope.detach())


@hookimpl
def ann2snn_layer_mappers() -> list[type[LayerMapper]]:
    return [BoundedReLUMapper, LeakyReLUMapper, ReLUMapper, ThresholdMapper]
