"""`precision=`: fewer bits for products, by the user's word only."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sj_ann2snn import OptionError, evaluate, simulate
from sj_ann2snn.compat import layer, make_if_neuron
from sj_ann2snn.simulation.engine.numbers.precision import product_precision, rounded_layer

from ...helpers.networks import convert, relative_error


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
    ).eval()


def test_bfloat16_rounds_the_products_behind_the_first_neuron() -> None:
    ann, data = network(), torch.rand(40, 1, 8, 8)
    snn = convert(ann, data)
    exact, rounded = simulate(snn, data, 50), simulate(snn, data, 50, precision="bfloat16")
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert relative_error(rounded, exact) < 0.05
    assert torch.equal(simulate(snn, data, 50), exact), "the network itself is as it was"


@pytest.mark.parametrize(
    "module",
    [layer.Linear(6, 3), layer.Conv2d(6, 3, 2), layer.ConvTranspose2d(6, 3, 2), layer.Conv2d(6, 3, 1, bias=False)],
)
def test_weights_are_rounded_and_the_bias_is_not(module: nn.Module) -> None:
    module.requires_grad_(False)
    if module.bias is not None:
        module.bias += 1000
    spikes = (
        (torch.rand(2, 4, 6) < 0.5).float()
        if isinstance(module, nn.Linear)
        else (torch.rand(2, 4, 6, 5, 5) < 0.5).float()
    )
    compute = rounded_layer(module, torch.bfloat16)
    assert compute is not None
    module.step_mode = "m"
    torch.testing.assert_close(compute(module, spikes, False), module(spikes), atol=0.02, rtol=0)
    assert rounded_layer(nn.ReLU(), torch.bfloat16) is None


def test_evaluate_takes_a_precision_too() -> None:
    ann, data = network(), torch.rand(40, 1, 8, 8)
    labels = ann(data).argmax(1)
    result = evaluate(convert(ann, data), [(data, labels)], 50, precision="bfloat16", progress=False)
    assert result.accuracy[-1] > 0.8


def test_an_unknown_precision_is_an_error_that_lists_the_known() -> None:
    data = torch.rand(4, 1, 8, 8)
    with pytest.raises(OptionError, match=r"precision='int4' is not known. Allowed are 'float32', 'tf32', 'bfloat16'"):
        simulate(convert(network(), data), data, 5, precision="int4")


def test_tf32_on_a_cpu_is_an_error_that_says_so() -> None:
    data = torch.rand(4, 1, 8, 8)
    with pytest.raises(OptionError, match="'tf32' is a format of CUDA devices, but the network is on cpu"):
        simulate(convert(network(), data), data, 5, precision="tf32")


def test_bfloat16_needs_a_converted_network() -> None:
    by_hand = nn.Sequential(layer.Linear(3, 3), make_if_neuron())
    with pytest.raises(OptionError, match="needs a network made by the converter, which Sequential is not"):
        simulate(by_hand, torch.rand(4, 3), 5, precision="bfloat16")


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_tf32_is_allowed_on_cuda_for_as_long_as_it_is_asked_for(precision: str) -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    with product_precision(precision, torch.device("cuda")):
        assert (matmul.allow_tf32, cudnn.allow_tf32) == ((precision == "tf32"),) * 2
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before
