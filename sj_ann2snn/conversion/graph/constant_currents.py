"""What a layer with weights makes of a map that is the same for every sample and whose channels share one form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from .weights import summed_inputs

__all__ = ["ConstantCurrent", "depends_on_place"]


def depends_on_place(layer: nn.Module) -> bool:
    """True if a layer turns a constant map into one that is not: at the border, or between the steps of a stride."""
    if isinstance(layer, _ConvTransposeNd):
        return True
    if not isinstance(layer, _ConvNd) or layer.padding_mode != "zeros" or layer.padding == "valid":
        return False
    if layer.padding == "same":
        return any(size > 1 for size in layer.kernel_size)
    return any(layer.padding)


@dataclass(frozen=True)
class ConstantCurrent:
    """The result of a layer, without its bias, for the map ``values[c] * mask`` in its input channels c.

    Since all channels share the mask, a layer with a single input channel computes it.

    Attributes:
        kernel: The weights of that layer.
        calls: The functions that it consists of, each with its arguments behind the first.
    """

    kernel: Tensor
    calls: tuple[tuple[Callable[..., Tensor], tuple[Any, ...]], ...]

    @staticmethod
    def of(layer: Any, values: Tensor) -> ConstantCurrent:
        """The current of `layer` (Linear, Conv or ConvTranspose) for one value per channel, or a scalar."""
        kernel = summed_inputs(layer, values).to(layer.weight.dtype)
        if isinstance(layer, nn.Linear):
            return ConstantCurrent(kernel, ((F.linear, (kernel,)),))
        spatial = len(layer.kernel_size)
        if isinstance(layer, _ConvTransposeNd):
            options = (None, layer.stride, layer.padding, layer.output_padding, 1, layer.dilation)
            return ConstantCurrent(kernel, ((getattr(F, f"conv_transpose{spatial}d"), (kernel, *options)),))
        convolve = getattr(F, f"conv{spatial}d")
        if layer.padding_mode == "zeros":
            return ConstantCurrent(kernel, ((convolve, (kernel, None, layer.stride, layer.padding, layer.dilation)),))
        pads = tuple(layer._reversed_padding_repeated_twice)
        return ConstantCurrent(
            kernel,
            (
                (F.pad, (pads, layer.padding_mode)),
                (convolve, (kernel, None, layer.stride, 0, layer.dilation)),
            ),
        )

    def computed(self, mask: Tensor) -> Tensor:
        """The current for a mask ``[1, 1, ...]``."""
        for function, arguments in self.calls:
            mask = function(mask, *arguments)
        return mask

    def drawn(self, graph: fx.Graph, mask: fx.Node, kernel: fx.Node, name: str) -> fx.Node:
        """Nodes that compute it, at the graph's point of insertion."""
        for function, arguments in self.calls:
            given = tuple(kernel if one is self.kernel else one for one in arguments)
            mask = graph.create_node("call_function", function, (mask, *given), name=name)
        return mask
