"""Folds factors into the weights of layers: BatchNorm into the layer before it, scales into every layer."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ...contracts.replacements import Spike
from ...layers import ChannelAffine
from ...support.shapes import along_axis
from .records import TensorRecord

__all__ = [
    "batchnorm_factors",
    "broadcast_slope",
    "channel_axis",
    "foldable",
    "output_factor",
    "scaled_layer",
    "scaled_weight",
    "summed_inputs",
    "with_parameters",
]


CHUNK = 1 << 16
"""Number of weights to scale at a time."""


def foldable(module: nn.Module | None) -> bool:
    """True for layers whose weight layout is known here."""
    return isinstance(module, (nn.Linear, _ConvNd, ChannelAffine))


def channel_axis(module: nn.Module, ndim: int) -> int:
    """The channel axis of a layer's input and output."""
    return ndim - 1 if isinstance(module, nn.Linear) else 1


def scaled_layer(
    module: nn.Module,
    inputs: Tensor | None = None,
    outputs: Tensor | None = None,
    shift: Tensor | None = None,
) -> nn.Module:
    """A copy of `module` with ``W[o, i] * outputs[o] * inputs[i]`` and ``b[o] * outputs[o] + shift[o]``.

    Args:
        module: Linear, Conv, ConvTranspose (any groups) or ChannelAffine.
        inputs: Factor per input channel, or a scalar.
        outputs: Factor per output channel, or a scalar.
        shift: Added to the bias, per output channel.
    """
    weight: Tensor = module.weight.detach()  # type: ignore[operator]
    bias = None if module.bias is None else module.bias.detach().double()  # type: ignore[operator]
    factors = []
    if outputs is not None:
        factors.append(output_factor(module, weight, outputs.double()))
        bias = None if bias is None else bias * outputs.double().reshape(_bias_shape(bias, outputs))
    if inputs is not None:
        factors.append(_input_factor(module, weight, inputs.double()))
    if shift is not None:
        bias = shift.double() if bias is None else bias + shift.double().reshape(_bias_shape(bias, shift))
    return with_parameters(module, _product(weight, factors), None if bias is None else bias.to(weight.dtype))


def scaled_weight(module: nn.Module, weight: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
    """Other weights for `module`, scaled as `scaled_layer` scales its own, to the bit, and with gradients.

    Args:
        module: Linear, Conv or ConvTranspose (any groups).
        weight: In the shape of its weights.
        inputs: Factor per input channel, or a scalar.
        outputs: Factor per output channel, or a scalar.
    """
    factors = (output_factor(module, weight, outputs.double()), _input_factor(module, weight, inputs.double()))
    product = weight.double()
    for factor in factors:
        product = product * factor.to(weight.device)
    return product.to(weight.dtype)


def summed_inputs(module: nn.Module, values: Tensor) -> Tensor:
    """What the weights make of one value per input channel, in float64.

    Args:
        module: Linear, Conv or ConvTranspose (any groups).
        values: One per input channel, or a scalar.

    Returns:
        A layer's weight for a single input channel and one group: ``[out, 1]``, ``[out, 1, ...]`` or, transposed,
        ``[1, out, ...]``.
    """
    weight: Tensor = module.weight.detach().double()  # type: ignore[operator]
    product = weight * _input_factor(module, weight, values.double())
    if isinstance(module, _ConvTransposeNd):
        by_group = product.reshape(module.groups, -1, *product.shape[1:]).sum(1)
        return by_group.flatten(0, 1).unsqueeze(0)
    return product.sum(1, keepdim=True)


def with_parameters(module: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """A copy of a layer with these parameters instead of its own."""
    layer = copy.copy(module)
    layer._parameters = dict(module._parameters)
    _set_parameter(layer, module, "weight", weight)
    if bias is not None:
        _set_parameter(layer, module, "bias", bias)
    return layer


def _product(weight: Tensor, factors: list[Tensor]) -> Tensor:
    """`weight` times all of `factors` in float64, rounded once, a few rows at a time to stay in the cache."""
    result = torch.empty_like(weight)
    rows = max(1, CHUNK * weight.shape[0] // max(1, weight.numel()))
    for start in range(0, weight.shape[0], rows):
        here = slice(start, start + rows)
        part = weight[here].double()
        for factor in factors:
            part = part * (factor[here] if factor.dim() and factor.shape[0] > 1 else factor)
        result[here] = part
    return result


def _set_parameter(layer: nn.Module, like: nn.Module, name: str, value: Tensor) -> None:
    old: Tensor = like.weight  # type: ignore[assignment]
    layer.register_parameter(name, nn.Parameter(value, requires_grad=old.requires_grad))


def _bias_shape(bias: Tensor, factor: Tensor) -> tuple[int, ...]:
    return (-1, *(1,) * (bias.dim() - 1)) if factor.dim() else ()


def output_factor(module: nn.Module, weight: Tensor, factor: Tensor) -> Tensor:
    """A factor per output channel of a layer, in a shape that broadcasts over its weights; a scalar stays a scalar."""
    if not factor.dim():
        return factor
    if isinstance(module, _ConvTransposeNd):
        # [in, out / groups, ...], with the input channels of a group next to each other
        per_group = factor.reshape(module.groups, 1, -1)
        per_group = per_group.expand(-1, weight.shape[0] // module.groups, -1).flatten(0, 1)
        return per_group.reshape(*per_group.shape, *(1,) * (weight.dim() - 2))
    return along_axis(factor, weight.dim())


def _input_factor(module: nn.Module, weight: Tensor, factor: Tensor) -> Tensor:
    if not factor.dim():
        return factor
    if isinstance(module, (_ConvTransposeNd, ChannelAffine)):
        return along_axis(factor, weight.dim())
    if isinstance(module, _ConvNd):
        # [out, in / groups, ...], with the output channels of a group next to each other
        per_group = factor.reshape(module.groups, 1, -1)
        per_group = per_group.expand(-1, weight.shape[0] // module.groups, -1).flatten(0, 1)
        return per_group.reshape(*per_group.shape, *(1,) * (weight.dim() - 2))
    return factor.reshape(1, -1)


def batchnorm_factors(
    mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """``γ/σ`` and ``β - μγ/σ`` of a BatchNorm with fixed statistics, as float64."""
    factor = torch.rsqrt(variance.detach().double() + eps)
    if weight is not None:
        factor = factor * weight.detach().double()
    shift = -mean.detach().double() * factor
    if bias is not None:
        shift = shift + bias.detach().double()
    return factor, shift


def broadcast_slope(spike: Spike, activation: TensorRecord) -> Tensor:
    """The slope in the activation's dtype: a scalar, or ``[C, 1, 1]`` without a sample dimension."""
    slope = torch.as_tensor(spike.negative_slope, dtype=activation.dtype).detach()
    return slope.reshape(-1, *(1,) * (len(activation.shape) - 2)) if slope.numel() > 1 else slope.reshape(())
