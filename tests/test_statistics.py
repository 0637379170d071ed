"""Activation statistics: true maxima, true quantiles in constant memory, and what becomes of silent channels."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sj_ann2snn import CalibrationSite, Converter, InputError, Normalization, QuantileSketch, simulate
from sj_ann2snn.builtin.normalizations import Fraction, Max, Percentile

from .networks import convert, run_by_hand

LAYER = CalibrationSite("layer")
CHANNELS = CalibrationSite("channels", channel_axis=1, channels=4)


def sketch_of(*batches: Tensor, **arguments: Any) -> QuantileSketch:
    sketch = QuantileSketch(batches[0].shape[0], **arguments)
    for batch in batches:
        sketch.update(batch)
    return sketch


def scale_of(mode: Normalization, site: CalibrationSite, *batches: Tensor) -> Tensor:
    observer = mode.observer(site)
    for batch in batches:
        assert observer.observe(batch) is None
    return observer.scale()


def bound(wanted: float, largest: float, bits: int = 12, octaves: int = 24) -> float:
    """The documented error of a sketch."""
    return 2.0 ** -(bits + 1) * wanted + largest * 2.0 ** -(octaves - 1)


def same_state(one: QuantileSketch, other: QuantileSketch) -> bool:
    return (
        torch.equal(one.counts, other.counts)
        and torch.equal(one.totals, other.totals)
        and torch.equal(one.maxima, other.maxima)
    )


# The quantile sketch against numpy ------------------------------------------------------------------

MANY = 20_000_000
"""torch.quantile refuses more than 16 million elements."""


def lognormal(random: np.random.Generator) -> np.ndarray:
    return random.lognormal(0.0, 2.0, MANY).astype(np.float32)


def rectified_with_outliers(random: np.random.Generator) -> np.ndarray:
    values = np.maximum(random.standard_normal(MANY, dtype=np.float32), 0)
    values[random.integers(0, MANY, 500)] *= 1000
    return values


def mostly_zero(random: np.random.Generator) -> np.ndarray:
    values = random.exponential(3.0, MANY).astype(np.float32)
    values[random.random(MANY) < 0.985] = 0
    return values


@pytest.mark.parametrize("distribution", [lognormal, rectified_with_outliers, mostly_zero])
def test_quantiles_of_twenty_million_values_are_those_of_numpy(distribution: Any) -> None:
    values = distribution(np.random.default_rng(0))
    tensor = torch.from_numpy(values)
    sketch = sketch_of(*(part[None] for part in tensor.split(3_333_333)))
    levels = [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0]
    wanted = np.quantile(values.astype(np.float64), levels)
    largest = float(values.max())
    for level, value in zip(levels, wanted, strict=True):
        assert abs(sketch.quantile(level).item() - value) <= bound(value, largest), level
    # The bound is worth something: at 99.9 % it is relative, not swallowed by the largest value.
    assert bound(wanted[3], largest) < 0.01 * wanted[3]


def test_percentile_mode_counts_zeros_as_numpy_does() -> None:
    values = np.maximum(np.random.default_rng(1).standard_normal(200_000, dtype=np.float32), 0)
    batches = [batch.reshape(-1, 8) for batch in torch.from_numpy(values).split(16_000)]
    scale = scale_of(Percentile(90.0), LAYER, *batches).item()
    assert scale == pytest.approx(np.percentile(values.astype(np.float64), 90.0), rel=2**-13)
    assert scale < 0.9 * np.percentile(values[values > 0], 90.0)


def test_every_row_has_quantiles_of_its_own() -> None:
    rows = torch.rand(5, 40_001) * torch.tensor([0.01, 0.5, 1.0, 7.0, 300.0])[:, None]
    sketch = sketch_of(*rows.split(7_000, dim=1), bits=7, octaves=20)
    for level in (0.25, 0.9, 0.999):
        got = sketch.quantile(level)
        assert got.shape == (5,)
        wanted = np.quantile(rows.double().numpy(), level, axis=1)
        for one, value in zip(got.tolist(), wanted, strict=True):
            assert abs(one - value) <= bound(value, 300.0, bits=7, octaves=20)


def test_more_rows_than_a_chunk_holds_columns() -> None:
    # The sketch works in chunks of a few million values; the last of them is a partial one.
    rows = torch.rand(3, 3_000_001)
    sketch = sketch_of(rows, bits=8)
    wanted = np.quantile(rows.double().numpy(), 0.99, axis=1)
    np.testing.assert_allclose(sketch.quantile(0.99).numpy(), wanted, rtol=2**-9)
    assert sketch.totals.tolist() == [3_000_001] * 3


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_few_values_are_interpolated_as_numpy_does(count: int) -> None:
    values = torch.rand(count) + 0.5
    sketch = sketch_of(values[None])
    for level in (0.0, 0.1, 0.5, 0.77, 1.0):
        wanted = np.quantile(values.double().numpy(), level)
        assert abs(sketch.quantile(level).item() - wanted) <= bound(wanted, float(values.max()))


def test_the_largest_value_is_exact() -> None:
    values = torch.rand(3, 1000)
    assert torch.equal(sketch_of(values).quantile(1.0), values.amax(1).double())


def test_constant_values_have_their_value_as_every_quantile() -> None:
    sketch = sketch_of(torch.full((1, 1000), 0.3))
    for level in (0.0, 0.5, 0.999, 1.0):
        assert sketch.quantile(level).item() == pytest.approx(0.3, rel=2**-13)
        assert sketch.quantile(level).item() <= torch.tensor(0.3).item()


def test_zeros_negatives_and_negative_zeros_are_zero() -> None:
    values = torch.tensor([[-3.0, -1e-30, -0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 4.0]])
    sketch = sketch_of(values)
    assert sketch.quantile(0.5).item() == 0.0
    assert sketch.quantile(0.9).item() == pytest.approx(2.2, rel=2**-12)
    assert sketch_of(torch.zeros(1, 50)).quantile(0.9).item() == 0.0
    assert sketch_of(torch.full((1, 50), -1.0)).quantile(1.0).item() == 0.0


def test_no_values_at_all() -> None:
    sketch = QuantileSketch(2)
    assert sketch.quantile(0.9).tolist() == [0.0, 0.0]
    sketch.update(torch.zeros(2, 0))
    assert sketch.totals.tolist() == [0, 0]
    sketch.update(torch.ones(2, 3))
    assert sketch.quantile(0.5).tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("magnitude", [1e-30, 1e-12, 1.0, 1e12, 1e30, 3e38])
def test_magnitude_does_not_matter(magnitude: float) -> None:
    values = (torch.rand(1, 5000).clamp_min(1e-3) * magnitude).float()
    sketch = sketch_of(values)
    for level in (0.3, 0.99):
        wanted = np.quantile(values.double().numpy(), level)
        assert abs(sketch.quantile(level).item() - wanted) <= bound(wanted, float(values.max()))


@pytest.mark.parametrize("magnitude", [1e-33, 1e-36, 1e-38])
def test_zeros_stay_zeros_among_tiny_values(magnitude: float) -> None:
    sketch = sketch_of(torch.tensor([[0.0] * 900 + [magnitude] * 100]))
    assert sketch.quantile(0.5).item() == 0.0
    # The layer is sparse: its percentile is zero, so the maximum stands in.
    values = torch.tensor([0.0] * 995 + [magnitude] * 5)[None]
    assert scale_of(Percentile(99.0), LAYER, values).item() == pytest.approx(magnitude)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    values = (torch.rand(1, 20_000) * 3 + 0.01).to(dtype)
    wanted = np.quantile(values.double().numpy(), 0.99)
    assert abs(sketch_of(values).quantile(0.99).item() - wanted) <= bound(wanted, 4.0)
    site = CalibrationSite("double")
    assert scale_of(Max(), site, values).item() == values.max().item()


def test_a_window_that_rises_with_every_batch() -> None:
    random = torch.Generator().manual_seed(3)
    batches = [torch.rand(1, 3000, generator=random) * 10.0**power for power in (-8, -5, -2, 0, 1, 2, 4)]
    rising, whole = sketch_of(*batches), sketch_of(torch.cat(batches, 1))
    falling = sketch_of(*batches[::-1])
    assert same_state(rising, whole)
    assert same_state(falling, whole)
    values = torch.cat(batches, 1).double().numpy()
    for level in (0.5, 0.8, 0.999):
        wanted = np.quantile(values, level)
        assert abs(rising.quantile(level).item() - wanted) <= bound(wanted, float(values.max()))


def test_a_rise_beyond_the_whole_window_forgets_what_became_negligible() -> None:
    sketch = sketch_of(torch.full((1, 10), 1e-20), torch.full((1, 10), 1e20))
    assert sketch.quantile(0.25).item() <= 1e20 * 2.0**-23
    assert sketch.quantile(0.9).item() == pytest.approx(1e20, rel=2**-12)
    assert sketch.totals.item() == 20


def test_memory_is_constant() -> None:
    sketch = QuantileSketch(2, bits=8, octaves=10)
    size = sketch.counts.numel()
    assert size == 2 * 10 * 2**8
    for power in range(-10, 10):
        sketch.update(torch.rand(2, 1000) * 10.0**power)
    assert sketch.counts.numel() == size


# Merging --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_merged_sketches_equal_one(order: tuple[int, ...]) -> None:
    parts = [torch.rand(4, 500) * 1e-3, torch.rand(4, 900), torch.rand(4, 100) * 1e4]
    merged = QuantileSketch(4)
    for index in order:
        merged.merge(sketch_of(parts[index]))
    assert same_state(merged, sketch_of(torch.cat(parts, 1)))


def test_merging_nothing_changes_nothing() -> None:
    values = torch.rand(1, 100)
    sketch = sketch_of(values)
    sketch.merge(QuantileSketch(1))
    assert same_state(sketch, sketch_of(values))
    empty = QuantileSketch(1)
    empty.merge(sketch)
    assert same_state(empty, sketch)


@pytest.mark.parametrize("other", [QuantileSketch(2), QuantileSketch(1, bits=5), QuantileSketch(1, octaves=9)])
def test_sketches_of_another_shape_do_not_merge(other: QuantileSketch) -> None:
    with pytest.raises(InputError, match=r"of \d rows, \d+ bits and \d+ octaves cannot be merged into one of 1 rows"):
        QuantileSketch(1).merge(other)


def test_collapsed_is_the_sketch_of_all_rows() -> None:
    rows = torch.rand(6, 400) * torch.rand(6, 1) * 50
    assert same_state(sketch_of(rows).collapsed(), sketch_of(rows.reshape(1, -1)))


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


# Properties -----------------------------------------------------------------------------------------

magnitudes = st.one_of(st.just(0.0), st.floats(2.0**-20, 2.0**20, width=32))


@settings(max_examples=150, deadline=None)
@given(st.lists(magnitudes, min_size=1, max_size=80), st.floats(0, 1))
def test_any_quantile_of_any_values_is_within_the_bound(values: list[float], level: float) -> None:
    sketch = sketch_of(torch.tensor([values]))
    wanted = float(np.quantile(np.array(values, dtype=np.float32).astype(np.float64), level))
    got = sketch.quantile(level).item()
    assert abs(got - wanted) <= bound(wanted, max(values)) * (1 + 1e-9)
    assert got <= torch.tensor(values).max().item()


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(magnitudes, min_size=1, max_size=12), min_size=1, max_size=8), st.randoms())
def test_any_split_in_any_order_gives_the_same_sketch(parts: list[list[float]], random: Any) -> None:
    whole = sketch_of(torch.tensor([list(itertools.chain(*parts))]))
    random.shuffle(parts)
    batches = [torch.tensor([part]) for part in parts]
    one_by_one, merged = sketch_of(*batches), QuantileSketch()
    for batch in batches:
        merged.merge(sketch_of(batch))
    assert same_state(one_by_one, whole)
    assert same_state(merged, whole)


@settings(max_examples=50, deadline=None)
@given(st.lists(magnitudes, min_size=2, max_size=60), st.floats(0, 1), st.floats(0, 1))
def test_quantiles_rise_with_their_level(values: list[float], one: float, other: float) -> None:
    sketch = sketch_of(torch.tensor([values]))
    low, high = sorted((one, other))
    assert sketch.quantile(low).item() <= sketch.quantile(high).item() * (1 + 1e-12)


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
    for name, (low, high) in report_of(ann, data, mode=mode).items():
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
