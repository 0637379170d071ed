"""Rounds weights so that it does not matter in which order the currents of spikes are added up."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..compat import is_neuron
from ..layers import InPlaceNeuron
from .graph.weights import with_parameters

__all__ = ["round_to_grid", "round_weights"]

DIGITS = {torch.float32: 24, torch.float64: 53}
"""Binary digits of a number."""

TINIEST = 2.0**-100
"""Sum of weights below which they may as well be zero."""


def round_weights(snn: fx.GraphModule) -> None:
    """Round the weights of the convolutions whose currents come from binary spikes; see `round_to_grid`.

    Graded spikes are finer than the rounding and gain nothing from it.
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

    For each output channel the weights and the bias are rounded to multiples of a power of two, so coarse that no sum
    of some of them needs more digits than a number has. The currents are then the same to the last bit step by step,
    over all steps at once, for any batch and by table lookup, and so are the spikes. Weights move by at most 2**-25 (in
    single precision) of the sum of a channel's weights. Other layers are left as they are.
    """
    if not isinstance(layer, _ConvNd) or isinstance(layer, _ConvTransposeNd) or layer.weight.dtype not in DIGITS:
        return layer
    weight = layer.weight.detach().double().flatten(1)
    bias = torch.zeros(len(weight)).to(weight) if layer.bias is None else layer.bias.detach().double()
    largest = torch.maximum(weight.clamp(min=0).sum(1), -weight.clamp(max=0).sum(1)) + bias.abs()
    if not bool(largest.isfinite().all()):
        return layer  # whoever runs the network is told
    grid = torch.exp2(torch.ceil(torch.log2(largest.clamp(min=TINIEST))) - DIGITS[layer.weight.dtype])
    weight_grid = grid.reshape(-1, *(1,) * (layer.weight.dim() - 1))
    return with_parameters(
        layer, _on_grid(layer.weight, weight_grid), None if layer.bias is None else _on_grid(layer.bias, grid)
    )


def _on_grid(values: Tensor, grid: Tensor) -> Tensor:
    return ((values.detach().double() / grid).round() * grid).to(values.dtype)
