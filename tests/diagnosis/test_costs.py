"""The costs that a diagnosis carries."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, costs, diagnose

from ..helpers.networks import GradedMaker, Written

NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "plain": (
        nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(4, 3, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12, 3),
        ),
        (1, 8, 8),
    ),
    "residual": (
        Written(
            lambda net, x: net.out(torch.relu(net.a(h := torch.relu(net.first(x))) + h)),
            first=nn.Linear(6, 8),
            a=nn.Linear(8, 8),
            out=nn.Linear(8, 3),
        ),
        (6,),
    ),
}


def converted(name: str) -> tuple[nn.Module, nn.Module, Tensor]:
    network, shape = NETWORKS[name]
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.reset_parameters()
            assert module.bias is not None
            nn.init.constant_(module.bias, 0.3)
    network = network.double()
    x = torch.rand(12, *shape, dtype=torch.float64)
    return network, Converter([x], progress=False)(network), x


@pytest.mark.parametrize("name", NETWORKS)
def test_a_diagnosis_costs_what_costs_says(name: str) -> None:
    ann, snn, x = converted(name)
    wanted = costs(ann, snn, [x], 6, progress=False)
    found = diagnose(ann, snn, [x], 6, progress=False)
    assert found.costs == wanted
    assert found.synops == wanted.synops
    assert wanted.verdict in str(found)
    assert json.loads(found.to_json())["costs"] == wanted.to_dict()


def test_layers_carry_what_their_spikes_cost() -> None:
    ann, snn, x = converted("plain")
    found = diagnose(ann, snn, [x], 6, progress=False)
    assert found.costs is not None
    assert [layer.macs for layer in found] == [3 * 4 * 16, 36]
    assert found["4"].energy == found.costs["6"].energy > 0
    assert found["1"].energy == pytest.approx(found.costs["2"].energy + found.costs["3"].energy)


def test_graded_spikes() -> None:
    ann, _, x = converted("plain")
    snn = Converter([x], neuron=GradedMaker(), progress=False)(ann)
    assert diagnose(ann, snn, [x], 6, progress=False).costs == costs(ann, snn, [x], 6, progress=False)
