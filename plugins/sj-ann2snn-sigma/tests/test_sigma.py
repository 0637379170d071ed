"""The mode "mean+Ksigma", by itself and through the converter."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from sj_ann2snn_sigma import MeanSigma, Moments
from torch import Tensor, nn

from sj_ann2snn import CalibrationSite, Converter, DeadLayerError, ModeError, OptionError, simulate

LAYER = CalibrationSite("relu")
CHANNELS = CalibrationSite("relu", channel_axis=1, channels=3)


def activations(samples: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    spread = torch.tensor([0.5, 2.0, 30.0])[:, None]
    return torch.relu(torch.randn(samples, 3, 7, generator=generator) * spread)


def scale_of(site: CalibrationSite, batches: Any, mode: str = "mean+3sigma", **options: Any) -> Tensor:
    strategy = MeanSigma.parse(mode, **options)
    assert strategy is not None
    observer = strategy.observer(site)
    for batch in batches:
        assert observer.observe(batch) is None
    return observer.scale()


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))


@pytest.mark.parametrize(
    ("written", "sigmas"),
    [
        ("mean+3sigma", 3.0),
        ("mean+2.5sigma", 2.5),
        ("MEAN+0.5Sigma", 0.5),
        (" mean + 3 * sigma ", 3.0),
        ("mean+.5sigma", 0.5),
        ("mean+4.σ", 4.0),
        ("mean+sigma", 1.0),
    ],
)
def test_parses_any_number_of_sigmas(written: str, sigmas: float) -> None:
    strategy = MeanSigma.parse(written)
    assert strategy is not None
    assert strategy.sigmas == sigmas
    assert MeanSigma.parse(str(strategy)).sigmas == sigmas  # type: ignore[union-attr]


@pytest.mark.parametrize("other", ["max", "99.9%", 0.5, None, True, "mean", "sigma", "mean+3", "3sigma", "robust mean"])
def test_leaves_other_modes_to_others(other: object) -> None:
    assert MeanSigma.parse(other) is None


@pytest.mark.parametrize("written", ["mean+0sigma", "mean+0.0sigma"])
def test_zero_sigmas_are_refused(written: str) -> None:
    with pytest.raises(ModeError, match=r"'mean\+0sigma' is not allowed.*greater than 0"):
        MeanSigma.parse(written)


@pytest.mark.parametrize(
    "written", ["mean+-3sigma", "mean+ksigma", "mean+1e400sigma", "mean+1,5sigma", "mean+nansigma"]
)
def test_what_is_no_number_is_refused(written: str) -> None:
    with pytest.raises(ModeError, match=r"write a number greater than 0 between 'mean\+' and 'sigma'") as caught:
        MeanSigma.parse(written)
    assert repr(written) in str(caught.value)


@pytest.mark.parametrize("sigmas", [0, -1.0, float("inf"), float("nan")])
def test_constructor_checks_its_range(sigmas: float) -> None:
    with pytest.raises(ModeError, match="finite and greater than 0"):
        MeanSigma(sigmas)


def test_option_is_checked() -> None:
    with pytest.raises(OptionError, match="sigma_ignore_zeros='no' is not allowed"):
        MeanSigma(3, sigma_ignore_zeros="no")  # type: ignore[arg-type]


@pytest.mark.parametrize("sigmas", [1, 2.5, 3])
def test_equals_numpy_per_layer_and_per_channel(sigmas: float) -> None:
    x = activations()
    values = x.double().numpy()
    mode = f"mean+{sigmas}sigma"
    layer = values.mean() + sigmas * values.std()
    channels = values.mean((0, 2)) + sigmas * values.std((0, 2))
    assert scale_of(LAYER, [x], mode).item() == pytest.approx(layer, rel=1e-12)
    np.testing.assert_allclose(scale_of(CHANNELS, [x], mode).numpy(), channels, rtol=1e-12)


def test_ignoring_zeros_equals_numpy_over_the_positive_values() -> None:
    x = activations()
    positive = x.double().numpy()
    wanted = [positive[:, c][positive[:, c] > 0] for c in range(3)]
    scales = scale_of(CHANNELS, torch.split(x, 10), sigma_ignore_zeros=True)
    np.testing.assert_allclose(scales.numpy(), [one.mean() + 3 * one.std() for one in wanted], rtol=1e-12)
    assert bool((scales > scale_of(CHANNELS, [x])).any())
    everything = positive[positive > 0]
    layer = scale_of(LAYER, torch.split(x, 10), sigma_ignore_zeros=True)
    assert layer.item() == pytest.approx(everything.mean() + 3 * everything.std(), rel=1e-12)


@pytest.mark.parametrize("ignore_zeros", [False, True])
@pytest.mark.parametrize("site", [LAYER, CHANNELS], ids=["layer", "channels"])
def test_neither_batch_size_nor_order_matters(site: CalibrationSite, ignore_zeros: bool) -> None:
    x = activations(60)
    reference = scale_of(site, [x], sigma_ignore_zeros=ignore_zeros)
    for size in (1, 7, 59):
        batches = torch.split(x, size)
        for order in (batches, reversed(batches)):
            scales = scale_of(site, order, sigma_ignore_zeros=ignore_zeros)
            torch.testing.assert_close(scales, reference, rtol=1e-12, atol=0)


@pytest.mark.parametrize("ignore_zeros", [False, True])
def test_merged_observers_equal_the_one_that_saw_all(ignore_zeros: bool) -> None:
    x = activations(60)
    strategy = MeanSigma(3, sigma_ignore_zeros=ignore_zeros)
    reference = strategy.observer(CHANNELS)
    reference.observe(x)
    parts = [x[:7], x[7:8], x[8:8], x[8:]]
    for order in itertools.permutations(range(len(parts))):
        observers = [strategy.observer(CHANNELS) for _ in parts]
        for observer, part in zip(observers, parts, strict=True):
            observer.observe(part)
        first, *others = [observers[index] for index in order]
        for other in others:
            first.merge(other)
        torch.testing.assert_close(first.scale(), reference.scale(), rtol=1e-12, atol=0)


def test_a_small_deviation_around_a_large_mean_keeps_its_digits() -> None:
    # The difference of mean square and squared mean would be off by far more than it is large here.
    x = 1e8 + torch.rand(1, 10_000, dtype=torch.float64)
    moments = Moments()
    for part in torch.split(x, 777, dim=1):
        moments.update(part)
    assert moments.variance().item() == pytest.approx(x.numpy().var(), rel=1e-6)
    naive = (x.square().mean() - x.mean().square()).item()
    assert naive != pytest.approx(x.numpy().var(), rel=1e-2)


def test_long_rows_are_taken_in_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = activations()
    whole = scale_of(CHANNELS, [x])
    monkeypatch.setattr("sj_ann2snn_sigma.moments._CHUNK", 10)
    torch.testing.assert_close(scale_of(CHANNELS, [x]), whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize("ignore_zeros", [False, True])
def test_moments_of_single_batches_merge_to_the_bits_of_all(
    monkeypatch: pytest.MonkeyPatch, ignore_zeros: bool
) -> None:
    monkeypatch.setattr("sj_ann2snn_sigma.moments._CHUNK", 64)
    whole, merged = Moments(3, ignore_zeros=ignore_zeros), Moments(3, ignore_zeros=ignore_zeros)
    for size in (50, 7, 1, 200, 30):
        x = torch.randn(3, size).relu()
        whole.update(x)
        single = Moments(3, ignore_zeros=ignore_zeros)
        single.update(x)
        merged.merge(single)
    assert torch.equal(merged.mean, whole.mean)
    assert torch.equal(merged.variance(), whole.variance())


def test_moments_that_count_different_values_do_not_merge() -> None:
    with pytest.raises(ValueError, match="same rows and the same ignore_zeros"):
        Moments(2).merge(Moments(3))
    with pytest.raises(ValueError, match="same rows and the same ignore_zeros"):
        Moments(2).merge(Moments(2, ignore_zeros=True))


def test_half_precision_activations_do_not_overflow() -> None:
    x = torch.full((4, 3, 50), 60_000.0, dtype=torch.float16)
    torch.testing.assert_close(scale_of(CHANNELS, [x]), x[0, 0, :1].double().expand(3))


@pytest.mark.parametrize("ignore_zeros", [False, True])
def test_a_dead_channel_gets_the_scale_of_its_layer(ignore_zeros: bool) -> None:
    x = activations()
    x[:, 1] = 0
    scales = scale_of(CHANNELS, [x], sigma_ignore_zeros=ignore_zeros)
    layer = scale_of(LAYER, [x], sigma_ignore_zeros=ignore_zeros)
    assert scales[1].item() == pytest.approx(layer.item(), rel=1e-12)
    assert scales[0] < layer < scales[2]


def test_negative_values_in_front_of_a_pool_neuron_count_as_zero() -> None:
    x = torch.randn(50, 3, 7)
    torch.testing.assert_close(scale_of(CHANNELS, [x]), scale_of(CHANNELS, [torch.relu(x)]), rtol=0, atol=0)


def test_is_found_by_name_and_sets_the_scales() -> None:
    ann, x = mlp(), torch.rand(200, 6)
    converter = Converter([x[:70], x[70:]], mode="mean+2sigma", channel_wise=True, progress=False)
    converter(ann)
    hidden = torch.relu(ann[0](x)).detach().double().numpy()
    wanted = hidden.mean(0) + 2 * hidden.std(0)
    wanted = np.where(hidden.max(0) > 0, wanted, hidden.mean() + 2 * hidden.std())
    (spiking,) = [entry for entry in converter.report.entries if entry.scale is not None]
    assert spiking.scale == pytest.approx((wanted.min(), wanted.max()), rel=1e-5)
    assert converter.report.mode == "mean+2sigma"
    assert "sj-ann2snn-sigma" in converter.report.mode_owner


def test_the_option_reaches_the_mode() -> None:
    converter = Converter(mode="mean+3sigma", sigma_ignore_zeros=True)
    assert isinstance(converter.normalization, MeanSigma)
    assert converter.normalization.ignore_zeros is True
    with pytest.raises(OptionError, match="sigma_ignore_zeros"):
        Converter(mode="max", sigma_ignore_zeros=True)


def test_the_spiking_network_follows_the_ann() -> None:
    ann, x = mlp(), torch.rand(200, 6)
    snn = Converter([x], mode="mean+6sigma", channel_wise=True, progress=False)(ann)
    error = (simulate(snn, x, T=400) - ann(x)).abs().max().item()
    assert error < 0.05


def test_a_layer_that_never_fires_is_named() -> None:
    ann = nn.Sequential(nn.Linear(6, 3), nn.ReLU())
    nn.init.constant_(ann[0].bias, -100.0)
    with pytest.raises(DeadLayerError, match=r"1 never fired.*mean\+3sigma"):
        Converter([torch.rand(8, 6)], mode="mean+3sigma", progress=False)(ann)
