"""Mappers for layers with weights, and for layers that are linear or absent at inference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sj_ann2snn import ChannelAffine, LayerMapper, Linear, Refuse, Remove, Replacement, Site, Weighted, hookimpl

ANN2SNN_API = 1


class WeightedMapper(LayerMapper):
    """Layers with weights are kept, with the scales folded in."""

    name = "weighted"
    claims = (
        nn.Linear,
        nn.Conv1d,
        nn.Conv2d,
        nn.Conv3d,
        nn.ConvTranspose1d,
        nn.ConvTranspose2d,
        nn.ConvTranspose3d,
        ChannelAffine,
    )

    def map(self, site: Site) -> Replacement:
        return Weighted()


class FunctionalWeightedMapper(LayerMapper):
    """Functional convolutions and linear maps: linear in their input, with fixed weights."""

    name = "functional-weighted"
    claims = (
        F.linear,
        F.conv1d,
        F.conv2d,
        F.conv3d,
        F.conv_transpose1d,
        F.conv_transpose2d,
        F.conv_transpose3d,
    )

    def map(self, site: Site) -> Replacement:
        return Linear(varying=(0,))


class BatchNormMapper(LayerMapper):
    """A functional BatchNorm with fixed statistics is an affine map."""

    name = "functional-batchnorm"
    claims = (F.batch_norm, torch.batch_norm)

    def map(self, site: Site) -> Replacement:
        training = site.argument("training", 5, False)
        position = 3 if site.operation is torch.batch_norm else 1
        if training or site.argument("running_mean", position) is None:
            return Refuse(
                "it normalizes by the statistics of the current batch, which change over time",
                "train with track_running_stats=True and convert in eval mode",
            )
        return Linear(varying=(0,))


class DropoutMapper(LayerMapper):
    """Dropout and identity disappear at inference."""

    name = "dropout"
    claims = (
        nn.Identity,
        nn.Dropout,
        nn.Dropout1d,
        nn.Dropout2d,
        nn.Dropout3d,
        nn.AlphaDropout,
        nn.FeatureAlphaDropout,
        F.dropout,
        F.dropout1d,
        F.dropout2d,
        F.dropout3d,
        F.alpha_dropout,
        F.feature_alpha_dropout,
    )

    def map(self, site: Site) -> Replacement:
        return _dropout(site, training_position=2)


def _dropout(site: Site, training_position: int) -> Replacement:
    if site.module is None and site.argument("training", training_position, True):
        return Refuse(
            "it is random even at inference (training=True is fixed in the code)",
            "pass training=self.training",
        )
    return Remove()


class StochasticDepthMapper(LayerMapper):
    """torchvision's stochastic depth, the dropout of whole branches, disappears at inference."""

    name = "stochastic-depth"
    claims = ("torchvision.ops.stochastic_depth.stochastic_depth",)

    def map(self, site: Site) -> Replacement:
        return _dropout(site, training_position=3)


class LinearMapper(LayerMapper):
    """Constants in the shape of a tensor, and linear maps that mix the values of a sample."""

    name = "linear"
    claims = (
        torch.zeros_like,
        torch.ones_like,
        torch.full_like,
        torch.cumsum,
        torch.rsub,
        nn.Fold,
        nn.Unfold,
        F.fold,
        F.unfold,
        "new_zeros",
        "new_ones",
        "new_full",
        "cumsum",
    )

    def map(self, site: Site) -> Replacement:
        return Linear(varying=(0,)) if site.operation is not torch.rsub else Linear()


@hookimpl
def ann2snn_layer_mappers() -> list[type[LayerMapper]]:
    return [
        BatchNormMapper,
        DropoutMapper,
        FunctionalWeightedMapper,
        LinearMapper,
        StochasticDepthMapper,
        WeightedMapper,
    ]
