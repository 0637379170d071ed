"""The scales of the built-in modes: statistics of the ANN's activations, and what becomes of silent channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import CalibrationSite, Converter, Normalization, simulate
from sj_ann2snn.builtin.normalizations import Fraction, Max, Percentile

from ..helpers.networks import convert, run_by_hand

LAYER = CalibrationSite("layer")

CHANNELS = CalibrationSite("channels", channel_axis=1, channels=4)


def scale_of(mode: Normalization, site: CalibrationSite, *batches: Tensor) -> Tensor:
    observer = mode.observer(site)
    for batch in batches:
        assert observer.observe(batch) is None
    return observer.scale()


# The quantile sketch against numpy ------------------------------------------------------------------


def test_percentile_mode_counts_zeros_as_numpy_does() -> None:
    values = np.maximum(np.random.default_rng(1).standard_normal(200_000, dtype=np.float32), 0)
    batches = [batch.reshape(-1, 8) for batch in torch.from_numpy(values).split(16_000)]
    scale = scale_of(Percentile(90.0), LAYER, *batches).item()
    assert scale == pytest.approx(np.percentile(values.astype(np.float64), 90.0), rel=2**-13)
    assert scale < 0.9 * np.percentile(values[values > 0], 90.0)


# Merging --------------------------------------------------------------------------------------------


def modes() -> list[Any]:
    return [
        pytest.param(mode, site, id=f"{mode}-{site.name}")
        for mode in (Max(), Fraction(0.3), Percentile(99.9), Percentile(95.0, percentile_bits=4))
        for site in (LAYER, CHANNELS)
    ]


@pytest.mark.parametrize(("mode", "site"), modes())
def test_batch_size_and_order_change_no_bit(mode: Normalization, site: CalibrationSite) -> None:
    data = torch.randn(240, 4, 3, 3).relu() * torch.rand(240, 1, 1, 1) ** 4 * 100
    wanted = scale_of(mode, site, data)
    for size in (1, 7, 64, 239):
        batches = list(data.split(size))
        assert torch.equal(scale_of(mode, site, *batches), wanted)
        assert torch.equal(scale_of(mode, site, *batches[::-1]), wanted)
    shuffled = data[torch.randperm(240)]
    assert torch.equal(scale_of(mode, site, *shuffled.split(50)), wanted)


@pytest.mark.parametrize(("mode", "site"), modes())
def test_merged_observers_equal_one(mode: Normalization, site: CalibrationSite) -> None:
    data = torch.randn(90, 4, 5).relu()
    data[60:] *= 1000
    observers = [mode.observer(site) for _ in range(4)]
    for observer, part in zip(observers[:3], data.split(30), strict=True):
        observer.observe(part)
    first = observers[3]  # it saw nothing itself
    for other in observers[:3]:
        first.merge(other)
    assert torch.equal(first.scale(), scale_of(mode, site, data))
    first.merge(mode.observer(site))
    assert torch.equal(first.scale(), scale_of(mode, site, data))


def test_the_converters_scale_does_not_depend_on_the_batches() -> None:
    # ReLU comes first, so that no matrix product rounds differently for different batch sizes.
    ann = nn.Sequential(nn.ReLU(), nn.Linear(5, 3))
    data = torch.randn(97, 5)
    for mode in ("max", "97%", 0.5):
        found = set()
        for batches in ([data], data.split(10), data.flip(0).split(33), data.split(1)):
            converter = Converter(list(batches), mode=mode, progress=False)
            converter(ann)
            found.add(converter.report["0"].scale)
        assert len(found) == 1


# Modes end to end -----------------------------------------------------------------------------------


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))


def recorded_activations(ann: nn.Module, data: Tensor) -> dict[str, np.ndarray]:
    with torch.no_grad():
        first = ann[:2](data)
        second = ann[:4](data)
    return {"1": first.double().numpy(), "3": second.double().numpy()}


def report_of(ann: nn.Module, data: Tensor, **arguments: Any) -> dict[str, tuple[float, float]]:
    converter = Converter(list(data.split(17)), progress=False, **arguments)
    converter(ann)
    return converter.report.scales


@pytest.mark.parametrize(
    ("mode", "statistic", "tolerance"),
    [
        ("max", lambda a, axis: a.max(axis=axis), 1e-6),
        (0.25, lambda a, axis: 0.25 * a.max(axis=axis), 1e-6),
        ("99%", lambda a, axis: np.percentile(a, 99, axis=axis), 2**-12),
        ("70%", lambda a, axis: np.percentile(a, 70, axis=axis), 2**-12),
    ],
)
def test_scales_are_statistics_of_the_anns_own_activations(mode: Any, statistic: Any, tolerance: float) -> None:
    ann, data = small_net(), torch.rand(100, 1, 6, 6) * torch.rand(100, 1, 1, 1) * 5
    found = report_of(ann, data, mode=mode)
    assert list(found) == ["1", "3"]
    for name, (low, high) in found.items():
        wanted = statistic(recorded_activations(ann, data)[name], None)
        assert low == high == pytest.approx(wanted, rel=tolerance)


@pytest.mark.parametrize(("mode", "tolerance"), [("max", 1e-6), ("99%", 2**-8), (0.5, 1e-6)])
def test_channel_wise_scales_are_statistics_of_each_channel(mode: Any, tolerance: float) -> None:
    ann, data = small_net(), torch.rand(100, 1, 6, 6) * 3
    for layer in (ann[0], ann[2]):  # no channel is silent
        nn.init.uniform_(layer.weight, 0.0, 0.5)
    scales: dict[str, Tensor] = {}

    class Noting(type(Converter(mode=mode).normalization)):  # type: ignore[misc]
        """Remembers the scales its observers gave."""

        def observer(self, site: CalibrationSite) -> Any:
            observer = super().observer(site)
            give = observer.scale

            def scale() -> Tensor:
                scales[site.name] = give()
                return scales[site.name]

            observer.scale = scale
            return observer

    noting = Noting.__new__(Noting)
    noting.__dict__.update(Converter(mode=mode).normalization.__dict__)
    report_of(ann, data, mode=noting, channel_wise=True)
    for name, activations in recorded_activations(ann, data).items():
        by_channel = activations.transpose(1, 0, 2, 3).reshape(activations.shape[1], -1)
        if mode == "99%":
            wanted = np.percentile(by_channel, 99, axis=1)
        else:
            wanted = by_channel.max(axis=1) * (0.5 if mode == 0.5 else 1.0)
        np.testing.assert_allclose(scales[name].double().numpy(), wanted, rtol=tolerance)


def test_hundred_percent_is_the_maximum() -> None:
    data = torch.rand(50, 4, 7)
    for site in (LAYER, CHANNELS):
        assert torch.equal(scale_of(Percentile(100.0), site, data), scale_of(Max(), site, data).double())


def test_a_bounded_activation_is_scaled_to_its_bound_at_most() -> None:
    ann = nn.Sequential(nn.Linear(3, 3), nn.ReLU6(), nn.Linear(3, 2))
    nn.init.constant_(ann[0].weight, 10.0)
    for mode in ("max", "99%", 1.0):
        assert report_of(ann, torch.rand(40, 3) + 0.5, mode=mode)["1"] == (6.0, 6.0)


# Silent channels and sparse layers ------------------------------------------------------------------


def dead_channel_net() -> nn.Sequential:
    """Channel 1 is silent on inputs below 1 and equals the first input minus 1 above."""
    ann = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3, bias=False))
    with torch.no_grad():
        ann[0].weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]))
        ann[0].bias.copy_(torch.tensor([0.0, -1.0, 0.0]))
        ann[2].weight.copy_(torch.eye(3))
    return ann


@pytest.mark.parametrize("mode", ["max", "99%", 0.9])
@pytest.mark.parametrize("channel_wise", [False, True])
def test_a_channel_that_never_fired_passes_a_signal_at_test_time(mode: Any, channel_wise: bool) -> None:
    ann = dead_channel_net()
    snn = convert(ann, torch.rand(500, 2), mode=mode, channel_wise=channel_wise)
    x = torch.tensor([[1.5, 0.5]])
    wanted = ann(x)[0, 1].item()
    assert wanted == 0.5
    assert simulate(snn, x, T=400)[0, 1].item() == pytest.approx(0.5, abs=0.02)
    assert run_by_hand(snn, x, 400).mean(0)[0, 1].item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("mode", [Max(), Percentile(99.0), Fraction(0.5)])
def test_a_channel_that_never_fired_gets_the_layers_scale(mode: Normalization) -> None:
    data = torch.rand(300, 4, 6)
    data[:, 2] = 0
    scale = scale_of(mode, CHANNELS, data)
    layer = scale_of(mode, CHANNELS, data.permute(1, 0, 2).reshape(1, 4, -1))  # same values, another batch layout
    assert torch.equal(scale, layer)
    values = data.double().numpy()
    wanted = {"max": values.max(), "99%": np.percentile(values, 99), "0.5": values.max() / 2}[str(mode)]
    assert scale[2].item() == pytest.approx(wanted, rel=2**-7)
    assert (scale > 0).all()


@pytest.mark.parametrize("channel_wise", [False, True])
def test_a_sparse_layer_whose_percentile_is_zero_is_scaled_by_its_maximum(channel_wise: bool) -> None:
    ann = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    nn.init.ones_(ann[0].weight)
    nn.init.ones_(ann[2].weight)
    data = torch.full((1000, 1), -1.0)
    data[17] = 0.25
    data[400] = 0.5
    converter = Converter([data], mode="90%", channel_wise=channel_wise, progress=False)
    snn = converter(ann)
    assert np.percentile(data.clamp_min(0).numpy(), 90) == 0
    assert converter.report["1"].scale == (0.5, 0.5)
    assert simulate(snn, torch.tensor([[0.25]]), T=100).item() == pytest.approx(0.25, abs=0.01)
