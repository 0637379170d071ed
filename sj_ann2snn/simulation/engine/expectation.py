"""An estimate of a network's largest activation, before anything has run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from ...support.shapes import along, spatial_of

__all__ = ["expected_elements"]


def expected_elements(graph: fx.Graph, modules: Mapping[str, nn.Module], inputs: Sequence[Any]) -> int:
    """About how many elements the largest activation of one sample has: what channels and strides say of it.

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
            module = modules.get(str(node.target)) if node.op == "call_module" else None
            found[node] = _behind(module, channels, places)
    return math.ceil(max((channels * places for channels, places in found.values()), default=0))


def _behind(module: Any, channels: int, places: float) -> tuple[int, float]:
    """Channels and positions behind a module."""
    if isinstance(module, nn.Linear):
        return module.out_features, 1.0
    stride = getattr(module, "stride", None)
    if isinstance(stride, (int, tuple)):
        step = math.prod(along(spatial_of(module), stride)) if isinstance(stride, int) else math.prod(stride)
        places = places * step if getattr(module, "transposed", False) else places / step
    return (module.out_channels if isinstance(module, _ConvNd) else channels), places
