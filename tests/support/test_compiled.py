"""The compiled loops do what the torch operations do, to the last bit, and the package works without them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import QuantileSketch, simulate
from sj_ann2snn.contracts import quantiles
from sj_ann2snn.simulation.engine.numbers import firing, kernels
from sj_ann2snn.support import compiled

from ..helpers.networks import convert

numba = pytest.importorskip("numba", reason="numba is not installed")


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    compiled.compiled_loop.cache_clear()
    yield
    compiled.compiled_loop.cache_clear()


class Neuron:
    """As much of an IF neuron as `fire` reads; a neuron of SpikingJelly is one, too."""

    def __new__(cls, threshold: float, potential: Any) -> Any:
        from sj_ann2snn.compat import make_if_neuron

        neuron = make_if_neuron()
        neuron.v_threshold = threshold
        neuron.v = potential
        return neuron


LAYOUTS = {
    "rows": lambda steps: torch.randn(steps, 7, 13),
    "images": lambda steps: torch.randn(steps, 3, 5, 4, 6),
    "channels last": lambda steps: (
        torch.randn(steps * 3, 5, 4, 6).contiguous(memory_format=torch.channels_last).view(steps, 3, 5, 4, 6)
    ),
    "more than a block": lambda steps: torch.randn(steps, 3, 5000),
    "one step repeated": lambda steps: torch.randn(3, 5, 4).expand(steps, 3, 5, 4),
    "steps apart": lambda steps: torch.randn(steps * 2, 3, 5)[::2],
    "with gaps": lambda steps: torch.randn(steps, 3, 10)[..., ::2],
    "permuted": lambda steps: torch.randn(steps, 4, 3, 5).transpose(1, 3),
    "empty": lambda steps: torch.randn(steps, 0, 5),
}


def fired(x_seq: Tensor, threshold: float, start: float, overwrite: bool) -> tuple[Tensor, Tensor]:
    neuron = Neuron(threshold, start)
    if overwrite:
        x_seq = x_seq.clone() if x_seq.stride(0) else x_seq.contiguous().clone()
    spikes = firing.fire(neuron, x_seq, overwrite=overwrite)
    assert (spikes is x_seq) == overwrite
    return spikes.clone(), neuron.v


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [1.0, 0.3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_spikes_and_potentials_are_the_same_bits(
    layout: str, threshold: float, dtype: torch.dtype, overwrite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x_seq = LAYOUTS[layout](9).to(dtype)
    fast = fired(x_seq, threshold, 0.5, overwrite)
    monkeypatch.setattr(firing, "compiled_loop", lambda loop: None)
    slow = fired(x_seq, threshold, 0.5, overwrite)
    for one, other in zip(fast, slow, strict=True):
        assert one.shape == other.shape
        assert torch.equal(one, other)


@pytest.mark.parametrize("layout", ["rows", "images", "channels last", "more than a block", "one step repeated"])
def test_what_networks_produce_runs_compiled(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def noting(loop: Any) -> Any:
        fast = compiled.compiled_loop(loop)
        return lambda *args: (used.append(loop), fast(*args))

    monkeypatch.setattr(firing, "compiled_loop", noting)
    fired(LAYOUTS[layout](4), 1.0, 0.0, overwrite=False)
    fired(LAYOUTS[layout](4), 1.0, 0.0, overwrite=True)
    assert used == [kernels.fire, kernels.fire_in_place]


def test_a_potential_carried_on_from_another_layout() -> None:
    x_seq = LAYOUTS["channels last"](6)
    wanted, _ = fired(x_seq, 1.0, 0.0, overwrite=False)
    neuron = Neuron(1.0, 0.0)
    first = firing.fire(neuron, x_seq[:2].contiguous(), overwrite=False)
    rest = firing.fire(neuron, x_seq[2:], overwrite=False)
    assert torch.equal(torch.cat([first, rest]), wanted)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3), nn.ReLU())


@pytest.mark.parametrize("missing", ["not installed", "switched off", "nowhere to cache"])
def test_without_numba(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(9, 1, 8, 8)
    snn = convert(network(), x)
    wanted = simulate(snn, x, T=30)
    compiled.compiled_loop.cache_clear()
    if missing == "not installed":
        monkeypatch.setitem(sys.modules, "numba", None)
    elif missing == "switched off":
        monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    else:
        njit = numba.njit

        def without_cache(**options: Any) -> Any:
            if options.get("cache"):
                raise RuntimeError("cannot cache function 'fire': no locator available")
            return njit(**options)

        monkeypatch.setattr(numba, "njit", without_cache)
    assert torch.equal(simulate(snn, x, T=30), wanted)
    assert (compiled.compiled_loop(kernels.fire) is None) == (missing != "nowhere to cache")


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("layout", ["contiguous", "strided"])
def test_counters_of_a_sketch_are_the_same(rows: int, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    for scale in (1e-3, 1.0, 40.0, 1e-20, 0.0):
        x = torch.randn(rows, 3000) * scale
        x[:, ::7] = 0.0
        batches.append(x if layout == "contiguous" else x.repeat_interleave(2, 1)[:, ::2])
    batches += [torch.full((rows, 3), -1.0), torch.full((rows, 3), -0.0), torch.full((rows, 2), 3e38)]
    fast, slow = QuantileSketch(rows), QuantileSketch(rows)
    for x in batches:
        fast.update(x)
    monkeypatch.setattr(quantiles, "compiled_loop", lambda loop: None)
    for x in batches:
        slow.update(x)
    assert fast.counts.sum() > 0
    assert torch.equal(fast.counts, slow.counts)
    assert torch.equal(fast.totals, slow.totals)
    assert torch.equal(fast.maxima, slow.maxima)


def test_stored_code_is_that_of_one_version_of_numba_and_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for version in ("0.61.0", "0.68.1"):
        monkeypatch.setattr(numba, "__version__", version)
        compiled.compiled_loop.cache_clear()
        stored: Any = compiled.compiled_loop(kernels.fire_in_place)
        names.append(stored.py_func.__qualname__)
    assert len(set(names)) == 2
    assert all(name.startswith("fire_in_place_numba_0_6") and "_numpy_" in name for name in names)
    assert kernels.fire_in_place.__qualname__ == "fire_in_place"
