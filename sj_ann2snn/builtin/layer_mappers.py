"""Mappers for activations, weighted layers and everything that is linear over time."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sj_ann2snn import (
    Average,
    ChannelAffine,
    LayerMapper,
    Linear,
    Product,
    Rearrange,
    Refuse,
    Remove,
    Replacement,
    Site,
    Spike,
    Sum,
    Value,
    Weighted,
    hookimpl,
)

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
            f"it clamps to [{low}, {high}]; a spike train carries values from 0 up",
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
            f"it jumps from {value} to {threshold} at its threshold; a spike rate is continuous in its current",
            "use Threshold(0, 0) or ReLU",
        )


class LeakyReLUMapper(LayerMapper):
    """Activations with another slope below zero become the difference of two neurons."""

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
                return Refuse("it draws its slope at random also at inference", "pass training=self.training")
            return Spike(negative_slope=(site.argument("lower", 1, 1 / 8) + site.argument("upper", 2, 1 / 3)) / 2)
        if site.operation in (nn.LeakyReLU, F.leaky_relu):
            return Spike(negative_slope=float(site.argument("negative_slope", 1, 0.01)))
        weight = site.argument("weight", 1)
        slope = weight.constant if isinstance(weight, Value) else weight
        if slope is None:
            return Refuse("its slope is computed from the input", "use a parameter as the slope")
        return Spike(negative_slope=slope.detach())


class WeightedMapper(LayerMapper):
    """Layers with weights stay, with the scales folded in."""

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
        if training or site.argument("running_mean", 1) is None:
            return Refuse(
                "it normalizes with the statistics of the batch at hand, which change over time",
                "train with track_running_stats=True and convert in eval mode",
            )
        return Linear(varying=(0,))


class DropoutMapper(LayerMapper):
    """Dropout and identity vanish at inference."""

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
            "it draws at random also at inference (training=True is fixed in the code)",
            "pass training=self.training",
        )
    return Remove()


class StochasticDepthMapper(LayerMapper):
    """torchvision's stochastic depth, the dropout of whole branches, vanishes at inference."""

    name = "stochastic-depth"
    claims = ("torchvision.ops.stochastic_depth.stochastic_depth",)

    def map(self, site: Site) -> Replacement:
        return _dropout(site, training_position=3)


class RearrangeMapper(LayerMapper):
    """Reshaping, selecting and joining move values about without changing them."""

    name = "rearrange"
    claims = (
        nn.Flatten,
        nn.Unflatten,
        nn.PixelShuffle,
        nn.PixelUnshuffle,
        nn.ChannelShuffle,
        F.pixel_shuffle,
        F.pixel_unshuffle,
        F.channel_shuffle,
        operator.getitem,
        torch.cat,
        torch.concat,
        torch.stack,
        torch.flatten,
        torch.unflatten,
        torch.reshape,
        torch.permute,
        torch.transpose,
        torch.swapaxes,
        torch.movedim,
        torch.squeeze,
        torch.unsqueeze,
        torch.chunk,
        torch.split,
        torch.tensor_split,
        torch.unbind,
        torch.narrow,
        torch.select,
        torch.roll,
        torch.flip,
        torch.clone,
        torch.detach,
        torch.tile,
        "flatten",
        "unflatten",
        "view",
        "view_as",
        "reshape",
        "reshape_as",
        "permute",
        "transpose",
        "swapaxes",
        "movedim",
        "squeeze",
        "unsqueeze",
        "contiguous",
        "chunk",
        "split",
        "tensor_split",
        "unbind",
        "narrow",
        "select",
        "roll",
        "flip",
        "clone",
        "detach",
        "expand",
        "expand_as",
        "repeat",
        "tile",
        "t",
    )

    def map(self, site: Site) -> Replacement:
        if site.operation is operator.getitem and len(site.values) > 1:
            return Linear(varying=(0,))  # picked by an index tensor, which must not vary
        return Rearrange()


class PaddingMapper(LayerMapper):
    """Padding by zeros or by values of the tensor itself."""

    name = "padding"
    claims = (
        nn.ZeroPad1d,
        nn.ZeroPad2d,
        nn.ZeroPad3d,
        nn.ConstantPad1d,
        nn.ConstantPad2d,
        nn.ConstantPad3d,
        nn.ReflectionPad1d,
        nn.ReflectionPad2d,
        nn.ReflectionPad3d,
        nn.ReplicationPad1d,
        nn.ReplicationPad2d,
        nn.ReplicationPad3d,
        F.pad,
    )

    def map(self, site: Site) -> Replacement:
        if not isinstance(site.output, Value):
            return Linear()
        value = site.argument("value", 3, 0.0)
        kept = site.values[0].shape[:2] == site.output.shape[:2]
        return Average() if kept and not value else Linear()


class LinearMapper(LayerMapper):
    """Constants of a tensor's shape, and maps within a sample that are linear but mix its values."""

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


class AdditionMapper(LayerMapper):
    """Residual addition and subtraction."""

    name = "addition"
    claims = (operator.add, operator.sub, torch.add, torch.sub, torch.subtract, "add", "sub", "subtract")

    def map(self, site: Site) -> Replacement:
        return Sum() if site.argument("alpha", 2, 1) == 1 and not _has_numbers(site) else Linear()


class NegationMapper(LayerMapper):
    """A change of sign."""

    name = "negation"
    claims = (operator.neg, torch.neg, torch.negative, "neg", "negative")

    def map(self, site: Site) -> Replacement:
        return Average()


class ProductMapper(LayerMapper):
    """Products: linear as long as only one factor varies over time."""

    name = "product"
    claims = (operator.mul, torch.mul, torch.multiply, "mul", "multiply")

    def map(self, site: Site) -> Replacement:
        return Product()


class QuotientMapper(LayerMapper):
    """Quotients: linear as long as the divisor is fixed."""

    name = "quotient"
    claims = (operator.truediv, torch.div, torch.divide, torch.true_divide, "div", "divide", "true_divide")

    def map(self, site: Site) -> Replacement:
        if site.argument("rounding_mode", 2) is not None:
            return Refuse("it rounds, which is not linear", "divide without rounding_mode")
        return Product(divisor=1)


class MatrixProductMapper(LayerMapper):
    """Matrix products: linear as long as only one factor varies over time."""

    name = "matrix-product"
    claims = (operator.matmul, torch.matmul, torch.mm, torch.bmm, torch.einsum, "matmul", "mm", "bmm")

    def map(self, site: Site) -> Replacement:
        return Product(elementwise=False)


def _has_numbers(site: Site) -> bool:
    """True if an operand is a plain number, which a scale would have to divide as well."""
    operands = (*site.args[:2], site.kwargs.get("other"))
    return any(isinstance(operand, (int, float)) for operand in operands)


@hookimpl
def ann2snn_layer_mappers() -> list[type[LayerMapper]]:
    return [
        AdditionMapper,
        BatchNormMapper,
        BoundedReLUMapper,
        DropoutMapper,
        StochasticDepthMapper,
        FunctionalWeightedMapper,
        LeakyReLUMapper,
        LinearMapper,
        MatrixProductMapper,
        NegationMapper,
        PaddingMapper,
        ProductMapper,
        QuotientMapper,
        ReLUMapper,
        RearrangeMapper,
        ThresholdMapper,
        WeightedMapper,
    ]
