"""Layer-by-layer calibration with weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sj_ann2snn_calibration import LayerByLayer, SnnCalibration, Staircase
from sj_ann2snn_calibration.least_squares import fitted_weight
from torch import Tensor, nn

from sj_ann2snn import Converter, TrialLayer, simulate

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(5, 3), (40, 7, 5)),
    "same": (nn.Conv1d(4, 6, 3, padding="same", dilation=2), (60, 4, 8)),
    "groups and circular": (
        nn.Conv2d(4, 6, 3, groups=2, stride=2, padding=1, padding_mode="circular"),
        (30, 4, 8, 8),
    ),
    "transposed with groups": (
        nn.ConvTranspose2d(4, 6, 3, groups=2, stride=2, output_padding=1, dilation=2, bias=False),
        (30, 4, 6, 6),
    ),
    "transposed in space": (nn.ConvTranspose3d(2, 3, 2, padding=1), (40, 2, 4, 4, 4)),
}


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def images(samples: int, seed: int = 1) -> Tensor:
    return torch.randn(samples, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 2, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(72, 16),
        nn.ReLU(),
        nn.Linear(16, 4),
    )
    for module in net:
        if hasattr(module, "kernel_size") and hasattr(module, "bias"):
            nn.init.kaiming_normal_(module.weight)
    return net.eval()


def converted(correction: Any, steps: int, **arguments: Any) -> tuple[nn.Module, Converter]:
    converter = Converter([images(256)], mode=Staircase(T=steps), corrections=correction, progress=False, **arguments)
    return converter(network()), converter


def error(snn: nn.Module, steps: int) -> float:
    """On samples that the calibration has not seen."""
    unseen = images(200, seed=2)
    with torch.no_grad():
        wanted = network()(unseen)
        return float((simulate(snn, unseen, steps) - wanted).norm() / wanted.norm())


# The fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_weights_are_found_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sj_ann2snn_calibration.least_squares.RIDGES", (1.0, 1e-10))
    module, shape = LAYERS[name]
    layer, x = TrialLayer(name, module.double().requires_grad_(False)), torch.rand(shape, dtype=torch.float64)
    other = torch.randn_like(layer.weight)
    found = fitted_weight(layer, x, layer.compute(x, other) + 1)
    torch.testing.assert_close(found, other, rtol=0, atol=1e-6)


def test_the_fit_has_the_least_penalized_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step in any direction lowers it."""
    monkeypatch.setattr("sj_ann2snn_calibration.least_squares.RIDGES", (0.3,))
    layer, x = TrialLayer("fc", nn.Linear(4, 2).double().requires_grad_(False)), torch.rand(30, 4).double()
    wanted = 3 * layer.compute(x) + 0.1 * torch.randn(30, 2).double()
    found = fitted_weight(layer, x, wanted).requires_grad_()
    errors = wanted - layer.compute(x, found)
    variance = (x - x.mean(0)).square().mean()
    loss = (errors - errors.mean(0)).square().mean(0).sum() + 0.3 * variance * (found - layer.weight).square().sum()
    torch.testing.assert_close(torch.autograd.grad(loss, found)[0], torch.zeros_like(found), rtol=0, atol=1e-9)


def test_weights_stay_where_nothing_can_be_learnt() -> None:
    """From inputs that do not vary, or from a single sample."""
    layer = TrialLayer("fc", nn.Linear(40, 3).double().requires_grad_(False))
    x = torch.randn(50, 40).double()
    assert torch.equal(fitted_weight(layer, torch.ones_like(x), torch.randn(50, 3).double()), layer.weight)
    assert torch.equal(fitted_weight(layer, x[:1], torch.randn(1, 3).double()), layer.weight)


def test_the_hold_is_stronger_where_errors_are_noisier() -> None:
    layer, x = TrialLayer("fc", nn.Linear(10, 1).double().requires_grad_(False)), torch.randn(60, 10).double()
    other = layer.weight + torch.randn_like(layer.weight)
    noise = torch.randn(60, 1).double()
    near, far = (fitted_weight(layer, x, layer.compute(x, other) + share * noise) for share in (3.0, 0.01))
    assert torch.allclose(far, other, atol=0.02)
    assert 0 < (near - layer.weight).norm() < 0.9 * (other - layer.weight).norm()


def test_many_places_are_gathered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    module, shape = LAYERS["groups and circular"]
    layer, x = TrialLayer("conv", module.double().requires_grad_(False)), torch.rand(shape, dtype=torch.float64)
    wanted = 2 * layer.compute(x)
    whole = fitted_weight(layer, x, wanted)
    monkeypatch.setattr("sj_ann2snn_calibration.least_squares.CHUNK", 1000)
    torch.testing.assert_close(fitted_weight(layer, x, wanted), whole)
    monkeypatch.setattr("sj_ann2snn_calibration.least_squares.ROWS", 5 * 16)
    torch.testing.assert_close(fitted_weight(layer, x, wanted), fitted_weight(layer, x[:5], wanted[:5]))


# The correction ----------------------------------------------------------------------------------


def test_answers_come_nearer_than_by_biases_and_potentials_alone() -> None:
    light, _ = converted(LayerByLayer(T=2), 2)
    advanced, _ = converted(SnnCalibration(T=2), 2, weights="tuned")
    assert error(advanced, 2) < 0.97 * error(light, 2)


def test_without_permission_it_is_the_light_pipeline() -> None:
    light, advanced = (converted(kind(T=4), 4)[0].state_dict() for kind in (LayerByLayer, SnnCalibration))
    assert light.keys() == advanced.keys()
    assert all(torch.equal(value, advanced[name]) for name, value in light.items())


def test_the_report_lists_the_layers_behind_the_first_neuron() -> None:
    _, converter = converted(SnnCalibration(T=4), 4, weights="tuned")
    assert {layer.name for layer in converter.report.tuned} <= {"2", "5", "9", "11"}
    assert len(converter.report.tuned) >= 2
    assert all(0 < layer.change < 1 for layer in converter.report.tuned)
