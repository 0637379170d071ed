"""In front of the first neuron, a sample's currents do not depend on the samples beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn.compat import layer
from sj_ann2snn.simulation.engine.numbers.steady import steady_layer

from ...helpers.networks import using_threads

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(784, 100), (784,)),
    "SpikingJelly's": (layer.Linear(784, 100, bias=False), (784,)),
    "sequence": (nn.Linear(40, 30), (7, 40)),
    "conv": (nn.Conv2d(32, 48, 3), (32, 8, 8)),
    "1x1": (layer.Conv2d(32, 48, 1), (32, 8, 8)),
    "line": (nn.Conv1d(32, 48, 7), (32, 40)),
}


def computed(module: nn.Module, x: Tensor) -> Tensor:
    steady: Any = steady_layer(module)
    result = steady(x)
    return module(x) if result is None else result


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_a_sample_alone_and_among_others(name: str) -> None:
    module, shape = LAYERS[name]
    x = torch.rand(20, *shape)
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    with using_threads(1):
        wanted = computed(module, x)
    assert torch.allclose(wanted, module(x), atol=1e-5)
    for threads in (1, 2):
        with using_threads(threads):
            for size in (1, 3, 9, 20):
                assert torch.equal(torch.cat([computed(module, part) for part in x.split(size)]), wanted)


class Own(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


def test_layers_that_are_left_alone() -> None:
    hooked = nn.Linear(3, 3)
    hooked.register_forward_hook(lambda *_: None)
    for module in (Own(3, 3), nn.Linear(3, 3).double(), nn.ReLU(), hooked):
        assert steady_layer(module) is None
    double: Any = steady_layer(nn.Linear(3, 3))
    assert double(torch.ones(1, 3, dtype=torch.int64)) is None
