"""An estimate of a network's largest activation, before anything has run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.pooling import _AvgPoolNd, _MaxPoolNd

from ...layers import CumulativeMaxPool, Stepwise
from ...support.shapes import along, spatial_of

__all__ = ["expected_elements"]


GROWING = nn.Upsample, nn.Fold, nn.PixelShuffle, _ConvTransposeNd
"""Layers that make more positions than they get."""


def expected_elements(graph: fx.Graph, modules: Mapping[str, nn.Module], inputs: Sequence[Any]) -> int:
    """About how many elements the largest activation of one sample has: what channels and strides say of it. 0 if some
    layer makes more positions than it gets, which is not followed.

    >>> snn = fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU()))
    >>> expected_elements(snn.graph, dict(snn.named_modules()), [__import__("torch").rand(2, 3, 8, 8)])
    192

    Args:
        graph: The network's.
        modules: Its modules.
        inputs: Its inputs ``[N, channels, ...]``.
    """
    given = iter(inputs)
    found: dict[fx.Node, tuple[int, float]] = {}
    """Channels and positions."""
    for node in graph.nodes:
        if node.op == "placeholder":
            x = next(given, None)
            if isinstance(x, Tensor) and x.dim() > 1:
                found[node] = x.shape[1], float(math.prod(x.shape[2:]))
            continue
        sources = [found[source] for source in node.all_input_nodes if source in found]
        if sources:
            channels, places = max(sources, key=math.prod)
            module: Any = modules.get(str(node.target)) if node.op == "call_module" else None
            operation = module.operation if isinstance(module, Stepwise) else module
            if isinstance(operation, GROWING) or operation is F.interpolate:
                return 0
            found[node] = _behind(operation, channels, places)
    return math.ceil(max((channels * places for channels, places in found.values()), default=0))


def _behind(module: Any, channels: int, places: float) -> tuple[int, float]:
    """Channels and positions behind a module."""
    if isinstance(module, nn.Linear):
        return channels, module.out_features
    if isinstance(module, _ConvNd):
        return module.out_channels, places / math.prod(module.stride)
    if isinstance(module, (_MaxPoolNd, _AvgPoolNd, CumulativeMaxPool)):
        stride: Any = module.stride
        return channels, places / math.prod(along(spatial_of(module), stride))
    return channels, places
