"""Local threshold balancing: where the update ends, and that layers are balanced against each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sj_ann2snn_ltb import Bound, LocalThresholdBalancing, ThresholdObserver
from torch import Tensor, nn

from sj_ann2snn import CalibrationSite, Converter, DeadLayerError, OptionError, evaluate

LAYER = CalibrationSite("relu")
CHANNELS = CalibrationSite("relu", channel_axis=1, channels=3)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def activations() -> Tensor:
    return torch.relu(torch.randn(200, 3, 7, dtype=torch.float64) * torch.tensor([0.5, 2.0, 30.0])[:, None])


def least_error(z: Tensor, steps: int) -> float:
    """The θ with the least bound, by trying many."""
    tried = torch.linspace(0.001, 1, 20_000, dtype=torch.float64) * z.max()
    error = [
        (z - one).clamp(min=0).square().sum() + (z > 0).sum() * (one / steps).square() / 12 for one in tried.unbind()
    ]
    return float(tried[torch.stack(error).argmin()])


def settled(observer: ThresholdObserver, x: Tensor) -> Tensor:
    while True:
        observer.observe(x)
        if not observer.end_pass():
            return observer.scale()


@pytest.mark.parametrize("steps", [1, 4, 32])
def test_the_threshold_has_the_least_bound(steps: int) -> None:
    x = activations()
    found = settled(LocalThresholdBalancing(T=steps).observer(CHANNELS), x)
    wanted = [least_error(x[:, channel].flatten(), steps) for channel in range(3)]
    assert found.tolist() == pytest.approx(wanted, rel=2**-8 + 1e-3)
    whole = settled(LocalThresholdBalancing(T=steps).observer(LAYER), x)
    assert float(whole) == pytest.approx(least_error(x.flatten(), steps), rel=1e-3)


def test_more_steps_raise_the_threshold_up_to_the_maximum() -> None:
    x = activations()
    found = [float(settled(LocalThresholdBalancing(T=steps).observer(LAYER), x)) for steps in (1, 2, 8, 64, 10_000)]
    assert found == sorted(found)
    assert found[0] < 0.8 * found[-1]
    assert found[-1] == pytest.approx(float(x.max()), rel=1e-3)


def test_the_update_climbs_and_never_passes_the_minimum() -> None:
    values = torch.rand(500, dtype=torch.float64).sort().values * 5
    counts = torch.randint(0, 50, (4, 500))
    bound = Bound(values, counts, 8)
    threshold = bound.minimiser()
    passed = torch.stack(bound.updates())
    assert len(passed) > 3
    assert bool((passed.diff(dim=0) >= 0).all())
    assert bool((torch.stack([bound(one) for one in passed]).diff(dim=0) <= 0).all())
    for share in (0.9, 0.999, 1.001, 1.1):
        assert bool((bound(share * threshold) > bound(threshold)).all())
    assert bool((threshold < values[-1]).all())


def test_a_row_without_activations_has_the_threshold_zero() -> None:
    assert Bound(torch.tensor([1.0, 2.0]), torch.tensor([[0, 0], [3, 1]]), 4).minimiser()[0] == 0


def test_from_the_second_pass_on_a_layer_passes_on_what_its_neurons_would_emit() -> None:
    x = activations()
    observer = LocalThresholdBalancing(T=4).observer(CHANNELS)
    assert observer.observe(x) is None
    assert observer.end_pass()
    emitted = observer.observe(x)
    assert emitted is not None
    height = observer.threshold.view(-1, 1) / 4  # type: ignore[union-attr]
    levels = emitted / height
    torch.testing.assert_close(levels, levels.round())
    assert float(levels.min()) == 0
    assert float(levels.max()) == pytest.approx(4)
    # Rounding costs at most half a level wherever nothing is clipped.
    inside = x < 4 * height
    assert bool(((emitted - x).abs() <= height / 2 + 1e-9)[inside].all())


def test_later_layers_are_balanced_against_earlier_ones() -> None:
    ann = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3)).double()
    x = torch.randn(400, 8, dtype=torch.float64)

    def scales(passes: int) -> list[tuple[float, float]]:
        converter = Converter([x], mode="ltb", T=2, passes=passes, progress=False)
        converter(ann)
        return list(converter.report.scales.values())

    alone, together = scales(1), scales(20)
    assert alone[0] == together[0]
    assert alone[1] != pytest.approx(together[1], rel=1e-2)
    # The first layer is settled after one pass, the second after another one.
    assert scales(2) == together


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_no_more_passes_than_allowed(passes: int) -> None:
    ann = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))
    seen = []

    class Counting(list[Tensor]):
        def __iter__(self) -> Any:
            seen.append(1)
            return super().__iter__()

    data = Counting([torch.randn(100, 8)])
    Converter(data, mode="ltb", T=2, passes=passes, progress=False)(ann)
    assert len(seen) == passes


def test_fewer_steps_want_lower_thresholds_and_profit() -> None:
    ann = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).double()
    x = torch.randn(600, 16, dtype=torch.float64) * torch.randn(600, 1, dtype=torch.float64).exp()
    labels = ann(x).argmax(1)

    def agreement(**options: Any) -> float:
        return evaluate(Converter([x], progress=False, **options)(ann), [(x, labels)], T=4, progress=False).accuracy[-1]

    assert agreement(mode="ltb", T=4) > agreement(mode="max", channel_wise=True, initial_potential=0.5) + 0.02


def test_suggestions_give_way_to_the_caller() -> None:
    ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    converter = Converter([torch.rand(50, 4)], mode="ltb", channel_wise=False, progress=False)
    converter(ann)
    assert all(low == high for low, high in converter.report.scales.values())


def test_a_dead_layer_is_reported() -> None:
    ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    nn.init.constant_(ann[0].bias, -100)
    with pytest.raises(DeadLayerError, match="never fired"):
        Converter([torch.rand(50, 4)], mode="ltb", progress=False)(ann)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"T": 0}, r"T=0 is not allowed: in mode 'ltb' it must be an integer of at least 1"),
        ({"T": 2.0}, r"T=2\.0 is not allowed"),
        ({"passes": 0}, r"passes=0 is not allowed: in mode 'ltb' it must be an integer from 1 to 100"),
        ({"passes": 101}, r"passes=101 is not allowed"),
        ({"passes": True}, r"passes=True is not allowed"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        LocalThresholdBalancing(**options)
