"""Rounds weights so that the currents of spikes do not depend on the order of summation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..compat import is_neuron
from ..layers import InPlaceNeuron
from ..support.shapes import along_axis
from .graph.weights import with_parameters

__all__ = ["round_to_grid", "round_weights"]

DIGITS = {torch.float32: 24, torch.float64: 53}
"""Significant binary digits of a number."""

TINIEST = 2.0**-100
"""Sums of weights below this count as zero."""


def round_weights(snn: fx.GraphModule) -> None:
    """Round the weights of the convolutions whose currents come from binary spikes; see `round_to_grid`.

    Graded spikes take finer values than the rounding, so they would gain nothing.
    """
    for node in snn.graph.nodes:
        if node.op != "call_module":
            continue
        neurons = list(_neurons_before(node, snn))
        if neurons and all(is_neuron(neuron) for neuron in neurons):
            snn.set_submodule(str(node.target), round_to_grid(snn.get_submodule(str(node.target))))


def _neurons_before(node: fx.Node, snn: fx.GraphModule) -> Iterator[nn.Module]:
    """The neurons whose spikes reach `node` through no other weights."""
    seen: set[fx.Node] = set()
    waiting = list(node.all_input_nodes)
    while waiting:
        source = waiting.pop()
        if source in seen:
            continue
        seen.add(source)
        module = snn.get_submodule(str(source.target)) if source.op == "call_module" else None
        if module is not None and (is_neuron(module) or isinstance(module, InPlaceNeuron)):
            yield module
        elif not isinstance(module, (nn.Linear, _ConvNd)):
            waiting.extend(source.all_input_nodes)


def round_to_grid(layer: nn.Module) -> nn.Module:
    """A copy of a convolution whose currents, for spikes, do not depend on the order of summation.

    The weights and the bias of each output channel are rounded to multiples of a power of two. It is so coarse that
    any sum of them is exact. The currents, and so the spikes, are then the same to the last bit step by step, over all
    steps at once, for any batch and by table lookup. Weights move by at most 2**-25 (in single precision) of the sum of
    a channel's weights. Other layers are left as they are.
    """
    if not isinstance(layer, _ConvNd) or isinstance(layer, _ConvTransposeNd) or layer.weight.dtype not in DIGITS:
        return layer
    weight = layer.weight.detach().double().flatten(1)
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().double()
    largest = torch.maximum(weight.clamp(min=0).sum(1), -weight.clamp(max=0).sum(1)) + bias.abs()
    if not bool(largest.isfinite().all()):
        return layer  # running the network reports it
    grid = torch.exp2(torch.ceil(torch.log2(largest.clamp(min=TINIEST))) - DIGITS[layer.weight.dtype])
    weight_grid = along_axis(grid, layer.weight.dim())
    return with_parameters(
        layer, _round(layer.weight, weight_grid), None if layer.bias is None else _round(layer.bias, grid)
    )


def _round(values: Tensor, grid: Tensor) -> Tensor:
    return ((values.detach().double() / grid).round() * grid).to(values.dtype)
