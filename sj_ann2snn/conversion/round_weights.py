"""Rounds weights so that the currents of spikes do not depend on the order of summation."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..compat import is_neuron
from ..layers import InPlaceNeuron, Scaler, Stepwise
from ..support.exact_sums import BINARY, DIGITS, Range, averaged_by_halves, exact_grid, fits_levels
from .graph.weights import output_factor, with_parameters

__all__ = ["by_output", "round_to_grid", "round_weights"]

LARGEST_SHORT = (1 << 15) - 1
"""Of the integers of 16 bits."""


def round_weights(snn: fx.GraphModule) -> None:
    """Round the weights of the layers whose currents come from spikes; see `round_to_grid`.

    Graded spikes count if they are whole numbers (`InPlaceNeuron.output_range`); others take finer values than the
    rounding, so they would gain nothing. Scales of such spikes lose the digits by which their products are longer.
    """
    for node in snn.graph.nodes:
        if node.op != "call_module":
            continue
        neurons = _neurons_before(node, snn)
        ranges = [_output_range(neuron) for neuron, _ in neurons]
        known = [found for found in ranges if found is not None]
        if not known or len(known) < len(ranges):
            continue
        outputs = min(low for low, _ in known), max(high for _, high in known)
        averaged = max(number for _, number in neurons)
        layer = snn.get_submodule(str(node.target))
        rounded = _round_scale(layer, outputs) if isinstance(layer, Scaler) else round_to_grid(layer, averaged, outputs)
        snn.set_submodule(str(node.target), rounded)


def _output_range(neuron: nn.Module) -> Range | None:
    """The range of its spikes, if they are whole numbers behind which sums can be exact."""
    if is_neuron(neuron):
        return BINARY
    found = neuron.output_range if isinstance(neuron, InPlaceNeuron) else None
    return found if found is not None and fits_levels(found) else None


def _neurons_before(node: fx.Node, snn: fx.GraphModule) -> list[tuple[nn.Module, int]]:
    """The neurons whose spikes reach `node` through no other weights, and how many of them average pools take together
    on the way."""
    found: list[tuple[nn.Module, int]] = []
    seen: set[tuple[fx.Node, int]] = set()
    waiting = [(source, 1) for source in node.all_input_nodes]
    while waiting:
        source, averaged = waiting.pop()
        if (source, averaged) in seen:
            continue
        seen.add((source, averaged))
        module = snn.get_submodule(str(source.target)) if source.op == "call_module" else None
        if module is not None and (is_neuron(module) or isinstance(module, InPlaceNeuron)):
            found.append((module, averaged))
        elif not isinstance(module, (nn.Linear, _ConvNd)):
            taken = averaged_by_halves(module.operation if isinstance(module, Stepwise) else module)
            waiting.extend((one, averaged * taken) for one in source.all_input_nodes)
    return found


def round_to_grid(layer: nn.Module, averaged: int = 1, outputs: Range = BINARY) -> nn.Module:
    """A copy of a Linear, Conv or ConvTranspose layer whose currents, for spikes, do not depend on the summation order.

    The weights and the bias of each output channel are rounded to multiples of a power of two. It is so coarse that
    any sum of them is exact. The currents, and so the spikes, are then the same to the last bit step by step, over all
    steps at once, for any batch and by any loop. Weights move by at most 2**-25 (in single precision) of the sum of
    a channel's weights, times `averaged` and the largest of the `outputs`. For graded spikes, the weights of
    convolutions of images are integers of 16 bits times that power, which moves them by at most 2**-16 of the largest.
    Other layers are left as they are.

    Args:
        layer: The layer.
        averaged: How many spikes are averaged into one input, a power of two: the products are that much finer.
        outputs: The smallest and the largest spike.
    """
    if not isinstance(layer, (nn.Linear, _ConvNd)) or layer.weight.dtype not in DIGITS:
        return layer
    weight = layer.weight.detach().double()
    rows = by_output(layer, weight)
    if outputs != BINARY and isinstance(layer, nn.Conv2d) and layer.weight.dtype == torch.float32:
        weight = _round(weight, output_factor(layer, weight, _short_grid(rows)))
        rows = by_output(layer, weight)
    bias = torch.zeros(len(rows)).to(weight) if layer.bias is None else layer.bias.detach().double()
    grid = exact_grid(rows, bias, layer.weight.dtype, outputs)
    if grid is None:
        return layer  # running the network reports it
    weights = _round(weight, output_factor(layer, weight, grid * averaged)).to(layer.weight.dtype)
    return with_parameters(layer, weights, None if layer.bias is None else _round(layer.bias, grid))


def _short_grid(rows: Tensor) -> Tensor:
    """The finest power of two for each row of which all its numbers are multiples by integers of 16 bits."""
    largest = rows.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny)
    return torch.exp2(torch.ceil(torch.log2(largest / LARGEST_SHORT)))


def _round_scale(scaler: Scaler, outputs: Range) -> Scaler:
    """The scaler with so few digits that a product with a spike is not rounded."""
    largest = max(map(abs, outputs))
    if largest == 1 or scaler.scale.dtype not in DIGITS:
        return scaler
    mantissa, exponent = torch.frexp(scaler.scale)
    steps = 2.0 ** (DIGITS[scaler.scale.dtype] - largest.bit_length())
    return Scaler(torch.ldexp((mantissa * steps).round() / steps, exponent))


def by_output(layer: nn.Module, weight: Tensor) -> Tensor:
    """The weights ``[out, everything that may be added up there]``."""
    if not isinstance(layer, _ConvTransposeNd):
        return weight.flatten(1)
    per_group = weight.reshape(layer.groups, -1, *weight.shape[1:])
    return per_group.transpose(1, 2).flatten(0, 1).flatten(1)


def _round(values: Tensor, grid: Tensor) -> Tensor:
    return ((values.detach().double() / grid).round() * grid).to(values.dtype)
