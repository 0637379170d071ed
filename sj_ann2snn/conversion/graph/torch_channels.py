"""What torch's own operations do to channels, by their names."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["ChannelRule", "rule_of"]


class ChannelRule(enum.Enum):
    """What an operation does to channels."""

    FIRST = "the result has new channels in dimension 1"
    LAST = "the result has new channels in the last dimension"
    KEPT = "every element stays in the channel of the operands' elements at its place"
    NORMALIZED = "kept; along the last dimension if the input's channels are not known"
    GATED = "as for the products of the two halves of the input"
    REDUCED = "channels stay where they are, except along the reduced dimensions"
    MATMUL = "a matrix product"
    EINSUM = "a sum of products, written as an equation"
    ATTENTION = "a weighted mean of the values, whose channels are kept"


def _split(names: str) -> frozenset[str]:
    return frozenset(names.split())


_NAMES: dict[ChannelRule, frozenset[str]] = {
    ChannelRule.FIRST: _split(
        "conv1d conv2d conv3d convtranspose1d convtranspose2d convtranspose3d batchnorm batchnorm1d batchnorm2d "
        "batchnorm3d syncbatchnorm groupnorm instancenorm instancenorm1d instancenorm2d instancenorm3d fold unfold "
        "pixelshuffle pixelunshuffle channelshuffle nativechannelshuffle"
    ),
    ChannelRule.LAST: _split(
        "linear bilinear nondynamicallyquantizablelinear embedding embeddingbag multiheadattention rnn lstm gru "
        "transformerencoderlayer transformerencoder transformerdecoderlayer transformerdecoder transformer"
    ),
    ChannelRule.NORMALIZED: _split("layernorm rmsnorm"),
    ChannelRule.GATED: _split("glu"),
    ChannelRule.MATMUL: _split("matmul mm bmm"),
    ChannelRule.EINSUM: _split("einsum"),
    ChannelRule.ATTENTION: _split("scaleddotproductattention"),
    ChannelRule.REDUCED: _split("amax amin logsumexp mean norm prod std sum var vectornorm"),
    ChannelRule.KEPT: _split(
        "add iadd sub isub rsub subtract mul imul multiply truediv itruediv truedivide div divide neg negative pow "
        "square sqrt rsqrt reciprocal exp expm1 log log1p log2 log10 abs absolute sign sin cos tan tanh atan asin acos "
        "sinh cosh erf erfc sigmoid round floor ceil trunc maximum minimum where maskedfill lerp addcmul addcdiv "
        "relu relu6 leakyrelu prelu rrelu elu selu celu gelu silu mish hardtanh hardswish hardsigmoid hardshrink "
        "softshrink tanhshrink softplus softsign logsigmoid threshold clamp clampmin clampmax clip "
        "softmax softmin softmax2d logsoftmax localresponsenorm normalize cumsum "
        "dropout dropout1d dropout2d dropout3d alphadropout featurealphadropout identity clone detach contiguous "
        "float double half bfloat16 to type typeas cpu cuda zeroslike oneslike fulllike randlike"
    ),
}

_BY_NAME = {name: rule for rule, names in _NAMES.items() for name in names}

_ROOTS = ("torch", "_operator", "operator", "builtins")


def rule_of(operation: type[nn.Module] | Callable[..., Any] | str) -> ChannelRule | None:
    """What an operation does to channels; None if it is not one of torch's, or not listed here.

    >>> import torch
    >>> rule_of(torch.nn.GroupNorm).name, rule_of(torch.nn.functional.linear).name, rule_of("add").name
    ('FIRST', 'LAST', 'KEPT')
    >>> rule_of(torch.nn.Softmax).name, rule_of(torch.fft.rfft)
    ('KEPT', None)
    """
    if isinstance(operation, str):
        name, home = operation, None
    else:
        name, home = getattr(operation, "__name__", ""), getattr(operation, "__module__", None)
    if operation == "unfold" or (home is not None and home.partition(".")[0] not in _ROOTS):
        return None  # the method `unfold` is not that function: it makes windows along a dimension
    return _BY_NAME.get(name.replace("_", "").lower())
