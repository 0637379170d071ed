"""Why well-known operations have no exact spiking counterpart, and what helps.

Used only for operations that no mapper claims, so that a plugin can claim them without a conflict.
"""

from __future__ import annotations

from ...contracts.site import Site

__all__ = ["explain"]

_SMOOTH = """
    silu swish hardswish gelu mish elu celu selu softplus softsign tanh tanhshrink hardshrink softshrink logsigmoid
    glu sigmoid hardsigmoid exp log sqrt rsqrt pow square erf sin cos
"""
_NORMALIZING = """
    groupnorm group_norm layernorm layer_norm instancenorm1d instancenorm2d instancenorm3d instance_norm
    localresponsenorm local_response_norm rmsnorm rms_norm normalize
"""
_SOFTMAX = "softmax log_softmax logsoftmax softmin softmax2d"
_SELECTING = "maximum minimum max min amax amin argmax topk sort median where masked_fill"
_ATTENDING = """
    multiheadattention multi_head_attention_forward scaled_dot_product_attention lstm gru rnn lstmcell grucell
"""
_POOLING = """
    adaptivemaxpool1d adaptivemaxpool2d adaptivemaxpool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    lppool2d fractionalmaxpool2d
"""

_REASONS = (
    (
        _SMOOTH,
        "it is a smooth curve, and its mean over spikes is not its value at their mean",
        "Retrain with ReLU, or install a plugin that claims it",
    ),
    (
        _NORMALIZING,
        "it divides by statistics of its current input, which spikes change at every step",
        "Retrain with BatchNorm, or install a plugin that claims it",
    ),
    (
        _SOFTMAX,
        "it is not linear over time",
        "Remove it if it ends a classifier (the order of the classes stays the same; from_onnx(outputs=...) ends a "
        "network before it), or install a plugin that claims it",
    ),
    (_SELECTING, "it selects by values that change with every spike", "Replace it with max pooling or ReLU"),
    (
        _ATTENDING,
        "it multiplies values that vary over time",
        "Install a plugin that claims it, or convert only part of the network with convert_only",
    ),
    (_POOLING, "no installed mapper knows how to pool spikes this way", "Use MaxPool with a fixed kernel"),
)
_WHY = {name: (why, help) for names, why, help in _REASONS for name in names.split()}

_UNKNOWN = (
    "no installed mapper knows it, so nothing says that it is linear over time",
    "Replace it, install a plugin that claims it (`sj-ann2snn plugins`), or name its module in leaf_modules if it is "
    "linear over time",
)


def explain(site: Site) -> tuple[str, str]:
    """Why `site`, which no mapper claims, is refused, and what would help."""
    name = site.operation_name.rsplit(".", 1)[-1].strip("_").lower()
    return _WHY.get(name, _UNKNOWN)
