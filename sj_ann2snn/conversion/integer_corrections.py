"""Corrects an integer network for what rounding has changed: weights make up for each other, biases for the mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from ..compat import is_neuron
from ..integers.recording import call_node
from ..layers import CumulativeMax, CumulativeMaxPool, InitialPotential, IntegerIF, Stepwise
from ..support.structures import is_built

__all__ = ["RoundedLayer", "correct_rounding"]

MOST_ROWS = 1 << 15
"""Positions of images to learn from, in each layer."""

MOST_COLUMNS = 1 << 12
"""Inputs of a neuron up to which weights make up for each other: the work grows with the cube."""

BLOCK = 64
"""Columns of weights to round before the others make up for them."""

DAMPING = 0.01
"""Added to the second moments of the inputs, as a share of their mean."""


@dataclass(frozen=True)
class RoundedLayer:
    """How the weights of a layer were rounded.

    Attributes:
        exact: ``[out, ...]`` in float64: the weights before rounding, in steps of the integers that stand for them.
        most: Largest integer.
        grid: ``[out]``: what an integer of them counts in the layer's weight, a power of two.
        unit: ``[out]``: value of one unit of the layer's result.
    """

    exact: Tensor
    most: int
    grid: Tensor
    unit: Tensor


@torch.no_grad()
def correct_rounding(
    network: fx.GraphModule, plain: fx.GraphModule, inputs: Sequence[Tensor], layers: Mapping[str, RoundedLayer]
) -> None:
    """Round the weights of each layer again, so that they make up for each other's errors, and correct its bias, in
    place.

    The layers are visited in order of execution, each with what the corrected layers before it make of the samples.
    Neurons fire at their rates, ``clamp(current / threshold, 0, 1)``.

    Args:
        network: The network of integers.
        plain: The network that it was made of.
        inputs: Some samples of the calibration data.
        layers: The weighted layers to correct, by name.

    Source: Frantar et al. 2023, "GPTQ: accurate post-training quantization for generative pre-trained transformers"
    (weights); Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction" (biases,
    here with data).
    """
    wanted = {
        str(node.target): _mean(layer_of(plain, node), value)
        for node, value in _values(plain, inputs)
        if node.op == "call_module" and str(node.target) in layers
    }

    def before(node: fx.Node, read: Callable[[fx.Node], Any]) -> None:
        layer, rounded = layer_of(network, node), layers[str(node.target)]
        seen = _seen(layer, read(node.all_input_nodes[0]))
        if seen is not None:
            integers = compensated(rounded.exact.flatten(1), seen, rounded.most).reshape(rounded.exact.shape)
            grid = rounded.grid.reshape(-1, *(1,) * (integers.dim() - 1))
            layer.weight.copy_((integers * grid).to(layer.weight))

    def behind(node: fx.Node, value: Tensor) -> Tensor:
        layer, name = layer_of(network, node), str(node.target)
        off = (wanted[name] / layers[name].unit.to(value.device) - _mean(layer, value)).round()
        layer.bias += off.to(layer.bias)
        along = (-1, *(1,) * (value.dim() - 2)) if isinstance(layer, _ConvNd) else (-1,)
        return value + off.to(value).reshape(along)

    for _ in _values(network, inputs, layers, before, behind):
        pass


def compensated(exact: Tensor, seen: Tensor, most: int) -> Tensor:
    """Integers for weights, each rounded so as to make up for the errors of those before it.

    >>> compensated(torch.tensor([[0.4, 0.4]]).double(), torch.tensor([[1.0, 1.0], [2.0, 2.0]]), 7).sum()
    tensor(1., dtype=torch.float64)

    Args:
        exact: ``[out, in]``.
        seen: Inputs ``[any number, in]``.
        most: Largest integer.
    """
    moments = (seen.T @ seen).double().cpu() / max(1, len(seen))
    mean = moments.diagonal().mean()
    if not mean > 0:
        return exact.round().clamp(-most, most)
    moments.diagonal().add_(DAMPING * mean)
    order = moments.diagonal().argsort(descending=True)
    moments = moments[order][:, order]
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(moments)), upper=True)
    weight, found = exact[:, order].clone(), torch.empty_like(exact)
    columns = weight.shape[1]
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        errors = torch.empty(len(weight), stop - start, dtype=torch.float64)
        for column in range(start, stop):
            here = weight[:, column]
            integers = here.round().clamp(-most, most)
            found[:, order[column]] = integers
            error = (here - integers) / inverse[column, column]
            errors[:, column - start] = error
            weight[:, column + 1 : stop] -= error[:, None] * inverse[column, column + 1 : stop]
        weight[:, stop:] -= errors @ inverse[start:stop, stop:]
    return found


def _seen(layer: Any, x: Tensor) -> Tensor | None:
    """The inputs of each output of a layer, ``[positions, inputs]``; None for a layer of another kind."""
    if isinstance(layer, nn.Linear):
        rows = x.flatten(0, -2)
    elif isinstance(layer, nn.Conv2d) and layer.groups == 1 and not isinstance(layer.padding, str):
        images = x[:: max(1, x.shape[0] * x.shape[2] * x.shape[3] // MOST_ROWS)]
        geometry = layer.dilation, layer.padding, layer.stride
        rows = F.unfold(images, layer.kernel_size, *geometry).transpose(1, 2).flatten(0, 1)
    else:
        return None
    if rows.shape[1] > MOST_COLUMNS:
        return None
    return rows[:: max(1, len(rows) // MOST_ROWS)]


def layer_of(network: fx.GraphModule, node: fx.Node) -> Any:
    """The layer that a node calls."""
    module = network.get_submodule(str(node.target))
    return module.operation if isinstance(module, Stepwise) else module


def _mean(layer: Any, value: Tensor) -> Tensor:
    """The mean of every channel of a layer's result."""
    value = value.double()
    if isinstance(layer, _ConvNd):
        return value.movedim(1, -1).flatten(0, -2).mean(0)
    return value.flatten(0, -2).mean(0)


def _values(
    network: fx.GraphModule,
    inputs: Sequence[Tensor],
    layers: Mapping[str, Any] | None = None,
    before: Callable[[fx.Node, Callable[[fx.Node], Any]], None] | None = None,
    behind: Callable[[fx.Node, Any], Any] | None = None,
) -> Iterator[tuple[fx.Node, Any]]:
    """What every node yields at the neurons' rates; values that nothing reads any more are dropped.

    Args:
        network: The network.
        inputs: Samples, one value per input.
        layers: The layers for which the functions are called.
        before: Called before a layer runs.
        behind: Replaces the result of a layer.
    """
    values: dict[fx.Node, Any] = {}
    given = iter(inputs)
    last = {source: node for node in network.graph.nodes for source in node.all_input_nodes}
    for node in network.graph.nodes:
        if node.op == "output" or is_built(node):
            continue
        chosen = node.op == "call_module" and str(node.target) in (layers or ())
        if chosen and before is not None:
            before(node, values.__getitem__)
        if node.op == "placeholder":
            values[node] = next(given, node.args[0] if node.args else None)
        else:
            values[node] = _at_rates(network, node, values)
        if chosen and behind is not None:
            values[node] = behind(node, values[node])
        yield node, values[node]
        for source in node.all_input_nodes:
            if last[source] is node:
                del values[source]


def _at_rates(network: fx.GraphModule, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    if module is None or not node.args:
        return call_node(network, node, values.__getitem__)
    x: Any = values.get(node.args[0])  # type: ignore[arg-type]
    if isinstance(module, InitialPotential):
        return x
    if isinstance(module, (CumulativeMax, CumulativeMaxPool)):
        return module._pool(x)
    if isinstance(module, IntegerIF):
        return (x / module.threshold).clamp(0, 1)
    if is_neuron(module):
        return x.clamp(0, 1)
    return call_node(network, node, values.__getitem__)
