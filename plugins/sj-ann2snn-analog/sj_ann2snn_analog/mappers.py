"""What operations become that are not linear over time and that no neuron can replace."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sj_ann2snn import Analog, LayerMapper, Linear, Product, Refuse, Replacement, Site, Spike, Varies

from .layers import TemporalDifference

__all__ = ["MAPPERS"]

ANALOG = Analog(TemporalDifference, "temporal difference")

CHANNELS_LAST = Analog(TemporalDifference, "temporal difference", channel_axis=-1)

SIGNED = Spike(negative_slope=1.0, analog=ANALOG)
"""The operation, followed by the difference of two neurons, which carries values of either sign."""


class ActivationMapper(LayerMapper):
    """Smooth activations become temporal differences.

    >>> from sj_ann2snn import Site
    >>> ActivationMapper().map(Site("act", nn.GELU)).label
    'temporal difference'

    Args:
        analog_neuron: Put the difference of two neurons behind every smooth activation and normalization, so that the
            next layer receives spikes.
    """

    name = "analog-activation"
    exports = (TemporalDifference,)
    claims = (
        nn.CELU,
        nn.ELU,
        nn.GELU,
        nn.GLU,
        nn.Hardshrink,
        nn.Hardswish,
        nn.LogSigmoid,
        nn.Mish,
        nn.SELU,
        nn.SiLU,
        nn.Softplus,
        nn.Softshrink,
        nn.Softsign,
        nn.Tanh,
        nn.Tanhshrink,
        F.celu,
        F.elu,
        F.gelu,
        F.glu,
        F.hardshrink,
        F.hardswish,
        F.logsigmoid,
        F.mish,
        F.selu,
        F.silu,
        F.softplus,
        F.softshrink,
        F.softsign,
        F.tanhshrink,
        torch.celu,
        torch.hardshrink,
        torch.selu,
        torch.tanh,
        "tanh",
    )

    def __init__(self, *, analog_neuron: bool = False) -> None:
        self.analog_neuron = analog_neuron

    def map(self, site: Site) -> Replacement:
        return SIGNED if self.analog_neuron else ANALOG


class NormalizationMapper(LayerMapper):
    """Normalization by a sample's own statistics becomes a temporal difference.

    Args:
        analog_neuron: As for `ActivationMapper`.
    """

    name = "analog-normalization"
    exports = (TemporalDifference,)
    claims = (
        nn.GroupNorm,
        nn.InstanceNorm1d,
        nn.InstanceNorm2d,
        nn.InstanceNorm3d,
        nn.LayerNorm,
        nn.LocalResponseNorm,
        nn.RMSNorm,
        F.group_norm,
        F.instance_norm,
        F.layer_norm,
        F.local_response_norm,
        F.normalize,
        F.rms_norm,
    )

    def __init__(self, *, analog_neuron: bool = False) -> None:
        self.analog_neuron = analog_neuron

    def map(self, site: Site) -> Replacement:
        return SIGNED if self.analog_neuron else ANALOG


class GateMapper(LayerMapper):
    """Gates, softmax and elementary functions become temporal differences."""

    name = "analog-function"
    exports = (TemporalDifference,)
    claims = (
        nn.Hardsigmoid,
        nn.LogSoftmax,
        nn.Sigmoid,
        nn.Softmax,
        nn.Softmax2d,
        nn.Softmin,
        F.hardsigmoid,
        F.log_softmax,
        F.softmax,
        F.softmin,
        operator.pow,
        torch.cos,
        torch.erf,
        torch.exp,
        torch.log,
        torch.log_softmax,
        torch.logsumexp,
        torch.maximum,
        torch.minimum,
        torch.norm,
        torch.pow,
        torch.reciprocal,
        torch.rsqrt,
        torch.sigmoid,
        torch.sin,
        torch.softmax,
        torch.sqrt,
        torch.square,
        torch.std,
        torch.var,
        torch.linalg.vector_norm,
        "cos",
        "erf",
        "exp",
        "log",
        "log_softmax",
        "logsumexp",
        "maximum",
        "minimum",
        "norm",
        "pow",
        "reciprocal",
        "rsqrt",
        "sigmoid",
        "sin",
        "softmax",
        "sqrt",
        "square",
        "std",
        "var",
    )

    def map(self, site: Site) -> Replacement:
        return ANALOG


class AttentionMapper(LayerMapper):
    """Attention becomes a temporal difference as a whole, including its linear maps.

    >>> from sj_ann2snn import Site
    >>> site = Site("attention", F.scaled_dot_product_attention, kwargs={"dropout_p": 0.1})
    >>> AttentionMapper().map(site).why
    'it is random even at inference (a dropout of 0.1 is fixed in the code)'
    """

    name = "analog-attention"
    exports = (TemporalDifference,)
    claims = (
        nn.MultiheadAttention,
        F.scaled_dot_product_attention,
        "torchvision.models.swin_transformer.shifted_window_attention",
    )

    def map(self, site: Site) -> Replacement:
        dropout = self._dropout(site)
        if dropout:
            return Refuse(
                f"it is random even at inference (a dropout of {dropout} is fixed in the code)",
                "let the dropout depend on self.training",
            )
        # With its linear maps, attention has its channels last; the bare function leaves them in place.
        return ANALOG if site.operation is F.scaled_dot_product_attention else CHANNELS_LAST

    @staticmethod
    def _dropout(site: Site) -> Any:
        if site.module is not None:
            return 0.0  # its own training flag is off
        if site.operation is F.scaled_dot_product_attention:
            return site.argument("dropout_p", 4, 0.0)
        if not site.argument("training", 12, True):
            return 0.0
        return site.argument("attention_dropout", 7, 0.0) or site.argument("dropout", 8, 0.0)


class ProductMapper(LayerMapper):
    """The product of two spike streams becomes a temporal difference; other products are kept."""

    name = "analog-product"
    exports = (TemporalDifference,)
    claims = (operator.mul, torch.mul, torch.multiply, "mul", "multiply")
    replaces = ("product",)

    def map(self, site: Site) -> Replacement:
        return ANALOG if _varying(site) > 1 else Product()


class MatrixProductMapper(LayerMapper):
    """The matrix product of two spike streams becomes a temporal difference; other products are kept."""

    name = "analog-matrix-product"
    exports = (TemporalDifference,)
    claims = (operator.matmul, torch.matmul, torch.mm, torch.bmm, torch.einsum, "matmul", "mm", "bmm")
    replaces = ("matrix-product",)

    def map(self, site: Site) -> Replacement:
        return ANALOG if _varying(site) > 1 else Product(elementwise=False)


class QuotientMapper(LayerMapper):
    """A quotient with a spike stream as its divisor becomes a temporal difference; other quotients are kept."""

    name = "analog-quotient"
    exports = (TemporalDifference,)
    claims = (operator.truediv, torch.div, torch.divide, torch.true_divide, "div", "divide", "true_divide")
    replaces = ("quotient",)

    def map(self, site: Site) -> Replacement:
        if site.argument("rounding_mode", 2) is not None:
            return Refuse("it rounds, which jumps from one integer to the next", "divide without rounding_mode")
        divisor = site.argument("other", 1)
        return ANALOG if getattr(divisor, "varies", None) is Varies.VARYING else Product(divisor=1)


class ClampMapper(LayerMapper):
    """Clamps that no neuron can replace, because they do not begin at zero, become temporal differences."""

    name = "analog-clamp"
    exports = (TemporalDifference,)
    claims = (
        nn.Hardtanh,
        F.hardtanh,
        torch.clamp,
        torch.clamp_max,
        torch.clamp_min,
        torch.clip,
        "clamp",
        "clamp_max",
        "clamp_min",
        "clip",
    )
    replaces = ("bounded-relu",)

    def map(self, site: Site) -> Replacement:
        low, high = self._bounds(site)
        if isinstance(low, (int, float)) and low == 0 and (high is None or isinstance(high, (int, float))):
            return Spike(maximum=None if high is None else float(high))
        return ANALOG

    @staticmethod
    def _bounds(site: Site) -> tuple[Any, Any]:
        if site.operation in (nn.Hardtanh, F.hardtanh):
            return site.argument("min_val", 1, -1.0), site.argument("max_val", 2, 1.0)
        if site.operation in (torch.clamp_min, "clamp_min"):
            return site.argument("min", 1), None
        if site.operation in (torch.clamp_max, "clamp_max"):
            return None, site.argument("max", 1)
        return site.argument("min", 1), site.argument("max", 2)


class PatchMergingMapper(LayerMapper):
    """torchvision's merging of patches in Swin transformers joins neighbours, a rearrangement."""

    name = "patch-merging"
    claims = ("torchvision.models.swin_transformer._patch_merging_pad",)

    def map(self, site: Site) -> Replacement:
        return Linear()


def _varying(site: Site) -> int:
    """How many arguments vary over time."""
    return sum(value.varies is Varies.VARYING for value in site.values)


MAPPERS: tuple[type[LayerMapper], ...] = (
    ActivationMapper,
    AttentionMapper,
    ClampMapper,
    GateMapper,
    MatrixProductMapper,
    NormalizationMapper,
    PatchMergingMapper,
    ProductMapper,
    QuotientMapper,
)
