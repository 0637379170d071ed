"""The plugins in this repository: what they provide, so that messages can name a plugin that is not installed.

`tests/repository/test_known_plugins.py` compares the table with the plugins themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "KNOWN_PLUGINS",
    "KnownPlugin",
    "operation_key",
    "provider_of",
    "provider_of_module",
    "provider_of_operation",
]


@dataclass(frozen=True)
class KnownPlugin:
    """What one distribution provides.

    Attributes:
        distribution: Its name.
        names: What users write to choose its classes, by hook; for a mode, also its example.
        operations: The operations that its mappers convert; see `operation_key`.
        lifts: Built-in mappers whose refusals it lifts.
    """

    distribution: str
    names: Mapping[str, tuple[str, ...]]
    operations: frozenset[str] = frozenset()
    lifts: frozenset[str] = field(default=frozenset())

    def __str__(self) -> str:
        return f"{self.distribution} (in a copy of the repository: pip install . ./plugins/{self.distribution})"


_ANALOG = """
    bmm celu clamp clamp_max clamp_min clip cos div divide einsum elu erf exp gelu glu group_norm groupnorm hardshrink
    hardsigmoid hardswish hardtanh instance_norm instancenorm1d instancenorm2d instancenorm3d layer_norm layernorm
    linalg_vector_norm local_response_norm localresponsenorm log log_sigmoid log_softmax logsigmoid logsoftmax logsumexp
    matmul maximum minimum mish mm mul multiheadattention multiply norm normalize patch_merging_pad pow
    reciprocal rms_norm rmsnorm rsqrt scaled_dot_product_attention selu shifted_window_attention sigmoid silu sin
    softmax softmax2d softmin softplus softshrink softsign sqrt square std tanh tanhshrink true_divide truediv var
"""
_ADAPTIVE_MAXPOOL = """
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d adaptivemaxpool1d adaptivemaxpool2d adaptivemaxpool3d
    amax
"""

KNOWN_PLUGINS = (
    KnownPlugin(
        "sj-ann2snn-adaptive-maxpool",
        {"ann2snn_layer_mappers": ("adaptive-max-pool", "spatial-max")},
        frozenset(_ADAPTIVE_MAXPOOL.split()),
    ),
    KnownPlugin(
        "sj-ann2snn-analog",
        {
            "ann2snn_layer_mappers": (
                "analog-activation",
                "analog-attention",
                "analog-clamp",
                "analog-function",
                "analog-matrix-product",
                "analog-normalization",
                "analog-product",
                "analog-quotient",
                "patch-merging",
            )
        },
        frozenset(_ANALOG.split()),
        frozenset({"bounded-relu"}),
    ),
    KnownPlugin("sj-ann2snn-burst", {"ann2snn_neurons": ("burst",)}),
    KnownPlugin(
        "sj-ann2snn-calibration",
        {
            "ann2snn_normalizations": ("low-latency", "staircase"),
            "ann2snn_corrections": ("joint", "layer-by-layer", "snn-calibration"),
        },
    ),
    KnownPlugin("sj-ann2snn-differential", {"ann2snn_neurons": ("differential",)}),
    KnownPlugin("sj-ann2snn-ltb", {"ann2snn_normalizations": ("ltb",)}),
    KnownPlugin(
        "sj-ann2snn-multithreshold",
        {"ann2snn_normalizations": ("multi-threshold",), "ann2snn_neurons": ("multi-threshold",)},
    ),
    KnownPlugin("sj-ann2snn-nir", {"ann2snn_exporters": ("nir",)}),
    KnownPlugin("sj-ann2snn-offsets", {"ann2snn_neurons": ("cos",), "ann2snn_corrections": ("ftbc",)}),
    KnownPlugin("sj-ann2snn-onnx", {"ann2snn_exporters": ("onnx",)}),
    KnownPlugin("sj-ann2snn-sigma", {"ann2snn_normalizations": ("mean+3sigma", "mean+sigma")}),
    KnownPlugin("sj-ann2snn-signed", {"ann2snn_neurons": ("signed",)}),
    KnownPlugin(
        "sj-ann2snn-spikenorm",
        {"ann2snn_normalizations": ("spike-norm",), "ann2snn_corrections": ("spike-norm",)},
    ),
)


def operation_key(operation: type | Callable[..., Any] | str) -> str:
    """The name under which the table lists an operation, however it is written.

    >>> import torch
    >>> operation_key(torch.nn.SiLU), operation_key(torch.nn.functional.silu), operation_key("softmax")
    ('silu', 'silu', 'softmax')
    """
    name = operation if isinstance(operation, str) else getattr(operation, "__name__", type(operation).__name__)
    return name.rpartition(".")[2].strip("_").lower()


def provider_of(hook: str, name: str) -> KnownPlugin | None:
    """The plugin that provides what users call `name`."""
    wanted = name.strip().lower()
    return next((one for one in KNOWN_PLUGINS if wanted in one.names.get(hook, ())), None)


def provider_of_operation(operation: type | Callable[..., Any] | str) -> KnownPlugin | None:
    """The plugin that converts an operation of torch; a layer of another package is not what its name says."""
    if isinstance(operation, type) and not operation.__module__.startswith(("torch.", "torchvision.")):
        return None
    key = operation_key(operation)
    return next((one for one in KNOWN_PLUGINS if key in one.operations), None)


def provider_of_module(qualified: str) -> KnownPlugin | None:
    """The plugin that a class belongs to, by its qualified name.

    >>> print(provider_of_module("sj_ann2snn_burst.neuron.BurstNeuron"))
    sj-ann2snn-burst (in a copy of the repository: pip install . ./plugins/sj-ann2snn-burst)
    """
    package = re.sub("_", "-", qualified.partition(".")[0])
    return next((one for one in KNOWN_PLUGINS if one.distribution == package), None)
