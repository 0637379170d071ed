"""The quantile sketch: true maxima, and quantiles within a known bound in constant memory."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sj_ann2snn import CalibrationSite, InputError, Normalization, QuantileSketch
from sj_ann2snn.builtin.normalizations import Max, Percentile

LAYER = CalibrationSite("layer")


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
    with pytest.raises(
        InputError, match=r"with \d rows, \d+ bits and \d+ octaves cannot be merged into one with 1 rows"
    ):
        QuantileSketch(1).merge(other)


def test_collapsed_is_the_sketch_of_all_rows() -> None:
    rows = torch.rand(6, 400) * torch.rand(6, 1) * 50
    assert same_state(sketch_of(rows).collapsed(), sketch_of(rows.reshape(1, -1)))


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
