"""Synaptic operations of every way to multiply spikes by weights, against counts one spike and one output at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from sj_ann2snn import EvaluationResult, evaluate
from sj_ann2snn.layers.stepwise import Stepwise

from ..helpers.networks import Written, convert, spikes_of

STEPS = 7
SAMPLES = 5

Operation = Callable[[Tensor, Tensor], Tensor]


def flat(h: Tensor) -> Tensor:
    return h.flatten(1)


VECTOR, TOKENS, SIGNAL, IMAGE, VOLUME = (6,), (2, 6), (4, 7), (4, 5, 6), (2, 3, 3, 4)

PRODUCTS: dict[str, tuple[Operation, tuple[int, ...], tuple[int, ...]]] = {
    "F.linear": (F.linear, VECTOR, (3, 6)),
    "F.linear, over tokens": (F.linear, TOKENS, (3, 6)),
    "F.linear, by name": (lambda h, w: F.linear(input=h, weight=w), VECTOR, (3, 6)),
    "F.linear, masked weight": (lambda h, w: F.linear(h, w * (w > 0.6)), VECTOR, (3, 6)),
    "F.linear, normalized weight": (lambda h, w: F.linear(h, w / w.norm(dim=1, keepdim=True)), VECTOR, (3, 6)),
    "@": (lambda h, w: h @ w, VECTOR, (6, 3)),
    "@, over tokens": (lambda h, w: h @ w.t(), TOKENS, (3, 6)),
    "@, weight first": (lambda h, w: (w @ h.unsqueeze(2)).squeeze(2), VECTOR, (3, 6)),
    "torch.matmul": (torch.matmul, VECTOR, (6, 3)),
    "method matmul": (lambda h, w: h.matmul(w), VECTOR, (6, 3)),
    "torch.mm": (torch.mm, VECTOR, (6, 3)),
    "torch.bmm": (lambda h, w: torch.bmm(h, w.expand(h.shape[0], 6, 3)), TOKENS, (6, 3)),
    "torch.einsum": (lambda h, w: torch.einsum("ni,oi->no", h, w), VECTOR, (3, 6)),
    "torch.einsum, over tokens": (lambda h, w: torch.einsum("nti,tio->nto", h, w), TOKENS, (2, 6, 3)),
    "product and sum": (lambda h, w: (h.unsqueeze(1) * w).sum(2), VECTOR, (3, 6)),
    "F.conv1d": (F.conv1d, SIGNAL, (3, 4, 3)),
    "F.conv1d, stride beyond the kernel": (lambda h, w: F.conv1d(h, w, stride=3), SIGNAL, (3, 4, 2)),
    "F.conv2d": (F.conv2d, IMAGE, (3, 4, 3, 3)),
    "F.conv2d, padded": (lambda h, w: F.conv2d(h, w, padding=1), IMAGE, (3, 4, 3, 3)),
    "F.conv2d, padded to the same size": (lambda h, w: F.conv2d(h, w, padding="same"), IMAGE, (3, 4, 3, 3)),
    "F.conv2d, strided": (lambda h, w: F.conv2d(h, w, stride=2, padding=1), IMAGE, (3, 4, 3, 3)),
    "F.conv2d, dilated": (lambda h, w: F.conv2d(h, w, dilation=2), IMAGE, (3, 4, 2, 2)),
    "F.conv2d, grouped": (lambda h, w: F.conv2d(h, w, groups=2), IMAGE, (6, 2, 3, 3)),
    "F.conv2d, depthwise": (lambda h, w: F.conv2d(h, w, groups=4, padding=1), IMAGE, (4, 1, 3, 3)),
    "F.conv3d": (F.conv3d, VOLUME, (3, 2, 2, 2, 2)),
    "F.conv_transpose1d": (lambda h, w: F.conv_transpose1d(h, w, stride=2), SIGNAL, (4, 2, 3)),
    "F.conv_transpose2d": (lambda h, w: F.conv_transpose2d(h, w, stride=2, padding=1), IMAGE, (4, 2, 3, 3)),
    "F.conv_transpose2d, grouped": (lambda h, w: F.conv_transpose2d(h, w, groups=2), IMAGE, (4, 2, 2, 2)),
    "F.conv_transpose3d": (F.conv_transpose3d, VOLUME, (2, 1, 2, 2, 2)),
}
"""Every product of a hidden activation and a weight: the function, a sample's shape, the weight's shape."""

SCALINGS: dict[str, Operation] = {
    "h * w": lambda h, w: h * w,
    "h / w": lambda h, w: h / w,
    "h + w": lambda h, w: h + w,
    "h * 2": lambda h, w: h * 2.0,
    "average": lambda h, w: F.avg_pool1d(h.unsqueeze(1), 2).flatten(1),
}
"""What costs no synaptic operations."""


def reached(operation: Operation, shape: tuple[int, ...], weight: Tensor) -> Tensor:
    """For every element of a sample the number of outputs that change with it: one element at a time."""
    counts = torch.zeros(shape, dtype=torch.float64)
    nothing = operation(torch.zeros(1, *shape, dtype=torch.float64), weight)
    for place in itertools.product(*map(range, shape)):
        x = torch.zeros(1, *shape, dtype=torch.float64)
        x[(0, *place)] = 1.0
        counts[place] = (operation(x, weight) != nothing).sum()
    return counts


def measured(snn: nn.Module, x: Tensor) -> EvaluationResult:
    return evaluate(snn, [(x, torch.zeros(SAMPLES, dtype=torch.int64))], T=STEPS, progress=False)


def case(name: str) -> tuple[Operation, Tensor, Tensor, Tensor]:
    operation, shape, weight_shape = PRODUCTS[name]
    weight = torch.rand(weight_shape, dtype=torch.float64) / 2 + 0.5
    connections = reached(operation, shape, weight)
    if "masked" in name:
        connections.fill_(3.0)  # a weight of zero is a connection, as in a layer
    return operation, torch.randn(SAMPLES, *shape, dtype=torch.float64), weight, connections


@pytest.mark.parametrize("name", PRODUCTS)
def test_converted_products_are_counted_one_by_one(name: str) -> None:
    operation, x, weight, connections = case(name)
    ann = Written(lambda net, x: flat(operation(torch.relu(x), net.weight)), weight=nn.Parameter(weight))
    snn = convert(ann, x)
    (spikes,) = spikes_of(snn, x, STEPS).values()
    result = measured(snn, x)
    assert spikes.sum() > 0
    assert result.synops_per_sample * SAMPLES == pytest.approx((spikes * connections).sum().item())
    assert not result.not_counted


class Spiking(nn.Module):
    """A network that is no graph: it is run step by step."""

    def __init__(self, operation: Operation, weight: Tensor) -> None:
        super().__init__()
        self.operation = operation
        self.neuron = neuron.IFNode(v_threshold=1.0, v_reset=None)
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return flat(self.operation(self.neuron(x), self.weight))


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_networks_that_run_step_by_step(name: str) -> None:
    operation, x, weight, connections = case(name)
    snn = Spiking(operation, weight)
    (spikes,) = spikes_of(snn, x, STEPS).values()
    result = measured(snn, x)
    assert spikes.sum() > 0
    assert result.synops_per_sample * SAMPLES == pytest.approx((spikes * connections).sum().item())
    assert not result.not_counted


@pytest.mark.parametrize("name", SCALINGS)
def test_scaling_and_pooling_cost_nothing(name: str) -> None:
    operation, weight = SCALINGS[name], torch.rand(6, dtype=torch.float64) + 0.5
    x = torch.randn(SAMPLES, 6, dtype=torch.float64)
    ann = Written(lambda net, x: operation(torch.relu(x), net.weight), weight=nn.Parameter(weight))
    for snn in (convert(ann, x), Spiking(operation, weight)):
        result = measured(snn, x)
        assert result.spikes_per_sample > 0
        assert result.synops_per_sample == 0
        assert not result.not_counted


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "Conv2d, circular": lambda: nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular"),
    "Conv2d, reflected": lambda: nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect"),
    "Conv2d, replicated": lambda: nn.Conv2d(4, 3, 3, padding=(0, 1), padding_mode="replicate"),
    "Conv2d, same": lambda: nn.Conv2d(4, 3, 3, padding="same", dilation=2),
    "Conv2d, weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 3, 3)),
    "ConvTranspose2d, output padding": lambda: nn.ConvTranspose2d(4, 2, 3, stride=2, output_padding=1),
}
"""Layers whose connections depend on more than their weight."""


def products(layer: Any, shape: tuple[int, ...]) -> Tensor:
    """For every element of a sample the number of weights that it is multiplied by."""
    weight = torch.ones_like(layer.weight).double()
    counts = torch.zeros(shape, dtype=torch.float64)
    for place in itertools.product(*map(range, shape)):
        x = torch.zeros(1, *shape, dtype=torch.float64)
        x[(0, *place)] = 1.0
        if isinstance(layer, nn.ConvTranspose2d):
            y = F.conv_transpose2d(x, weight, None, layer.stride, output_padding=layer.output_padding)
        else:
            y = layer._conv_forward(x, weight, None)
        counts[place] = y.sum()
    return counts


@pytest.mark.parametrize("name", LAYERS)
def test_layers_with_other_borders_and_computed_weights(name: str) -> None:
    layer = LAYERS[name]().double()
    x = torch.randn(SAMPLES, *IMAGE, dtype=torch.float64)
    wanted = products(layer, IMAGE)
    stepping = nn.Sequential(neuron.IFNode(v_threshold=1.0, v_reset=None), layer, nn.Flatten())
    (spikes,) = spikes_of(stepping, x, STEPS).values()
    assert measured(stepping, x).synops_per_sample * SAMPLES == pytest.approx((spikes * wanted).sum().item())
    if "norm" not in name:
        snn = convert(nn.Sequential(nn.ReLU(), layer, nn.Flatten()), x)
        (spikes,) = spikes_of(snn, x, STEPS).values()
        assert measured(snn, x).synops_per_sample * SAMPLES == pytest.approx((spikes * wanted).sum().item())


def test_a_bilinear_layer_with_one_operand_that_spikes() -> None:
    layer = nn.Bilinear(6, 4, 3).double()
    ann = Written(lambda net, x: net.layer(torch.relu(x), x[:, :4]), layer=layer)
    x = torch.randn(SAMPLES, 6, dtype=torch.float64)
    snn = convert(ann, x, leaf_modules="layer")
    result = measured(snn, x)
    assert result.spikes_per_sample > 0
    assert result.synops_per_sample == pytest.approx(3 * result.spikes_per_sample)
    assert not result.not_counted


def test_what_is_not_counted_is_named() -> None:
    attention = nn.MultiheadAttention(6, 2, batch_first=True).double().eval()
    ann = Written(
        lambda net, x: net.attention(*[torch.relu(x).unsqueeze(1)] * 3, need_weights=False)[0].squeeze(1),
        attention=attention,
    )
    x = torch.randn(SAMPLES, 6, dtype=torch.float64)
    result = measured(convert(ann, x, leaf_modules="attention"), x)
    assert result.not_counted == ("attention (MultiheadAttention)",)
    assert result.synops_per_sample == 0
    assert "0 synaptic operations per sample (not counted: attention (MultiheadAttention)), " in str(result)
    stepping = Spiking(lambda h, w: attention(*[h.unsqueeze(1)] * 3, need_weights=False)[0], torch.zeros(1).double())
    assert measured(stepping, x).not_counted


def test_a_product_of_two_streams_is_not_counted() -> None:
    snn = Spiking(lambda h, w: torch.matmul(h.unsqueeze(2), h.unsqueeze(1)), torch.zeros(1).double())
    result = measured(snn, torch.randn(SAMPLES, 6, dtype=torch.float64))
    assert result.not_counted == ("matmul",)


def foreign(h: Tensor, weight: Tensor) -> Tensor:
    return h @ weight


def test_a_function_from_elsewhere_with_a_weight_is_not_counted() -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    spikes = graph.call_module("neuron", (x,))
    weight = graph.get_attr("weight")
    graph.output(graph.call_module("foreign", (spikes, weight)))
    root = {
        "neuron": neuron.IFNode(v_threshold=1.0, v_reset=None),
        "foreign": Stepwise(foreign),
        "weight": nn.Parameter(torch.rand(6, 3, dtype=torch.float64)),
    }
    result = measured(torch.fx.GraphModule(root, graph), torch.randn(SAMPLES, 6, dtype=torch.float64))
    assert result.not_counted == ("foreign (foreign)",)
