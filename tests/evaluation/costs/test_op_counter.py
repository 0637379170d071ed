"""Counts against those of SpikingJelly 2.0's op_counter, where both count the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sj_ann2snn import costs
from sj_ann2snn.evaluation.costs.energy import PRESETS

from ...helpers.networks import Written, convert

op_counter = pytest.importorskip(
    "spikingjelly.activation_based.op_counter", reason="SpikingJelly 0.0.0.0.14 has no operation counter"
)

STEPS = 5

NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "Linear": (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)), (6,)),
    "sequences": (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), (4, 6)),
    "Conv1d": (nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 2, 3, padding=1, stride=2)), (2, 9)),
    "Conv2d": (
        nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.Conv2d(4, 2, 3, stride=2, dilation=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8, 3),
        ),
        (1, 8, 8),
    ),
    "Conv3d": (nn.Sequential(nn.Conv3d(1, 2, 2), nn.ReLU(), nn.Conv3d(2, 2, 2, padding=1)), (1, 4, 4, 4)),
    "transposed": (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1)),
        (1, 6, 6),
    ),
    "BatchNorm and max pool": (
        nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
        ).eval(),
        (1, 8, 8),
    ),
    "matmul": (
        Written(
            lambda net, x: torch.relu(net.first(x)) @ net.w, first=nn.Linear(6, 8), w=nn.Parameter(torch.rand(8, 3))
        ),
        (6,),
    ),
}


def lively(network: nn.Module) -> nn.Module:
    """The network with weights of this test, and biases with which no layer is dead."""
    for module in network.modules():
        if isinstance(module, (nn.Linear, _ConvNd)):
            module.reset_parameters()
            assert module.bias is not None
            nn.init.constant_(module.bias, 0.5)
    return network


def counts_of_spikingjelly(snn: nn.Module, x: Tensor) -> tuple[int, int]:
    """Synaptic operations and MACs of a loop over time."""
    synops, macs = op_counter.SynOpCounter(), op_counter.MACCounter()
    functional.set_step_mode(snn, "s")
    functional.reset_net(snn)
    with torch.no_grad(), op_counter.DispatchCounterMode([synops, macs]):
        for _ in range(STEPS):
            snn(x)
    functional.reset_net(snn)
    return synops.get_total(), macs.get_total()


@pytest.mark.parametrize("name", NETWORKS)
def test_accumulates_are_its_synaptic_operations_and_macs_its_macs(name: str) -> None:
    ann, shape = NETWORKS[name]
    x = torch.rand(4, *shape, dtype=torch.float64) + 0.1  # double precision: no spike depends on the order of sums
    snn: Any = convert(lively(ann.double()), x)
    found = costs(ann, snn, [x], STEPS, progress=False)
    synops, macs = counts_of_spikingjelly(snn, x)
    assert found.accumulates * 4 == synops > 0
    assert found.macs * 4 * STEPS == macs > 0  # a loop computes the first layer at every step


def test_values_that_are_no_spikes_cost_it_all_macs() -> None:
    ann = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    x = torch.rand(4, 1, 8, 8) + 0.1
    snn = convert(lively(ann), x)
    found = costs(ann, snn, [x], STEPS, progress=False)
    synops, macs = counts_of_spikingjelly(snn, x)
    assert synops == 0  # the pooled values are fractions
    assert macs == 4 * STEPS * (36 * 36 + 36 * 3)
    assert 0 < (found["4"].macs + found["4"].accumulates) * 4 < 4 * STEPS * 36 * 3  # only those that are not zero


def test_energies_are_those_of_its_preset() -> None:
    simple = pytest.importorskip("spikingjelly.activation_based.op_counter.simple_energy")
    for name, preset in (("float32", "fp32"), ("float16", "fp16"), ("int8", "int8")):
        theirs = getattr(simple.SimpleEnergyCostConfig, preset)()
        assert (PRESETS[name].mac, PRESETS[name].accumulate) == (theirs.e_mac_pj, theirs.e_ac_pj)
