"""A quick selection of torchvision's models; `benchmarks/torchvision_models.py` measures all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sj_ann2snn import Converter, UnsupportedError, simulate

from ..helpers.networks import GradedMaker, relative_error

# A CPU build of torch may lie beside a torchvision built for CUDA, whose import then fails.
models = pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))

CONVERT = (
    "alexnet",
    "vgg11_bn",
    "resnet18",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "densenet121",
    "googlenet",
    "inception_v3",
    "squeezenet1_1",
    "shufflenet_v2_x0_5",
    "mobilenet_v2",
    "mnasnet0_5",
    "regnet_x_400mf",
)

# Model: operations that its refusal has to list, each with how often.
REFUSED = {
    "mobilenet_v3_small": {"Hardswish": 18, "Hardsigmoid": 9},
    "efficientnet_b0": {"SiLU": 49, "Sigmoid": 16},
    "regnet_y_400mf": {"Sigmoid": 16},
    "convnext_tiny": {"LayerNorm": 18, "GELU": 18},
    "vit_b_16": {"LayerNorm": 25, "GELU": 12, "MultiheadAttention": 12},
    "swin_t": {"GELU": 12},
}

SIZES = {"inception_v3": 75}
"""Where 64 pixels are not enough."""

SLOW_TO_DRAW = ("vgg11_bn", "googlenet", "inception_v3")
"""Whose own way of drawing weights takes many seconds."""


def settled(name: str) -> tuple[nn.Module, Tensor]:
    """The model with BatchNorm statistics that fit its random weights, and images."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"init_weights": False} if name in SLOW_TO_DRAW else {}
    if name == "vit_b_16":
        options["image_size"] = 64
    if name in ("googlenet", "inception_v3"):
        options["aux_logits"] = False
    ann = models.get_model(name, weights=None, num_classes=10, **options)
    x = torch.randn(32, 3, SIZES.get(name, 64), SIZES.get(name, 64))
    for module in ann.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = None
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        if any(isinstance(module, _BatchNorm) for module in ann.modules()):
            ann.train()(x)
    return ann.eval(), x[:4]


@pytest.mark.parametrize("name", CONVERT)
def test_converts_with_an_error_that_falls_as_steps_grow(name: str) -> None:
    ann, x = settled(name)
    # Random deep networks magnify the rounding of rates. With fine spikes what is left is small, and shows any mistake.
    snn = Converter([x], channel_wise=True, neuron=GradedMaker(levels=1000), progress=False)(ann)
    with torch.no_grad():
        wanted = ann(x[:1])
    few, many = (relative_error(simulate(snn, x[:1], T=steps), wanted) for steps in (8, 32))
    assert many < 0.5 * few
    assert many < 0.1


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_with_its_full_list(name: str) -> None:
    ann, x = settled(name)
    with pytest.raises(UnsupportedError) as caught:
        Converter([x], progress=False)(ann)
    listed = [problem.operation for problem in caught.value.problems]
    assert {operation: listed.count(operation) for operation in REFUSED[name]} == REFUSED[name]
    assert caught.value.problems
    for problem in caught.value.problems:
        assert problem.name in str(caught.value)
