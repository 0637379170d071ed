"""On a CUDA device; skipped with a reason where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from sj_ann2snn import evaluate, simulate
from sj_ann2snn.compat import NEURONS_TAKE_BACKEND, reset_net
from sj_ann2snn.simulation.engine import runner
from sj_ann2snn.simulation.engine.packing.packers import packers_for

from ..helpers.networks import Residual, convert, relative_error

pytestmark = pytest.mark.gpu


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 5)
    ).eval()


def test_a_network_on_the_gpu_stays_there_and_computes_the_same() -> None:
    ann, data = network(), torch.rand(40, 1, 8, 8)
    on_cpu = simulate(convert(ann, data), data, T=100)
    ann = ann.cuda()
    snn = convert(ann, data.cuda())
    assert {parameter.device.type for parameter in snn.parameters()} == {"cuda"}
    # Summed in another order: a neuron right at its threshold may fire a step later.
    assert relative_error(simulate(snn, data, T=100).cpu(), on_cpu) < 0.01
    result = evaluate(snn, [(data, ann(data.cuda()).argmax(1))], T=100, progress=False)
    assert result.accuracy[-1] > 0.7


@pytest.mark.skipif(not NEURONS_TAKE_BACKEND, reason="SpikingJelly 2.0 chooses its kernels itself")
def test_cupy_neurons() -> None:
    pytest.importorskip("cupy", reason="CuPy is not installed")
    ann, data = network().cuda(), torch.rand(40, 1, 8, 8).cuda()
    snn = convert(ann, data, backend="cupy")
    assert {module.backend for module in snn.modules() if hasattr(module, "v_threshold")} == {"cupy"}
    assert relative_error(simulate(snn, data, T=100), simulate(convert(ann, data), data, T=100)) < 0.01
    assert not any(module.training for module in snn.modules())


@pytest.mark.skipif(not NEURONS_TAKE_BACKEND, reason="SpikingJelly 2.0 chooses its kernels itself")
def test_cupy_is_taken_without_being_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cupy", reason="CuPy is not installed")
    ann, data = network().cuda(), torch.rand(40, 1, 8, 8).cuda()
    by_cupy, by_torch = convert(ann, data), convert(ann, data, backend="torch")
    neuron = next(module for module in by_cupy.modules() if hasattr(module, "v_threshold"))
    forward = type(neuron).multi_step_forward
    seen: list[str] = []

    def noted(self: Any, x_seq: torch.Tensor) -> Any:
        seen.append(self.backend)
        return forward(self, x_seq)

    monkeypatch.setattr(type(neuron), "multi_step_forward", noted)
    # Without Triton, which would take the neurons out of SpikingJelly's hands.
    monkeypatch.setattr(runner, "packers_for", lambda device: None)
    found = simulate(by_cupy, data, T=100)
    assert set(seen) == {"cupy"}
    assert relative_error(found, simulate(by_torch, data, T=100)) < 0.01
    assert neuron.backend == "torch"


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_fewer_bits_give_nearly_the_same_rates(precision: str) -> None:
    ann, data = network().cuda(), torch.rand(40, 1, 8, 8).cuda()
    snn = convert(ann, data)
    assert relative_error(simulate(snn, data, T=100, precision=precision), simulate(snn, data, T=100)) < 0.05


def test_the_same_spikes_as_the_loop_by_hand_on_the_gpu() -> None:
    ann, data = network().cuda(), torch.rand(40, 1, 8, 8).cuda()
    snn = convert(ann, data)
    by_hand = torch.stack([snn(data) for _ in range(50)]).mean(0)
    reset_net(snn)
    assert relative_error(simulate(snn, data, T=50), by_hand) < 0.01


@pytest.mark.parametrize("samples", [3, 400])
@pytest.mark.parametrize(
    "layers",
    [
        pytest.param(
            lambda: [Residual(16), nn.AvgPool2d(2), nn.Conv2d(16, 40, 3, 2, dilation=2, padding=2)], id="sums"
        ),
        pytest.param(lambda: [nn.Conv2d(16, 72, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(72, 8, 3)], id="pools"),
    ],
)
def test_the_same_spikes_as_on_a_cpu(layers: Callable[[], list[nn.Module]], samples: int) -> None:
    """Each of the network's first neurons takes one number of the input, so that no sum is rounded differently."""
    assert packers_for(torch.device("cuda")) is not None, "Triton does not run here"
    torch.manual_seed(0)
    first = nn.Conv2d(16, 16, 1, bias=False)
    nn.init.dirac_(first.weight)
    last = nn.Flatten(), nn.LazyLinear(24), nn.ReLU(), nn.Linear(24, 8)
    ann = nn.Sequential(first, nn.ReLU(), *layers(), nn.ReLU(), *last)
    data = torch.rand(samples, 16, 12, 12)
    ann(data)
    snn = convert(ann.eval(), data, initial_potential=0.25)
    batch = [(data, ann(data).argmax(1))]
    on_cpu = evaluate(snn, batch, T=20, progress=False).spikes_over_time
    answers = simulate(snn, data, T=20)
    snn = snn.cuda()
    assert torch.allclose(simulate(snn, data, T=20).cpu(), answers, atol=1e-6)
    assert evaluate(snn, batch, T=20, progress=False).spikes_over_time == on_cpu
