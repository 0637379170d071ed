"""Max pooling of spike trains: exact at every step, or gated by rates."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sj_ann2snn import Converter, CumulativeMax, CumulativeMaxPool, MomentumMaxPool, OptionError

POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}

SIZES = {1: (13,), 2: (9, 8), 3: (6, 5, 7)}

GEOMETRIES: list[tuple[int, dict[str, Any]]] = [
    (1, {"kernel_size": 2}),
    (1, {"kernel_size": 3, "stride": 1, "padding": 1}),
    (1, {"kernel_size": 3, "stride": 2, "dilation": 3}),
    (1, {"kernel_size": 4, "stride": 3, "ceil_mode": True}),
    (2, {"kernel_size": 2}),
    (2, {"kernel_size": 3, "stride": 2, "padding": 1}),
    (2, {"kernel_size": (3, 2), "stride": (1, 3), "padding": (1, 0)}),
    (2, {"kernel_size": 2, "stride": 1, "dilation": (3, 2)}),
    (2, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    (2, {"kernel_size": (9, 8)}),
    (2, {"kernel_size": 1, "stride": 2}),
    (3, {"kernel_size": 2}),
    (3, {"kernel_size": (1, 2, 3), "stride": (2, 1, 2), "padding": (0, 1, 1), "ceil_mode": True}),
    (3, {"kernel_size": 2, "stride": 1, "dilation": 2}),
]


def named(case: Any) -> str | None:
    return ",".join(f"{key}={value}" for key, value in case.items()) if isinstance(case, dict) else None


each_geometry = pytest.mark.parametrize(("spatial", "geometry"), GEOMETRIES, ids=named)


def spikes(spatial: int, steps: int = 12, dtype: torch.dtype = torch.float64) -> Tensor:
    """Spike trains of different rates, ``[T, N, C, ...]``."""
    rates = torch.rand(2, 3, *SIZES[spatial])
    return (torch.rand(steps, *rates.shape) < rates).to(dtype)


def windows(size: tuple[int, ...], geometry: dict[str, Any]) -> tuple[tuple[int, ...], dict[Any, list[Any]]]:
    """For each output position the input positions in its window, padding left out, as torch's docs define it."""
    dims = len(size)

    def each(name: str, default: Any) -> tuple[int, ...]:
        value = geometry.get(name, default)
        return (value,) * dims if isinstance(value, int) else tuple(value)

    kernel = each("kernel_size", None)
    stride, padding, dilation = each("stride", kernel), each("padding", 0), each("dilation", 1)
    counts = []
    for axis in range(dims):
        span = size[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1
        count = -(-span // stride[axis]) + 1 if geometry.get("ceil_mode") else span // stride[axis] + 1
        if geometry.get("ceil_mode") and (count - 1) * stride[axis] >= size[axis] + padding[axis]:
            count -= 1  # a window may not start in the padding on the right
        counts.append(count)
    found: dict[Any, list[Any]] = {}
    for position in itertools.product(*map(range, counts)):
        inside = []
        for offset in itertools.product(*map(range, kernel)):
            place = tuple(
                p * s - pad + o * d for p, s, pad, o, d in zip(position, stride, padding, offset, dilation, strict=True)
            )
            if all(0 <= one < limit for one, limit in zip(place, size, strict=True)):
                inside.append(place)
        found[position] = inside
    return tuple(counts), found


# Cumulative -----------------------------------------------------------------------------------------


@each_geometry
def test_cumulative_is_exact_at_every_step(spatial: int, geometry: dict[str, Any]) -> None:
    x = spikes(spatial)
    pool = CumulativeMaxPool(spatial, **geometry)
    out = torch.stack([pool(one) for one in x])
    # With numpy, window by window.
    counts, places = windows(SIZES[spatial], geometry)
    summed = x.numpy().cumsum(0)
    wanted = np.zeros((*x.shape[:3], *counts))
    for position, inside in places.items():
        wanted[(..., *position)] = np.max([summed[(..., *place)] for place in inside], axis=0)
    np.testing.assert_array_equal(out.numpy().cumsum(0), wanted)
    # With torch's own pooling of the sums.
    pooled = torch.stack([POOLS[spatial](one, **geometry) for one in x.cumsum(0)])
    assert torch.equal(out.cumsum(0), pooled)


@each_geometry
def test_cumulative_is_binary_for_spikes(spatial: int, geometry: dict[str, Any]) -> None:
    pool = CumulativeMaxPool(spatial, **geometry)
    out = torch.stack([pool(one) for one in spikes(spatial, steps=30, dtype=torch.float32)])
    assert set(out.unique().tolist()) == {0.0, 1.0}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_cumulative_is_exact_for_any_window_and_input(data: Any) -> None:
    kernel = data.draw(st.integers(1, 4))
    geometry = {
        "kernel_size": kernel,
        "stride": data.draw(st.integers(1, 4)),
        "padding": data.draw(st.integers(0, kernel // 2)),
        "dilation": data.draw(st.integers(1, 3)),
        "ceil_mode": data.draw(st.booleans()),
    }
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    # Currents may be negative, as behind a convolution.
    x = torch.randint(-3, 4, (6, 1, 2, 12, 11), generator=generator).double()
    pool = CumulativeMaxPool(2, **geometry)
    out = torch.stack([pool(one) for one in x])
    assert torch.equal(out.cumsum(0), torch.stack([F.max_pool2d(one, **geometry) for one in x.cumsum(0)]))


# Momentum -------------------------------------------------------------------------------------------


def naive_gate(x: np.ndarray, geometry: dict[str, Any], momentum: float) -> np.ndarray:
    """The gate of Rueckauer et al. 2017 in plain Python: one window, one channel, one step at a time."""
    steps, samples, channels = x.shape[:3]
    counts, places = windows(x.shape[3:], geometry)
    out = np.zeros((steps, samples, channels, *counts))
    for sample, channel in itertools.product(range(samples), range(channels)):
        rate = dict.fromkeys(itertools.product(*map(range, x.shape[3:])), 0.0)
        for step in range(steps):
            spike = x[step, sample, channel]
            for place in rate:
                rate[place] = momentum * rate[place] + (1 - momentum) * float(spike[place])
            for position, inside in places.items():
                best = inside[0]
                for place in inside[1:]:
                    if rate[place] > rate[best]:
                        best = place
                out[(step, sample, channel, *position)] = spike[best]
    return out


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@each_geometry
def test_the_gate_does_what_plain_python_does(spatial: int, geometry: dict[str, Any], momentum: float) -> None:
    x = spikes(spatial, steps=7)[:, :1, :2]
    gate = MomentumMaxPool(spatial, momentum=momentum, **geometry)
    out = torch.stack([gate(one) for one in x])
    np.testing.assert_array_equal(out.numpy(), naive_gate(x.numpy(), geometry, momentum))


def test_the_gate_passes_the_spikes_of_the_strongest_input() -> None:
    rates = torch.tensor([[[0.2, 0.7, 0.4, 0.1]]])
    x = (torch.rand(4000, 1, 1, 4) < rates).float()
    gate = MomentumMaxPool(1, 4, momentum=0.99)
    out = torch.stack([gate(one) for one in x])
    assert set(out.unique().tolist()) <= {0.0, 1.0}
    assert out[200:].mean().item() == pytest.approx(0.7, abs=0.03)
    assert torch.equal(out[1000:, 0, 0, 0], x[1000:, 0, 0, 1])


@pytest.mark.parametrize("momentum", [-0.1, 1.0, 2, float("nan")])
def test_momentum_out_of_range(momentum: float) -> None:
    with pytest.raises(OptionError, match=r"maxpool_momentum=.* must be in \[0, 1\)"):
        MomentumMaxPool(2, 2, momentum=momentum)
    with pytest.raises(OptionError, match=r"maxpool_momentum=.* must be in \[0, 1\)"):
        Converter(maxpool="momentum", maxpool_momentum=momentum)


# Both: memory, step modes ---------------------------------------------------------------------------


STATEFUL = [lambda spatial, **g: CumulativeMaxPool(spatial, **g), lambda spatial, **g: MomentumMaxPool(spatial, **g)]


@pytest.mark.parametrize("make", STATEFUL, ids=["cumulative", "momentum"])
@each_geometry
def test_step_modes_agree(make: Any, spatial: int, geometry: dict[str, Any]) -> None:
    x = spikes(spatial)
    pool = make(spatial, **geometry)
    by_step = torch.stack([pool(one) for one in x])
    functional.reset_net(pool)
    functional.set_step_mode(pool, "m")
    assert torch.equal(pool(x), by_step)
    functional.reset_net(pool)
    # Memory goes on from call to call.
    halves = torch.cat([pool(x[:5]), pool(x[5:])])
    assert torch.equal(halves, by_step)


@pytest.mark.parametrize("make", STATEFUL, ids=["cumulative", "momentum"])
def test_reset_clears_the_memory(make: Any) -> None:
    x = spikes(2)
    pool = nn.Sequential(make(2, kernel_size=2))
    first = torch.stack([pool(one) for one in x])
    unclean = torch.stack([pool(one) for one in x])
    assert not torch.equal(first, unclean)
    functional.reset_net(pool)
    assert torch.equal(torch.stack([pool(one) for one in x]), first)
    functional.reset_net(pool)
    # Another batch size and image size fit after a reset.
    assert pool(torch.ones(7, 3, 4, 4, dtype=torch.float64)).shape == (7, 3, 2, 2)


@pytest.mark.parametrize("make", STATEFUL, ids=["cumulative", "momentum"])
def test_pools_print_their_geometry(make: Any) -> None:
    shown = repr(make(2, kernel_size=3, stride=2, padding=1))
    for part in ("kernel_size=3", "stride=2", "padding=1", "dilation=1", "ceil_mode=False", "step_mode=s"):
        assert part in shown


@pytest.mark.parametrize("maximum", [nn.AdaptiveMaxPool2d(2), nn.AdaptiveMaxPool2d((1, 3)), nn.MaxPool2d(3, 2)])
def test_any_maximum_becomes_exact_at_every_step(maximum: nn.Module) -> None:
    x_seq = torch.randn(9, 4, 3, 7, 6).double()
    by_step, at_once = CumulativeMax(maximum), CumulativeMax(maximum)
    at_once.step_mode = "m"
    outputs = torch.stack([by_step(x) for x in x_seq])
    wanted = torch.stack([maximum(total) for total in x_seq.cumsum(0)])
    torch.testing.assert_close(outputs.cumsum(0), wanted, rtol=0, atol=1e-12)
    halves = torch.cat([at_once(x_seq[:4].clone()), at_once(x_seq[4:].clone())])
    assert torch.equal(halves, outputs)
    functional.reset_net(at_once)
    assert torch.equal(at_once(x_seq.clone()), outputs)
    x_seq.requires_grad_()
    functional.reset_net(at_once)
    (gradient,) = torch.autograd.grad(at_once(x_seq).sum(), x_seq)
    assert bool(gradient.abs().sum() > 0)
